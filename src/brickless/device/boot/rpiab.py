"""The Raspberry Pi back end: two boot partitions, of which the firmware's `tryboot` boots one on trial (device.md 3.7).

    BOOTSEL   `autoboot.txt` names the partition to boot and, under `[tryboot]`, the one to try
    A, B      boot partitions: kernel, initramfs, `pv_rev.txt` with the revisions for which this boot is right
    storage   `boot/rpiab.txt`: 512 bytes of variables (pv_rev, pv_try)

The order in which an update touches them, and what a power cut after each step leads to:

    1. `install`: the revision's boot image goes to the partition that is not booted, then its `pv_rev.txt`. Nothing
       points there but `[tryboot]`, which the firmware reads only when asked: the old revision boots
    2. `set_try`: pv_try=X, one sector. Still nobody asks the firmware: the old revision boots, sees a try that never
       was, and ends it
    3. `request_tryboot`, right before the reset: a flag in the firmware that a power cut clears. One attempt for each
       request: there is no counter to write, so nothing can be tried without end
    4. `commit`: the two numbers in `autoboot.txt` change places, one sector in place: from here on X boots, and this
       is the one point at which old becomes new. Then pv_rev=X and no pv_try in `rpiab.txt`. A cut between the two:
       the booted partition's `pv_rev.txt` names pv_try and not pv_rev, so `read` knows that the commit was made, and
       says so

A file-level implementation: partitions are folders (mounted by the caller) or stand-ins in tests. What needs the board
itself (the firmware's mailbox, the EEPROM's age) is behind `Firmware`, and is not driven by this runtime yet.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, NamedTuple, Protocol

from brickless.core import bootenv, paths
from brickless.core.errors import HostileInputError
from brickless.device.boot.variables import BootState
from brickless.linux import journal
from brickless.store import atomic, sector
from brickless.store.atomic import FILES, Files

VARIABLES = "boot/rpiab.txt"
AUTOBOOT = "autoboot.txt"
REVISIONS = "pv_rev.txt"
IMAGE = ".pv/rpiboot.img"
SIZE_BYTES = 512
MAX_REVISIONS_BYTES = 511
MAX_IMAGE_BYTES = 1 << 30
CHUNK_BYTES = 1 << 20
_SECTION = re.compile(r"^\[(?P<name>[a-z0-9=_-]+)\]$")


class Firmware(Protocol):
    """What only the board can do."""

    def is_tryboot(self) -> bool:
        """Whether this boot is one on trial."""
        ...

    def request_tryboot(self) -> None:
        """Have the next reset, and only that, boot the partition on trial. Raises `OSError`."""
        ...


class Slot(NamedTuple):
    """A boot partition: its number, the folder where it is mounted, the device or file that an image is written to."""

    number: int
    folder: str
    device: str


def parse_autoboot(text: str) -> tuple[int, int]:
    """(partition to boot, partition to try) of an `autoboot.txt`. Raises `HostileInputError`."""
    found: dict[str, int] = {}
    section = "all"
    for line in text[:SIZE_BYTES].splitlines():
        match = _SECTION.match(line.strip())
        if match is not None:
            section = match["name"]
            continue
        key, _, value = line.partition("=")
        if key.strip() == "boot_partition" and value.strip().isdecimal() and len(value.strip()) < 3:
            found[section] = int(value)
    if set(found) < {"all", "tryboot"}:
        raise HostileInputError(f"{AUTOBOOT} does not name a partition to boot and one to try")
    return found["all"], found["tryboot"]


def render_autoboot(boot: int, tried: int) -> bytes:
    """The file: its size never changes, so that a change of it is a change of its one sector."""
    return f"[all]\ntryboot_a_b=1\nboot_partition={boot}\n[tryboot]\nboot_partition={tried}\n".encode()


class Rpiab:
    """The back end over mounted partitions. Everything raises `OSError` when a disk refuses."""

    __slots__ = ("_bootsel", "_files", "_firmware", "_slots", "_storage")

    def __init__(
        self, storage: str, bootsel: str, slots: tuple[Slot, Slot], firmware: Firmware, files: Files = FILES
    ) -> None:
        """`bootsel` is the folder with `autoboot.txt`."""
        self._storage = storage
        self._bootsel = bootsel
        self._slots = {slot.number: slot for slot in slots}
        self._firmware = firmware
        self._files = files

    def read(self) -> BootState:
        """What is stored, with a commit that a power cut interrupted taken as made."""
        variables = self._variables()
        rev, tried = variables.get("pv_rev") or bootenv.FACTORY, variables.get("pv_try", "")
        fits = self.revisions(self._booted())
        if tried and not self._firmware.is_tryboot() and tried in fits and rev not in fits:
            return BootState(tried, "")
        return BootState(rev, tried)

    def install(self, rev: str) -> None:
        """Write the revision's boot image to the partition that is not booted, then the name of the revision."""
        paths.check_revision(rev)
        slot = self._other()
        source = os.path.join(self._storage, "trails", rev, IMAGE)
        packed = not os.path.exists(source)
        with open(f"{source}.gz" if packed else source, "rb") as stream:
            self._write_image(slot, _unpacked(stream) if packed else _chunks(stream))
        self._name(slot, (rev,))

    def _write_image(self, slot: Slot, chunks: Iterator[bytes]) -> None:
        fd = self._files.open(slot.device, os.O_WRONLY)
        try:
            for chunk in chunks:
                atomic.write_all(fd, chunk, self._files)
            self._files.fsync(fd)
        finally:
            self._files.close(fd)

    def set_try(self, rev: str) -> None:
        """Have the next boot try `rev`, which `install` put on the other partition, or which this boot is right for."""
        paths.check_revision(rev)
        if rev not in self.revisions(self._other()) and rev not in self.revisions(self._booted()):
            raise OSError(2, f"revision {rev} is on no boot partition")
        variables = bootenv.request_try(self._variables(), rev)
        journal.checkpoint(self._storage)
        self._store(variables)

    def request_tryboot(self) -> None:
        """Right before the reset: ask the firmware, if the revision on trial lies on the other partition."""
        if self.read().try_ in self.revisions(self._other()):
            self._firmware.request_tryboot()

    def commit(self, rev: str) -> None:
        """Make `rev` the committed revision: the partition first, then the variables."""
        boot, tried = self._autoboot()
        if rev not in self.revisions(self._slots[boot]):
            self._store_file(os.path.join(self._bootsel, AUTOBOOT), render_autoboot(tried, boot))
        self._store(bootenv.commit(self._variables(), rev))

    def accumulate(self, rev: str) -> bool:
        """Add a revision with the same boot files to the booted partition; False when the list is full: reboot then."""
        paths.check_revision(rev)
        slot = self._booted()
        wanted = (*self.revisions(slot), rev)
        if len(",".join(wanted)) > MAX_REVISIONS_BYTES:
            return False
        self._name(slot, wanted)
        return True

    def give_up(self) -> None:
        """Nothing to do: the firmware tries once for each request."""

    def fail(self) -> None:
        """End a try that failed: on the boot that fell back, its ERROR being on the disk already."""
        self._store(bootenv.clear_try(self._variables()))

    def confirm(self, mark: str) -> None:
        """The firmware does not count boots."""

    def revisions(self, slot: Slot) -> tuple[str, ...]:
        """The revisions for which a partition's boot files are right; none when it does not say."""
        data = sector.read(os.path.join(slot.folder, REVISIONS), SIZE_BYTES) or b""
        return tuple(name.strip() for name in data.decode("utf-8", "replace").split(",") if name.strip("\0 \n"))

    def _name(self, slot: Slot, revisions: tuple[str, ...]) -> None:
        text = ",".join(revisions).encode().ljust(SIZE_BYTES, b" ")
        self._store_file(os.path.join(slot.folder, REVISIONS), text)

    def _booted(self) -> Slot:
        boot, tried = self._autoboot()
        return self._slots[tried if self._firmware.is_tryboot() else boot]

    def _other(self) -> Slot:
        booted = self._booted()
        return next(slot for number, slot in self._slots.items() if number != booted.number)

    def _autoboot(self) -> tuple[int, int]:
        text = (sector.read(os.path.join(self._bootsel, AUTOBOOT), SIZE_BYTES) or b"").decode("ascii", "replace")
        boot, tried = parse_autoboot(text)
        if {boot, tried} != set(self._slots):
            raise HostileInputError(f"{AUTOBOOT} names the partitions {boot} and {tried}, there are {[*self._slots]}")
        return boot, tried

    def _variables(self) -> dict[str, str]:
        return bootenv.parse(sector.read(os.path.join(self._storage, VARIABLES), SIZE_BYTES) or b"")

    def _store(self, variables: Mapping[str, str]) -> None:
        data = bootenv.render(variables).ljust(SIZE_BYTES, b"\0")
        if len(data) > SIZE_BYTES:
            raise OSError(28, f"the boot variables take {len(data)} bytes, {VARIABLES} has {SIZE_BYTES}")
        path = os.path.join(self._storage, VARIABLES)
        atomic.make_dirs(os.path.dirname(path), files=self._files)
        self._store_file(path, data)

    def _store_file(self, path: str, data: bytes) -> None:
        if not sector.replace(path, data, files=self._files):
            journal.checkpoint(os.path.dirname(path))


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    total = 0
    while chunk := stream.read(CHUNK_BYTES):
        total += len(chunk)
        if total > MAX_IMAGE_BYTES:
            raise HostileInputError(f"a boot image has more than {MAX_IMAGE_BYTES} bytes")
        yield chunk


def _unpacked(stream: IO[bytes]) -> Iterator[bytes]:
    """A gzip stream, unpacked piece by piece; never more than the bound."""
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    total = 0
    try:
        while chunk := stream.read(CHUNK_BYTES):
            while chunk:
                plain = unpacker.decompress(chunk, CHUNK_BYTES)
                total += len(plain)
                if total > MAX_IMAGE_BYTES:
                    raise HostileInputError(f"a boot image has more than {MAX_IMAGE_BYTES} bytes")
                yield plain
                chunk = unpacker.unconsumed_tail
    except zlib.error as error:
        raise HostileInputError(f"a boot image is no gzip stream: {error}") from error
    if not unpacker.eof:
        raise HostileInputError("a boot image ends in the middle")
