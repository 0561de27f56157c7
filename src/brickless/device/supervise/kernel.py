"""Kernel settings of the configuration (`PV_SYSCTL_*`), and the program that the kernel calls when one crashes.

Contract: device.md 3.1 and 8.1.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from brickless.device.config import sysctl_path

CRASH_PROGRAM = "/lib/pv/pvcrash"
# `%` words of core(5): the pid as the host sees it, the signal, the path of the program (slashes as `!`).
CRASH_PATTERN = f"|{CRASH_PROGRAM} --skip %P %s %E"
CORE_PATTERN = "kernel_core_pattern"


def apply(settings: Mapping[str, str], say: Callable[[str], None], root: str = "/proc/sys") -> None:
    """Write the settings; `say` hears of those that this kernel does not have or refuses.

    Unless the configuration says otherwise, crashes go to our program, where the image has it.
    """
    names = {name.replace(".", "_") for name in settings}
    if CORE_PATTERN not in names and os.access(CRASH_PROGRAM, os.X_OK):
        settings = {CORE_PATTERN: CRASH_PATTERN, **settings}
    for name, value in settings.items():
        path = sysctl_path(name, root)
        if path is None:
            say(f"configuration: this kernel has no setting {name}")
            continue
        try:
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(value)
        except OSError as error:
            say(f"configuration: the kernel refuses {name}={value[:80]}: {error.strerror}")
