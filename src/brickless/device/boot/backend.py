"""Which bootloader a device has, behind one interface of four calls."""

from __future__ import annotations

from typing import Protocol

from brickless.device.boot.uboot import BootState, UBoot


class Bootloader(Protocol):
    """What the supervisor asks of a bootloader (device.md 3.3). The order of calls is spelled out in `boot.uboot`."""

    def read(self) -> BootState:
        """The committed revision, and the one that is to be tried."""
        ...

    def set_try(self, rev: str) -> None:
        """Have the next boot try `rev`."""
        ...

    def commit(self, rev: str) -> None:
        """Make `rev` the committed revision."""
        ...

    def fail(self) -> None:
        """End a try that failed."""
        ...


def backend(kind: str, storage: str) -> Bootloader:
    """The back end for PV_BOOTLOADER_TYPE. Raises `ValueError` for one that this runtime cannot drive."""
    if kind in ("uboot", "uboot-pvk"):
        return UBoot(storage)
    raise ValueError(f"PV_BOOTLOADER_TYPE={kind}: this runtime drives uboot")
