"""The end of a running system: written out, remounted read-only, reset. PID 1 loads this module."""

from __future__ import annotations

import os

from brickless.linux import libc, mount

SYNTHETIC = frozenset({"proc", "sysfs", "devtmpfs", "devpts", "tmpfs", "cgroup", "cgroup2", "rootfs", "ramfs"})


def settle() -> list[str]:
    """Write everything out and remount real file systems read-only, so that the next boot finds a clean journal.

    Returns what could not be remounted, one line each: whoever is about to reset the machine reports it and goes on,
    because every state on disk is one from which the next boot works anyway.
    """
    os.sync()
    faults = swap_off()
    for entry in reversed(mount.table()):
        if entry.fstype in SYNTHETIC or entry.options.split(",")[0] == "ro":
            continue
        try:
            mount.remount_read_only(entry.target)
        except OSError as error:
            faults.append(f"{entry.target} stays writable: {error}")
    os.sync()
    return faults


def swap_off(path: str = "/proc/swaps") -> list[str]:
    """Stop swapping: a file system with a swap file in use cannot be remounted. Returns what failed."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            areas = [line.split()[0] for line in stream.read().splitlines()[1:] if line.strip()]
    except FileNotFoundError:
        return []
    faults: list[str] = []
    for area in areas:
        try:
            libc.swapoff(area)
        except OSError as error:
            faults.append(str(error))
    return faults


def reboot() -> None:
    """Reset the machine now, as it is. Returns only by raising `OSError`."""
    libc.reboot(libc.RB_AUTOBOOT)


def poweroff() -> None:
    """Switch the machine off now, as it is. Returns only by raising `OSError`."""
    libc.reboot(libc.RB_POWER_OFF)


def ignore_ctrl_alt_del() -> None:
    """Have Ctrl-Alt-Del signal PID 1 (SIGINT) instead of resetting the machine at once."""
    libc.reboot(libc.RB_DISABLE_CAD)
