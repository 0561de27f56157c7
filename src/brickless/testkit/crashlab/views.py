"""How a bootloader sees a crashed disk: which revisions it boots, and what it loads for each.

Two ways to look. The emulated device's own firmware replays the journal first. The bootloaders of real boards read the
file system as it lies there, without its journal, and remember their tries on a partition of their own.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from brickless.core import bootenv, bootselect
from brickless.device.boot import grub
from brickless.image import boards, fat
from brickless.testkit.crashlab import inspect
from brickless.twin.disk import copy_sparse, equalise

KERNEL, INITRD = "pv-kernel.img", "pv-initrd.img"
MAX_BOOTS = 60


class Seen(NamedTuple):
    """What the bootloader does with this disk: revisions in the order of its boots, should each of them fail.

    `loaded` has, for each of them, the SHA-256 of the files that it would load; None: it has not looked yet.
    `environment` are the bytes of its variables where they lie outside of the storage.
    """

    boots: tuple[str, ...]
    loaded: Mapping[str, Mapping[str, str]] | None
    faults: tuple[str, ...] = ()
    environment: bytes | None = None


class View(Protocol):
    """A kind of device."""

    environment: str
    reads_journal: bool

    def storage(self, image: Path, out: Path) -> Path:
        """The storage partition as a file: the image itself, or `out`, which may hold an older one of that size."""
        ...

    def parse(self, raw: bytes) -> Mapping[str, str]:
        """The variables of the environment."""
        ...

    def look(self, image: Path, storage: Path, max_attempts: int) -> Seen:
        """What the bootloader does. With `reads_journal` it is asked after the journal was replayed."""
        ...


class Emulator:
    """`twin.firmware`: one file system, no partitions; its memory is not on the disk, so it counts as empty."""

    environment = "boot/uboot.txt"
    reads_journal = True

    def storage(self, image: Path, out: Path) -> Path:  # noqa: ARG002 - a board needs it
        """See `View.storage`."""
        return image

    def parse(self, raw: bytes) -> Mapping[str, str]:
        """See `View.parse`."""
        return bootenv.parse(raw)

    def look(self, image: Path, storage: Path, max_attempts: int) -> Seen:  # noqa: ARG002 - a board needs it
        """See `View.look`."""
        raw = inspect.contents(storage, [self.environment]).get(self.environment, b"")
        environment = self.parse(raw)
        chosen: list[str] = []
        trying = ""
        for _ in range(max_attempts + 1):
            choice = bootenv.choose(environment, trying, max_attempts=max_attempts)
            trying = choice.trying
            chosen.append(choice.rev)
            if not choice.attempt:
                break
        return Seen(tuple(dict.fromkeys(chosen)), None)


class BoardView:
    """A board with a boot partition (FAT) and a storage partition (ext4, read without its journal)."""

    reads_journal = False

    def __init__(
        self,
        environment: str,
        memory: str,
        parse: Callable[[bytes], Mapping[str, str]],
        parse_memory: Callable[[bytes], Mapping[str, str] | None],
        *,
        on_boot: bool = False,
    ) -> None:
        """Where the two records lie and how they are read; `on_boot`: the environment is on the boot partition."""
        self.environment = environment
        self.memory = memory
        self._on_boot = on_boot
        self._parse = parse
        self._parse_memory = parse_memory

    def storage(self, image: Path, out: Path) -> Path:
        """See `View.storage`."""
        offset = boards.layout(0)[1].offset_bytes
        if out.exists():
            equalise(image, out, offset=offset)
        else:
            copy_sparse(image, out, offset=offset)
        return out

    def parse(self, raw: bytes) -> Mapping[str, str]:
        """See `View.parse`."""
        return self._parse(raw)

    def look(self, image: Path, storage: Path, max_attempts: int) -> Seen:
        """See `View.look`."""
        with image.open("rb") as stream:
            boot = fat.Fat(stream, boards.GAP_BYTES)
            block = boot.read(self.memory)
            raw = boot.read(self.environment) if self._on_boot else None
        if not self._on_boot:
            raw = inspect.contents(storage, [self.environment]).get(self.environment)
        if raw is None:
            return Seen((), {}, (f"the bootloader does not find {self.environment}",))
        if block is None:
            return Seen((), {}, (f"the bootloader's memory {self.memory} is gone",))
        seen = self._walk(storage, self.parse(raw), self._parse_memory(block), max_attempts)
        return seen._replace(environment=raw) if self._on_boot else seen

    def _walk(
        self, storage: Path, environment: Mapping[str, str], memory: Mapping[str, str] | None, max_attempts: int
    ) -> Seen:
        """Boot after boot, as if each of them failed, until no revision comes that was not there before."""
        boots: list[str] = []
        loaded: dict[str, Mapping[str, str]] = {}
        seen: set[tuple[tuple[str, ...], int]] = set()
        for _ in range(MAX_BOOTS):
            selection = bootselect.select(environment, memory, max_attempts=max_attempts)
            memory = selection.memory
            for rev in selection.candidates:
                if rev not in loaded:
                    loaded[rev] = _boot_files(storage, rev)
            found = next((rev for rev in selection.candidates if {KERNEL, INITRD} <= loaded[rev].keys()), None)
            if found is None:
                return Seen(tuple(boots), loaded, (f"none of {', '.join(selection.candidates)} can be loaded",))
            boots.append(found)
            if selection.attempt == 0 and (selection.candidates, 0) in seen:
                break
            seen.add((selection.candidates, selection.attempt))
        order = tuple(dict.fromkeys(boots))
        return Seen(order, {rev: loaded[rev] for rev in order})


def _boot_files(storage: Path, rev: str) -> Mapping[str, str]:
    """Name and SHA-256 of the files that the bootloader finds for a revision."""
    folder = f"trails/{rev}/.pv"
    names = [name for name in inspect.folders(storage, [folder])[folder] if name.startswith("pv-")]
    found = inspect.digests(storage, [f"{folder}/{name}" for name in names])
    return {path.rpartition("/")[2]: digest for path, digest in found.items()}


def _uboot_memory(block: bytes) -> Mapping[str, str] | None:
    (crc,) = struct.unpack_from("<I", block)
    return bootenv.parse(block[4:]) if zlib.crc32(block[4:]) == crc else None


def _grub_memory(block: bytes) -> Mapping[str, str] | None:
    found = grub.parse(block)
    return found if found.get("pv_mark") else None


VIEWS: Mapping[str, View] = {
    "emulator": Emulator(),
    "pc": BoardView("boot/grubenv", "grub/grubenv", grub.parse, _grub_memory),
    "virt-arm64": BoardView("boot/uboot.txt", "pv.env", bootenv.parse, _uboot_memory),
    "virt-arm64-fat": BoardView("uboot.txt", "pv.env", bootenv.parse, _uboot_memory, on_boot=True),
}


def names() -> Sequence[str]:
    """The kinds of devices."""
    return tuple(VIEWS)
