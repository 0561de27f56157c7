"""The U-Boot back end: the variables as U-Boot's own binary environment (device.md 3.3, 3.4), in one of three places.

    file    `<S>/boot/uboot.txt` on the storage partition: the reference's place, the default. 64 KiB, of which the
            variables are the first sector. `FileRecord` overwrites that sector; see `store.sector`
    FAT     the same file on the boot partition, mounted for the write alone. The same sector in place: FAT's directory
            entry and its chain of clusters never change, so a cut cannot damage them
    raw     U-Boot's redundant environment, two copies on a disk or in flash, each with a CRC and a flag that counts.
            `RawRecord` writes the older copy whole and syncs: until its CRC is right the other one holds; from then
            on it is the newer one

`boot.scr` (`image.bootscript`) reads them; what U-Boot itself must remember it keeps in `pv.env`, which we never write.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress

from brickless.core import bootenv
from brickless.device.boot.variables import Variables
from brickless.linux import journal, mount
from brickless.linux.libc import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY
from brickless.store import atomic, sector
from brickless.store.atomic import FILES, Files

FILE = "boot/uboot.txt"
MOUNT_POINT = "/run/brickless/boot"
CRC = struct.Struct("<I")
# CRC, then the flag of one byte (tools/env/fw_env.c of U-Boot, `struct env_image_redundant`).
REDUNDANT_HEADER_BYTES = 5
MAX_ENVIRONMENT_BYTES = 1 << 20


class FileRecord:
    """A file with U-Boot's binary environment; see the module for what makes a write of it safe."""

    __slots__ = ("_files", "_path")

    def __init__(self, path: str, files: Files = FILES) -> None:
        self._path = path
        self._files = files

    def load(self) -> dict[str, str]:
        """The variables of the file."""
        return bootenv.parse(sector.read(self._path, bootenv.SIZE_BYTES) or b"")

    def store(self, variables: Mapping[str, str]) -> None:
        """Replace them: one sector in place, or a new file that is made visible before we go on."""
        folder = os.path.dirname(self._path)
        atomic.make_dirs(folder, files=self._files)
        data = bootenv.render(variables).ljust(bootenv.SIZE_BYTES, b"\0")
        if not sector.replace(self._path, data, files=self._files):
            journal.checkpoint(folder)


class FatRecord:
    """The same file on a FAT boot partition, which is mounted only while it is read or written.

    A FAT file system that is not mounted cannot be left half written by anyone; the kernel marks it as in use (one
    sector, in place) while it is mounted for writing. The file must be there already: creating one on FAT is not
    atomic, and is the business of who makes the disk image.
    """

    __slots__ = ("_device", "_name")

    def __init__(self, device: str, name: str) -> None:
        self._device = device
        self._name = name

    def load(self) -> dict[str, str]:
        """The variables of the file."""
        return self._mounted(lambda record: record.load(), flags=MS_RDONLY)

    def store(self, variables: Mapping[str, str]) -> None:
        """Replace them. Raises `FileNotFoundError` when the file was never made."""

        def write(record: FileRecord) -> dict[str, str]:
            path = os.path.join(MOUNT_POINT, self._name)
            if sector.read(path, 1) is None:
                raise FileNotFoundError(2, "the boot partition has no environment: make its disk image anew", path)
            record.store(variables)
            return {}

        self._mounted(write, flags=0)

    def _mounted(self, use: Callable[[FileRecord], dict[str, str]], *, flags: int) -> dict[str, str]:
        mount.unmount(MOUNT_POINT)  # left by one that died in between, if at all
        mount.mount(
            self._device, MOUNT_POINT, "vfat", flags=flags | MS_NOSUID | MS_NODEV | MS_NOEXEC, options="umask=077"
        )
        try:
            return use(FileRecord(os.path.join(MOUNT_POINT, self._name)))
        finally:
            mount.unmount(MOUNT_POINT)


class RawRecord:
    """U-Boot's redundant environment: two copies at fixed places of a device or file, `size_bytes` each.

    Of two sound copies the one whose flag is one ahead of the other's (modulo 256) is the current one.
    """

    __slots__ = ("_files", "_places", "_size")

    def __init__(self, places: tuple[tuple[str, int], tuple[str, int]], size_bytes: int, files: Files = FILES) -> None:
        """`places` are the two copies: path and offset in bytes."""
        if not REDUNDANT_HEADER_BYTES + 2 <= size_bytes <= MAX_ENVIRONMENT_BYTES:
            raise ValueError(f"an environment has between 7 and {MAX_ENVIRONMENT_BYTES} bytes, not {size_bytes}")
        self._places = places
        self._size = size_bytes
        self._files = files

    def load(self) -> dict[str, str]:
        """The variables of the current copy; none when neither is sound."""
        copies = [self._copy(path, offset) for path, offset in self._places]
        current = _current(copies)
        copy = copies[current]
        return {} if copy is None else bootenv.parse(copy[REDUNDANT_HEADER_BYTES:])

    def store(self, variables: Mapping[str, str]) -> None:
        """Write the copy that is not current, with the next flag."""
        copies = [self._copy(path, offset) for path, offset in self._places]
        current = _current(copies)
        copy = copies[current]
        flag = 1 if copy is None else (copy[4] + 1) % 256
        data = bootenv.render(variables).ljust(self._size - REDUNDANT_HEADER_BYTES, b"\0")
        if len(data) > self._size - REDUNDANT_HEADER_BYTES:
            raise OSError(28, f"the boot variables take {len(data)} bytes, the environment has {self._size}")
        path, offset = self._places[1 - current]
        fd = self._files.open(path, os.O_WRONLY)
        try:
            os.lseek(fd, offset, os.SEEK_SET)
            atomic.write_all(fd, CRC.pack(zlib.crc32(data)) + bytes([flag]) + data, self._files)
            self._files.fsync(fd)
        finally:
            self._files.close(fd)

    def _copy(self, path: str, offset: int) -> bytes | None:
        """A copy whose CRC is right."""
        with suppress(FileNotFoundError), open(path, "rb") as stream:
            stream.seek(offset)
            data = stream.read(self._size)
            if len(data) == self._size and CRC.unpack_from(data)[0] == zlib.crc32(data[REDUNDANT_HEADER_BYTES:]):
                return data
        return None


def _current(copies: list[bytes | None]) -> int:
    first, second = copies
    if first is None or second is None:
        return 1 if first is None and second is not None else 0
    return 1 if second[4] == (first[4] + 1) % 256 else 0


class UBoot(Variables):
    """The variables in `<S>/boot/uboot.txt`, or in another record. Everything raises `OSError` when the disk
    refuses."""

    __slots__ = ()

    def __init__(self, storage: str, record: FatRecord | RawRecord | None = None, files: Files = FILES) -> None:
        super().__init__(record or FileRecord(os.path.join(storage, FILE), files), lambda: journal.checkpoint(storage))
