"""The object pool's health: which objects a state needs are missing or damaged, and which ones nobody needs.

A pool is shared by all repositories of a user and keeps no list of them. So what is removed must be unneeded by every
repository that was found, older than a grace period, and linked by no checkout; and a repository that cannot be read
stops the removal, because nobody knows what it needs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

from brickless.core.canonical import JsonValue
from brickless.core.errors import HostileInputError, UserError
from brickless.store import atomic, history, worktree
from brickless.store.entries import objects_of
from brickless.store.objects import PART, ObjectStore, is_sha, read_chunks
from brickless.store.repo import Repository, RepositoryError, load_state

MAX_REPOSITORIES = 500
# The kernel's own file systems. Nothing else is passed over: a folder of projects may well be called `dev`.
_NOT_ENTERED = frozenset({"/proc", "/sys", "/dev"})


class Fault(NamedTuple):
    """An object that a state needs and the pool does not have whole; `kind` is missing or damaged."""

    path: str
    sha: str
    kind: str


class Waste(NamedTuple):
    """A file of the pool that nobody needs."""

    name: str
    size_bytes: int


class Collected(NamedTuple):
    """What a collection found or did. `young` were spared because of their age, `linked` because a checkout is them."""

    repositories: tuple[str, ...]
    waste: tuple[Waste, ...]
    kept: int
    young: int
    linked: int

    @property
    def freed_bytes(self) -> int:
        """The sizes of all waste."""
        return sum(item.size_bytes for item in self.waste)


def check(
    entries: dict[str, JsonValue],
    store: ObjectStore,
    *,
    report: Callable[[str, str], None] = lambda _path, _sha: None,
    heard: Callable[[int], None] | None = None,
) -> list[Fault]:
    """Hash every object that a state needs, each once; returns the faults by path.

    `report` hears of each object when it is done, `heard` of the bytes as they are read.
    """
    faults = []
    seen: set[str] = set()
    for path, sha in sorted(objects_of(entries).items()):
        if sha in seen:
            continue
        seen.add(sha)
        if not store.has(sha):
            faults.append(Fault(path, sha, "missing"))
        elif not store.verify(sha, heard):
            faults.append(Fault(path, sha, "damaged"))
        report(path, sha)
    return faults


def check_pool(store: ObjectStore, *, heard: Callable[[int], None] | None = None) -> list[Fault]:
    """Hash every object of the pool, needed or not; a damaged one has no path. `heard` is told the bytes read."""
    return [Fault("", sha, "damaged") for sha in sorted(store.shas()) if not store.verify(sha, heard)]


def mend_from_tree(repo: Repository, faults: Iterable[Fault]) -> list[Fault]:
    """Take what is lost from the working tree's files where they still have those bytes; returns what is left."""
    left = []
    for fault in faults:
        try:
            with os.fdopen(worktree.open_regular(repo.dir, fault.path), "rb") as source:
                staged = repo.objects.stage(read_chunks(source))
        except (OSError, UserError):
            left.append(fault)  # no such file here any more: another source may have it
            continue
        try:
            if staged.sha == fault.sha:
                forget_damaged(repo.objects, [fault])
                staged.publish()
            else:
                left.append(fault)
        finally:
            staged.discard()
    return left


def forget_damaged(store: ObjectStore, faults: Iterable[Fault]) -> None:
    """Take damaged objects out of the pool: they count as missing then, and are fetched again."""
    for fault in faults:
        if fault.kind == "damaged":
            store.remove(fault.sha)


def find_repositories(
    roots: Iterable[str],
    store: ObjectStore,
    *,
    unread: Callable[[str], None] = lambda _: None,
    looked: Callable[[], None] = lambda: None,
) -> list[Repository]:
    """Every repository below `roots` that uses this pool, bare ones as well. Symlinks are not followed.

    `unread` hears of folders that may not be read, `looked` is called for each folder. Raises RepositoryError for a
    repository whose configuration cannot be read, UserError when there are too many.
    """
    pool = os.path.realpath(store.root)
    found: dict[str, Repository] = {}
    for root in roots:
        # A root that is misspelt must not make its repositories look gone.
        os.stat(root)
        for directory in _walk(os.path.abspath(root), unread):
            looked()
            for repo in _repositories_at(directory):
                if os.path.realpath(repo.objects.root) == pool:
                    found.setdefault(os.path.realpath(repo.meta), repo)
        if len(found) > MAX_REPOSITORIES:
            raise UserError(
                "gc-too-many-repositories",
                f"more than {MAX_REPOSITORIES} repositories use the pool {pool}",
                hint="Remove old working copies first; each must be locked while objects are removed.",
            )
    return [found[meta] for meta in sorted(found)]


def _repositories_at(directory: str) -> Iterator[Repository]:
    """The repository whose working tree this folder is, and the bare one that it is itself (pvr.md 2.1)."""
    if os.path.isfile(os.path.join(directory, ".pvr", "json")):
        yield Repository.open(directory)
    has = {name for name in ("objects", "config") if os.path.exists(os.path.join(directory, name))}
    if has and os.path.isfile(os.path.join(directory, "json")):
        yield Repository.bare(directory)


def needed_by(repo: Repository) -> set[str]:
    """The objects of a repository's committed state, of what `add` marked, and of the states that `undo` can restore.

    Raises RepositoryError when one of them cannot be read.
    """
    needed = set(objects_of(repo.pristine()).values()) | {mark.sha for mark in repo.marks().values()}
    for sha in history.needed(repo.meta):
        path = history.state_path(repo.meta, sha)
        try:
            needed |= set(objects_of(load_state(path)).values())
        except FileNotFoundError:
            continue  # the log is older than what is kept
        except HostileInputError as error:
            raise RepositoryError(f"{path} is damaged: {error}", hint="Remove that file, and collect again.") from error
    return needed


def collect(
    store: ObjectStore, repositories: Iterable[Repository], *, older_than_s: float, now_s: float, dry_run: bool
) -> Collected:
    """Remove what no repository needs, while all of them are locked. Raises LockedError, RepositoryError.

    `older_than_s` spares young files: another process may have stored them and not yet committed.
    """
    found = list(repositories)
    with ExitStack() as locks:
        if not dry_run:
            for repo in found:
                locks.enter_context(repo.lock())
        needed = set[str]().union(*(needed_by(repo) for repo in found))
        result = _sort(store, needed, tuple(_place(repo) for repo in found), now_s - older_than_s)
        if not dry_run:
            for item in result.waste:
                atomic.discard(os.path.join(store.root, item.name))
            if result.waste:
                atomic.sync_dir(store.root)
    return result


def _place(repo: Repository) -> str:
    """The folder that a person knows a repository by."""
    return repo.dir if os.path.basename(repo.meta) == ".pvr" else repo.meta


def _sort(store: ObjectStore, needed: set[str], repositories: tuple[str, ...], before_s: float) -> Collected:
    waste: list[Waste] = []
    kept = young = linked = 0
    try:
        names = sorted(os.listdir(store.root))
    except FileNotFoundError:
        names = []
    for name in names:
        leftover = atomic.is_temporary(name) or name.endswith(PART)
        if not leftover and not is_sha(name):
            continue
        info = os.stat(os.path.join(store.root, name), follow_symlinks=False)
        if not stat.S_ISREG(info.st_mode) or name in needed:
            kept += 1
        elif info.st_nlink > 1:
            linked += 1
        elif max(info.st_mtime, info.st_ctime) > before_s:
            young += 1
        else:
            waste.append(Waste(name, info.st_size))
    return Collected(repositories, tuple(waste), kept, young, linked)


def _walk(root: str, unread: Callable[[str], None]) -> Iterator[str]:
    """Every folder below `root`, itself included."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        yield folder
        try:
            with os.scandir(folder) as entries:
                waiting += [
                    entry.path
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False) and entry.name != ".pvr" and entry.path not in _NOT_ENTERED
                ]
        except PermissionError:
            unread(folder)
        except FileNotFoundError:
            continue  # it went away while we looked
