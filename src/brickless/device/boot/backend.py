"""Which bootloader a device has, behind one small interface."""

from __future__ import annotations

from typing import Protocol

from brickless.device.boot.grub import Grub
from brickless.device.boot.uboot import FatRecord, RawRecord, UBoot
from brickless.device.boot.variables import BootState


class Bootloader(Protocol):
    """What the supervisor asks of a bootloader (device.md 3.3). The order of calls is spelled out in
    `boot.variables`."""

    def read(self) -> BootState:
        """The committed revision, and the one that is to be tried."""
        ...

    def set_try(self, rev: str) -> None:
        """Have the next boot try `rev`."""
        ...

    def commit(self, rev: str) -> None:
        """Make `rev` the committed revision."""
        ...

    def give_up(self) -> None:
        """On the failing boot: no further attempt."""
        ...

    def fail(self) -> None:
        """End a try that failed."""
        ...

    def confirm(self, mark: str) -> None:
        """This boot went well; `mark` is what the bootloader called it, "" when it does not count boots."""
        ...


def backend(kind: str, storage: str, environment: str = "") -> Bootloader:
    """The back end for PV_BOOTLOADER_TYPE; `environment` is PV_BOOTLOADER_ENV.

    Raises `ValueError` for one that this runtime cannot drive, and for an environment that makes no sense.
    """
    if kind in ("uboot", "uboot-pvk"):
        return UBoot(storage, record(environment) if environment else None)
    if kind == "grub":
        return Grub(storage)
    raise ValueError(f"PV_BOOTLOADER_TYPE={kind}: this runtime drives uboot and grub")


def record(text: str) -> FatRecord | RawRecord:
    """Where U-Boot's environment lies, other than on the storage partition.

    `fat:DEVICE:NAME` is a file on a FAT partition, `raw:DEVICE:OFFSET:OFFSET:SIZE` the two copies of a redundant
    environment (numbers may be hexadecimal, 0x...).
    """
    kind, _, rest = text.partition(":")
    parts = rest.split(":")
    if kind == "fat" and len(parts) == 2 and all(parts):
        return FatRecord(parts[0], parts[1])
    if kind == "raw" and len(parts) == 4:
        first, second, size = (int(part, 0) for part in parts[1:])
        return RawRecord(((parts[0], first), (parts[0], second)), size)
    raise ValueError(f"PV_BOOTLOADER_ENV={text}: neither fat:DEVICE:NAME nor raw:DEVICE:OFFSET:OFFSET:SIZE")
