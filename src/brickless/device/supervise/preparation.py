"""What takes time before a container starts: its drivers, its disks, the data of its revision. Runs in a child."""

from __future__ import annotations

from typing import NamedTuple

from brickless.core.container import Container
from brickless.core.state import State
from brickless.device.disks import opening
from brickless.device.disks.places import Places
from brickless.device.supervise import drivers, snapshots, volumes
from brickless.device.supervise.snapshots import Version
from brickless.device.supervise.surroundings import Settings
from brickless.device.supervise.volumes import Roots
from brickless.store.trails import Storage


class Task(NamedTuple):
    """What is to be prepared. `version` is set when its data must be exchanged."""

    container: Container
    state: State
    version: Version | None


def prepare(task: Task, roots: Roots, settings: Settings) -> list[str]:
    """Do it, in this order; what is worth saying, in words. Raises `OSError`, `ValueError` for what fails the start."""
    container, state = task.container, task.state
    said = []
    if container.drivers.required or container.drivers.optional:
        board = drivers.Board(state.bsp.drivers if state.bsp else {}, settings.fitconfig, settings.user_meta)
        try:
            drivers.load(board, container.drivers.required)
        except (OSError, ValueError) as error:
            raise OSError(f"a driver that it requires is not there: {error}") from error
        said += drivers.try_load(board, container.drivers.optional)
    for disk in volumes.disks_of(container.storage, state.disks):
        opening.open_disk(disk, state.disks, places_of(roots, settings), settings.private)
    if task.version is not None:
        words = snapshots.enter(Storage(roots.storage), task.version)
        said += [words] if words else []
    return said


def places_of(roots: Roots, settings: Settings) -> Places:
    """Where disks are on this device."""
    return Places(roots.storage, roots.media, settings.disks, settings.lib, roots.loop_index_base)
