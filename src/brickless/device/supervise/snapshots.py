"""Data that belong to a revision: kept when the revision is left, brought back when it runs again (ADR 0093).

    <S>/disks/perm/<C>/<vol>                         the live data, where every runtime looks for them
    <S>/disks/perm/<C>/~owner                        whose data they are: {"rev", "fingerprint"[, "to"]}
    <S>/disks/rev/<rev>/.snapshot/<C>/<vol>          the data as the revision left them; gone with the revision
    <S>/disks/rev/<rev>/.snapshot/<C>/~fingerprint   the version of the container that they belong to

`enter` is called when nothing of the container runs, before it starts. It does nothing while the version stays the
same. Otherwise: what a committed revision leaves is copied, then what the new version left earlier, if it ever ran, is
renamed into place. Any step may be the last before a power cut: `to` in the owner says that the copy is complete and
the live data are on the way, and then the next `enter`, for whichever version, knows which copy to use.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import NamedTuple

from brickless.core.container import Container
from brickless.core.state import State
from brickless.device.disks import copying
from brickless.store import atomic
from brickless.store.trails import Storage

OWNER = "~owner"
FINGERPRINT = "~fingerprint"
SNAPSHOT = ".snapshot"
MAX_BYTES = 4096


class Owner(NamedTuple):
    """Whose data are live, and in which volumes; `to` is the version they make way for, "" when they are at rest."""

    rev: str
    fingerprint: str
    volumes: tuple[str, ...] = ()
    to: str = ""


class Version(NamedTuple):
    """A container of a revision, as far as its data go."""

    name: str
    rev: str
    fingerprint: str
    volumes: tuple[str, ...]


def marked(container: Container) -> tuple[str, ...]:
    """The volumes of a container that belong to its revision."""
    return tuple(storage.name for storage in container.storage if storage.snapshot)


def is_due(storage: Storage, version: Version) -> bool:
    """Whether `enter` has anything to do."""
    owner = _owner(storage, version.name)
    return owner is None or owner.rev != version.rev or owner.fingerprint != version.fingerprint or bool(owner.to)


def needed_bytes(storage: Storage, name: str, volumes: tuple[str, ...]) -> int:
    """What a copy of the live data of a container would take."""
    return sum(copying.size_bytes(os.path.join(_live(storage, name), volume)) for volume in volumes)


def kept_bytes(storage: Storage, state: State, fingerprint: Callable[[State, str], str]) -> int:
    """What copies the way to `state` will take: the data of containers that change, as they are now."""
    total = 0
    for name, container in state.containers.items():
        owner = _owner(storage, name) if marked(container) else None
        if owner is not None and not owner.to and owner.fingerprint != fingerprint(state, name):
            total += needed_bytes(storage, name, tuple({*owner.volumes, *marked(container)}))
    return total


def enter(storage: Storage, version: Version) -> str:
    """Make the live data those of `version`; returns what was done, in words, "" for nothing.

    Raises `OSError` when the data of the version before cannot be kept (no room): the container must not start then.
    """
    live = _live(storage, version.name)
    atomic.make_dirs(live, files=storage.files)
    atomic.sweep(live, files=storage.files)
    owner = _owner(storage, version.name)
    if owner is not None and owner.to and owner.to != version.fingerprint:
        owner = _turn_back(storage, version.name, owner)
    if owner is None or (owner.fingerprint == version.fingerprint and not owner.to):
        # The first version, or the same one in another revision: its data are its data.
        _own(storage, version)
        return ""
    kept = "" if owner.to else _leave(storage, version, owner)
    folder = _find(storage, version.name, version.rev, version.fingerprint)
    if folder is not None:
        _restore(storage, folder, live)
    _own(storage, version)
    if folder is not None:
        atomic.remove_tree(folder, files=storage.files)
    return "; ".join(words for words in (kept, "the data that it had are back" if folder else "") if words)


def _turn_back(storage: Storage, name: str, owner: Owner) -> Owner:
    """The way to another version was cut off: what is live may be of both. Back to what was left, whole."""
    live = _live(storage, name)
    other = _find(storage, name, "", owner.to)
    if other is not None:
        # What had been renamed into place already goes back to where it came from.
        for volume in owner.volumes:
            there, target = os.path.join(live, volume), os.path.join(other, volume)
            if not os.path.lexists(target) and os.path.lexists(there):
                atomic.rename(there, target, files=storage.files)
    folder = _find(storage, name, owner.rev, owner.fingerprint)
    if folder is not None:
        _restore(storage, folder, live)
    rested = owner._replace(to="")
    _write_owner(storage, name, rested)
    if folder is not None:
        atomic.remove_tree(folder, files=storage.files)
    return rested


def _leave(storage: Storage, version: Version, owner: Owner) -> str:
    """Keep the data of the version before. One that was never committed failed: what it made of them is not kept."""
    words = ""
    volumes = tuple(sorted({*owner.volumes, *version.volumes}))
    if storage.is_done(owner.rev):
        size_bytes = _save(storage, version.name, owner, volumes)
        words = f"the data of revision {owner.rev} are kept ({size_bytes} bytes)"
    _write_owner(storage, version.name, Owner(owner.rev, owner.fingerprint, volumes, version.fingerprint))
    return words


def _save(storage: Storage, name: str, owner: Owner, volumes: tuple[str, ...]) -> int:
    """Copy, sync, rename. A volume that is not there yet is kept as an empty one: so it comes back."""
    live = _live(storage, name)
    folder = os.path.join(_snapshots(storage, owner.rev), name)
    atomic.make_dirs(os.path.dirname(folder), files=storage.files)
    atomic.sweep(os.path.dirname(folder), files=storage.files)
    needed, free = needed_bytes(storage, name, volumes), storage.free_bytes()
    if needed > free:
        raise OSError(f"revision {owner.rev} leaves {needed} bytes of data in {name}, {free} are free: no copy fits")
    temporary = atomic.temporary_path(folder)
    os.mkdir(temporary, 0o700)
    for volume in volumes:
        source, target = os.path.join(live, volume), os.path.join(temporary, volume)
        if os.path.isdir(source):
            copying.copy_tree(source, target)
        else:
            os.mkdir(target, 0o755)
    atomic.write_file(os.path.join(temporary, FINGERPRINT), owner.fingerprint.encode(), files=storage.files)
    copying.sync(temporary)
    # One copy for each version: an older one of the same is not what it left last.
    while (older := _find(storage, name, owner.rev, owner.fingerprint)) is not None:
        atomic.remove_tree(older, files=storage.files)
    if os.path.lexists(folder):
        atomic.remove_tree(folder, files=storage.files)
    atomic.rename(temporary, folder, files=storage.files)
    return needed


def _restore(storage: Storage, folder: str, live: str) -> None:
    """Rename what was kept into place, volume by volume; one that is in place is gone from the folder."""
    for volume in sorted(os.listdir(folder)):
        kept, target = os.path.join(folder, volume), os.path.join(live, volume)
        if volume == FINGERPRINT or not os.path.isdir(kept):
            continue
        if os.path.lexists(target):
            atomic.remove_tree(target, files=storage.files)
        atomic.rename(kept, target, files=storage.files)


def _find(storage: Storage, name: str, rev: str, fingerprint: str) -> str | None:
    """The snapshot of that version: the revision's own, else the youngest."""
    candidates = []
    for other in storage.revisions():
        folder = os.path.join(_snapshots(storage, other), name)
        try:
            with open(os.path.join(folder, FINGERPRINT), encoding="ascii", errors="replace") as stream:
                known = stream.read(MAX_BYTES)
        except FileNotFoundError:
            continue
        if known == fingerprint:
            candidates.append((other == rev, os.stat(folder).st_mtime_ns, folder))
    return max(candidates)[2] if candidates else None


def _own(storage: Storage, version: Version) -> None:
    _write_owner(storage, version.name, Owner(version.rev, version.fingerprint, version.volumes))


def _owner(storage: Storage, name: str) -> Owner | None:
    """Whose the live data are; None for data that no revision owns yet. A damaged file counts as none."""
    try:
        with open(os.path.join(_live(storage, name), OWNER), "rb") as stream:
            value = json.loads(stream.read(MAX_BYTES))
        volumes = tuple(str(volume) for volume in value["volumes"])
        return Owner(str(value["rev"]), str(value["fingerprint"]), volumes, str(value["to"]))
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _write_owner(storage: Storage, name: str, owner: Owner) -> None:
    path = os.path.join(_live(storage, name), OWNER)
    atomic.write_file(path, json.dumps(owner._asdict()).encode(), files=storage.files)


def _live(storage: Storage, name: str) -> str:
    return os.path.join(storage.root, "disks", "perm", name)


def _snapshots(storage: Storage, rev: str) -> str:
    return os.path.join(storage.root, "disks", "rev", rev, SNAPSHOT)
