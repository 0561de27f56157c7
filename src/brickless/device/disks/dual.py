"""Dual disks: several disks of which the first that opens is used, e.g. a key in hardware and one in a file.

The steps of `init_order` are tried in turn, and the first that succeeds ends it (device.md 1.6):

    primary, secondary                  open the first (the second) disk, if it was made before
    create-primary, create-secondary    open it, and make it when it was never made
    copy-once-to-primary                make the first disk and copy onto it, once, what is on the second; then use it
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from brickless.core.disks import Disk
from brickless.device.disks import copying, places
from brickless.device.disks.places import Places
from brickless.linux import mount
from brickless.store import atomic

DEFAULT_STEPS = ("primary", "secondary", "create-primary")
COPIED = ".copied-once"

Opener = Callable[[Disk, bool], str]


def open_dual(disk: Disk, disks: Sequence[Disk], where: Places, opener: Opener) -> None:
    """Mount the dual disk. Raises `OSError` that says why each step failed."""
    members = [places.named(disks, name) for name in disk.disks]
    known = [member for member in members if member is not None]
    faults: list[str] = []
    for step in disk.init_order or DEFAULT_STEPS:
        try:
            folder = _step(step, known, opener)
        except (OSError, ValueError) as error:
            faults.append(f"{step}: {error}")
            continue
        mount.bind(folder, places.root(disk, where))
        os.makedirs(where.disks, exist_ok=True)
        atomic.write_file(places.dual_marker(disk, where), f"{step}\n".encode(), durable=False)
        return
    raise OSError(f"the dual disk {disk.name} cannot be opened: {'; '.join(faults)}")


def _step(step: str, members: Sequence[Disk], opener: Opener) -> str:
    if step == "copy-once-to-primary":
        return _copy_once(members, opener)
    position = 1 if step.endswith("secondary") else 0
    if position >= len(members):
        raise ValueError("there is no second disk")
    return opener(members[position], step.startswith("create-"))


def _copy_once(members: Sequence[Disk], opener: Opener) -> str:
    """The marker lies on the primary itself, and comes last: an interrupted copy is done again."""
    if len(members) < 2:
        raise ValueError("there is no second disk")
    primary = opener(members[0], True)
    marker = os.path.join(primary, COPIED)
    if not os.path.exists(marker):
        copying.copy_into(opener(members[1], False), primary)
        copying.sync(primary)
        atomic.write_file(marker, b"")
    return primary
