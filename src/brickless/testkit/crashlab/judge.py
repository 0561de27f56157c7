"""Judges the disk that a power cut left: old or new, whole, nothing lost. Anything else is a finding.

What it asks of a disk, in this order: the file system recovers as a mount recovers it; the bootloader's variables can
be read and name a revision that is there; each revision that may be booted now or after a failed try is whole (its
state parses, every object has its hash, the bootloader's files are the objects' own); markers do not contradict each
other; the user's data is what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from brickless.core import canonical
from brickless.core.errors import BricklessError, HostileInputError
from brickless.core.paths import check_revision
from brickless.core.state import State, parse_state
from brickless.testkit.crashlab import inspect
from brickless.testkit.crashlab.views import VIEWS, Seen, View

EMULATOR = VIEWS["emulator"]


class Expected(NamedTuple):
    """What a case allows.

    `revisions` may be booted; `kept` are files with the contents that they may have (None in it: may be missing).
    `max_attempts` is how often the bootloader tries a revision.
    """

    revisions: frozenset[str]
    kept: Mapping[str, frozenset[bytes | None]]
    max_attempts: int = 3


class Verdict(NamedTuple):
    """What was found. `boots` are the revisions that may be booted now; no `faults` means old or new."""

    boots: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        """Whether the disk is old or new."""
        return not self.faults


Check = Callable[[Path], Sequence[str]]


def judge(image: Path, expected: Expected, checks: Sequence[Check] = (), view: View = EMULATOR) -> Verdict:
    """Judge one disk. The image is changed: its journal is replayed.

    Of a disk with partitions the storage is left beside it (`.storage`): the next one that is judged there is brought
    to its place where they differ.
    """
    storage = view.storage(image, image.with_suffix(".storage"))
    try:
        return _judge(image, storage, expected, checks, view)
    except BricklessError as error:
        # A disk that our own readers give up on is a finding like any other.
        return Verdict((), (f"the disk cannot be read: {error}",))


def _judge(image: Path, storage: Path, expected: Expected, checks: Sequence[Check], view: View) -> Verdict:
    seen = None if view.reads_journal else view.look(image, storage, expected.max_attempts)
    broken = inspect.recover(storage)
    if broken:
        return Verdict((), (f"the file system does not recover: {broken}",))
    if seen is None:
        seen = view.look(image, storage, expected.max_attempts)
    small = inspect.contents(storage, [view.environment, *expected.kept])
    faults = [*seen.faults]
    faults += [fault for path, allowed in expected.kept.items() for fault in _kept(path, small.get(path), allowed)]
    raw = small.get(view.environment) if seen.environment is None else seen.environment
    if raw is None:
        return Verdict((), (*faults, f"{view.environment} is missing: the bootloader would take the factory revision"))
    environment = view.parse(raw)
    faults += _environment(environment, raw)
    needed = list(dict.fromkeys([*seen.boots, environment.get("pv_rev", "")]))
    faults += [
        f"revision {rev} may be booted, only {sorted(expected.revisions)} may"
        for rev in needed
        if rev not in expected.revisions
    ]
    faults += _whole(storage, [rev for rev in needed if rev in expected.revisions], seen)
    faults += _markers(storage, environment, expected)
    for check in checks:
        faults += check(storage)
    return Verdict(seen.boots, tuple(faults))


def _kept(path: str, content: bytes | None, allowed: frozenset[bytes | None]) -> list[str]:
    if content in allowed:
        return []
    found = "missing" if content is None else f"{len(content)} bytes that it never had: {content[:40]!r}"
    return [f"{path} is {found}"]


def _environment(environment: Mapping[str, str], raw: bytes) -> list[str]:
    if not environment.get("pv_rev"):
        return [f"the bootloader's variables have no pv_rev: {raw[:60]!r}"]
    return []


def _whole(image: Path, revisions: Sequence[str], seen: Seen) -> list[str]:
    """What is missing or broken in these revisions."""
    raw = inspect.contents(image, [f"trails/{rev}/.pvr/json" for rev in revisions])
    faults: list[str] = []
    states: dict[str, State] = {}
    for rev in revisions:
        try:
            check_revision(rev)
            states[rev] = parse_state(raw.get(f"trails/{rev}/.pvr/json", b""), require_bsp=True)
        except HostileInputError as error:
            faults.append(f"revision {rev} has no state that can be read: {error}")
    objects = sorted({sha for state in states.values() for sha in state.objects.values()})
    faults += _objects(image, objects)
    for rev, state in states.items():
        faults += _boot_files(image, rev, state)
        faults += _loaded(rev, state, seen)
    return faults


def _loaded(rev: str, state: State, seen: Seen) -> list[str]:
    """What a bootloader that reads without the journal would load must be the revision's own, too."""
    files = None if seen.loaded is None else seen.loaded.get(rev)
    if files is None or state.bsp is None:
        return []
    wanted = _boot_links(state)
    faults = [f"revision {rev}: the bootloader does not see .pv/{name}" for name in wanted if name not in files]
    faults += [
        f"revision {rev}: the bootloader sees other bytes in .pv/{name}"
        for name, sha in files.items()
        if name in wanted and wanted[name] != sha
    ]
    return faults


def _boot_links(state: State) -> dict[str, str]:
    """Name below `.pv` -> SHA-256 of the object that it must be."""
    bsp = state.bsp
    if bsp is None:
        return {}
    sources = {"pv-kernel.img": bsp.linux, "pv-initrd.img": bsp.initrd}
    sources |= {f"pv-initrd.img.{number}": addon for number, addon in enumerate(bsp.addons)}
    return {name: state.objects.get(f"bsp/{source}", "") for name, source in sources.items()}


def _objects(image: Path, wanted: Sequence[str]) -> list[str]:
    found = inspect.digests(image, [f"objects/{sha}" for sha in wanted])
    faults = []
    for sha in wanted:
        digest = found.get(f"objects/{sha}")
        if digest is None:
            faults.append(f"object {sha} is missing")
        elif digest != sha:
            faults.append(f"object {sha} is broken: its bytes have the hash {digest}")
    return faults


def _boot_files(image: Path, rev: str, state: State) -> list[str]:
    """The files that the bootloader loads must be the objects themselves: nothing else checks them before they run."""
    listed = inspect.folders(image, ["objects", f"trails/{rev}/.pv"])
    objects, files = listed["objects"], listed[f"trails/{rev}/.pv"]
    faults = []
    for name, sha in _boot_links(state).items():
        node = files.get(name)
        if node is None:
            faults.append(f"revision {rev} has no .pv/{name}: the bootloader cannot load it")
        elif sha in objects and objects[sha].inode != node.inode:
            content = inspect.contents(image, [f"trails/{rev}/.pv/{name}"])
            if canonical.sha256_hex(content[f"trails/{rev}/.pv/{name}"]) != sha:
                faults.append(f"revision {rev}: .pv/{name} is not the object that its state names")
    return faults


def _markers(image: Path, environment: Mapping[str, str], expected: Expected) -> list[str]:
    """A revision that says it is done while the bootloader still tries it would be booted again as a trial."""
    tried = environment.get("pv_try", "")
    if not tried or tried == environment.get("pv_rev") or tried not in expected.revisions:
        return []
    names = inspect.folders(image, [f"trails/{tried}/.pv"])[f"trails/{tried}/.pv"]
    return [f"revision {tried} is marked done while the bootloader only tries it"] if "done" in names else []
