"""A repository on disk: the folder `.pvr` and the working tree around it, as the field's client keeps them (pvr.md 2).

    <dir>/.pvr/json         the committed state; canonical JSON, no newline; replaced atomically
    <dir>/.pvr/config       where to get from and post to, where the objects lie; tab-indented JSON
    <dir>/.pvr/new          what `add` marked for the next commit
    <dir>/.pvr/commitmsg    the last message
    <dir>/.pvr/objects/     the pool, when `config` names no other
  ours, additive, ignored by other clients:
    <dir>/.pvr/lock         flock'ed by whoever changes anything of the above
    <dir>/.pvr/stat-cache   see store.worktree
    <dir>/.pvr/snapshot     see store.snapshot
    <dir>/.pvr/history/     see store.history

Order of every change: objects, then `json`, then `config`. A crash between two of them leaves unused objects, never a
state whose objects are missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import NamedTuple

from brickless.core import canonical
from brickless.core.canonical import JsonValue
from brickless.core.errors import BricklessError, HostileInputError, JsonError, UserError
from brickless.store import atomic, history, snapshot_write, worktree
from brickless.store.entries import SPEC, SPEC_KEY, check_entries, is_file, is_inline, objects_of
from brickless.store.ignore import Ignore
from brickless.store.jsontext import escaped_text
from brickless.store.lock import lock
from brickless.store.objects import ObjectStore, read_chunks
from brickless.store.selection import select
from brickless.store.worktree import Folder, Found, StatCache

MAX_STATE_BYTES = 64 << 20
MAX_INLINE_BYTES = 16 << 20
MAX_CONFIG_BYTES = 1 << 20
LOCK_TIMEOUT_S = 30.0
_SYNC_AT_ONCE = 16


class RepositoryError(BricklessError):
    """The repository itself cannot be read: it is not there, or one of its files is damaged."""


class Mark(NamedTuple):
    """What `add` noted for a file: its hash then, and whether it must become an object even if it is JSON."""

    force_object: bool
    sha: str


class Working(NamedTuple):
    """The working tree as a state, and the files that are in no state."""

    entries: dict[str, JsonValue]
    untracked: list[str]


class Status(NamedTuple):
    """Sorted paths, by what a commit would do with them (pvr.md 1.4)."""

    added: list[str]
    removed: list[str]
    changed: list[str]
    untracked: list[str]

    @property
    def clean(self) -> bool:
        """Whether a commit would change nothing."""
        return not (self.added or self.removed or self.changed)


class Change(NamedTuple):
    """One file of a commit: `kind` is `add`, `change` or `remove`; `sha` is empty for inline JSON."""

    kind: str
    path: str
    sha: str


class Added(NamedTuple):
    """What `add` did: the marked paths, those it had to skip with the reason, the patterns that matched nothing.

    `executable` are new files that can be run here: a state keeps no permissions.
    """

    paths: list[str]
    skipped: list[tuple[str, str]]
    unmatched: list[str]
    executable: list[str]


class Config:
    """`.pvr/config`: known members in the field's order, unknown ones kept behind them."""

    __slots__ = ("values",)

    def __init__(self, values: dict[str, JsonValue] | None = None) -> None:
        defaults: dict[str, JsonValue] = {
            "DefaultGetUrl": "",
            "DefaultPutUrl": "",
            "DefaultPostUrl": "",
            "ObjectsDir": "",
            "AccessTokens": {},
            "RefreshTokens": {},
        }
        self.values = defaults | (values or {})

    def text(self, key: str) -> str:
        """A member as text; what is no text counts as empty."""
        value = self.values.get(key)
        return value if isinstance(value, str) else ""

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        return escaped_text(self.values, sort=False).encode()


class Repository:
    """A working tree with its `.pvr` folder. Reading needs no lock; what changes something is called under `lock()`."""

    __slots__ = ("config", "dir", "heard", "meta", "objects")

    def __init__(self, directory: str, config: Config, meta: str) -> None:
        self.dir = os.path.abspath(directory)
        self.meta = meta
        self.config = config
        self.objects = ObjectStore(self._objects_dir())
        #: Is told how many bytes are hashed, stored or written, as they are: long work has a progress.
        self.heard: Callable[[int], None] = lambda _: None

    def _objects_dir(self) -> str:
        configured = self.config.text("ObjectsDir")
        # A relative folder counts from the folder that contains `.pvr` (pvr.md 2.1).
        return os.path.join(self.dir, configured) if configured else os.path.join(self.meta, "objects")

    @classmethod
    def open(cls, directory: str) -> Repository:
        """Open the repository in `directory` (no walk up: pvr.md 1.1). Raises UserError when there is none."""
        meta = os.path.join(os.path.abspath(directory), ".pvr")
        if not os.path.isdir(meta):
            raise UserError(
                "not-a-repository",
                f"{os.path.abspath(directory)} is not a pvr repository: it has no folder .pvr.",
                hint="Make one with `pvr init`, or get one with `pvr clone`.",
            )
        return cls(directory, _load_config(meta), meta)

    @classmethod
    def bare(cls, folder: str) -> Repository:
        """A repository without a working tree: `json`, and `objects` or a `config` that names a pool (pvr.md 2.1)."""
        meta = os.path.abspath(folder)
        return cls(os.path.dirname(meta), _load_config(meta), meta)

    @classmethod
    def init(cls, directory: str, *, spec: str = SPEC, objects_dir: str = "") -> Repository:
        """Make a repository. Raises UserError when there is one. The state is written last: it is what makes it one."""
        directory = os.path.abspath(directory)
        meta = os.path.join(directory, ".pvr")
        if os.path.lexists(os.path.join(meta, "json")):
            raise UserError(
                "already-a-repository",
                f"{directory} is a pvr repository already.",
                hint="To start again, remove its folder .pvr first.",
            )
        atomic.make_dirs(meta)
        config = _load_config(meta)
        if objects_dir:
            config.values["ObjectsDir"] = objects_dir
        repo = cls(directory, config, meta)
        repo.objects.prepare()
        repo.save_config()
        # These very bytes, blanks included, are what the field's client writes (pvr.md 2.1).
        first = b'{ "#spec": ' + canonical.dumps(spec) + b" }"
        atomic.write_file(os.path.join(meta, "json"), first)
        return repo

    def lock(self) -> AbstractContextManager[None]:
        """Hold the repository: one process changes it at a time. Raises LockedError, OSError when it is read-only."""
        return lock(os.path.join(self.meta, "lock"), timeout_s=LOCK_TIMEOUT_S)

    # The committed state

    def pristine_bytes(self) -> bytes:
        """The bytes of `.pvr/json`. Raises RepositoryError."""
        path = os.path.join(self.meta, "json")
        try:
            return _read(path, MAX_STATE_BYTES)
        except FileNotFoundError as error:
            raise RepositoryError(
                f"{path} is missing: the repository has no committed state.",
                hint="Get it again with `pvr get`, or restore an earlier state with `pvr undo`.",
            ) from error
        except IsADirectoryError as error:
            raise RepositoryError(f"The repository is in a bad state: {path} is a folder.") from error

    def pristine(self) -> dict[str, JsonValue]:
        """The committed state. Raises RepositoryError when its bytes are damaged."""
        path = os.path.join(self.meta, "json")
        try:
            return check_entries(canonical.loads(self.pristine_bytes(), max_bytes=MAX_STATE_BYTES), source=path)
        except HostileInputError as error:
            raise RepositoryError(
                f"{path} is damaged: {error}",
                hint="Nothing was changed. Get the state again with `pvr get`, or restore it with `pvr undo`.",
            ) from error

    def replace_state(self, entries: dict[str, JsonValue], *, action: str, message: str = "") -> bool:
        """Make `entries` the committed state, in one step; keeps the old one in the history. True when it changed."""
        data = canonical.dumps(check_entries(entries, source="the new state"))
        path = os.path.join(self.meta, "json")
        changed = not os.path.exists(path) or _read(path, MAX_STATE_BYTES) != data
        if changed:
            history.record(self.meta, path, data, action=action, message=message)
            atomic.write_file(path, data)
        return changed

    def save_config(self) -> None:
        """Write `.pvr/config`."""
        atomic.write_file(os.path.join(self.meta, "config"), self.config.to_bytes())

    # What `add` marked

    def marks(self) -> dict[str, Mark]:
        """The files that `add` marked. Raises RepositoryError when `.pvr/new` is damaged."""
        path = os.path.join(self.meta, "new")
        try:
            document = canonical.loads(_read(path, MAX_STATE_BYTES))
        except FileNotFoundError:
            return {}
        except JsonError as error:
            raise _damaged_marks(path, str(error)) from error
        if not isinstance(document, dict):
            raise _damaged_marks(path, "it is no JSON object.")
        marks: dict[str, Mark] = {}
        for name, value in document.items():
            if not isinstance(value, dict):
                raise _damaged_marks(path, f"the entry {name!r} is no JSON object.")
            marks[name] = Mark(value.get("ForceObject") is True, str(value.get("Sha", "")))
        return marks

    def save_marks(self, marks: dict[str, Mark]) -> None:
        """Write `.pvr/new`. Call under `lock`."""
        document: JsonValue = {
            path: {"ForceObject": mark.force_object, "Sha": mark.sha} for path, mark in marks.items()
        }
        atomic.write_file(os.path.join(self.meta, "new"), canonical.dumps(document))

    def clear_marks(self) -> None:
        """Forget what `add` marked."""
        atomic.discard(os.path.join(self.meta, "new"))

    # The working tree

    def stat_cache(self) -> StatCache:
        """The hashes that are known without reading."""
        return StatCache(os.path.join(self.meta, "stat-cache"), self.heard)

    def working(self) -> Working:
        """The working tree as a state: what is committed or marked, as it is on disk now (pvr.md 2.4, 2.5)."""
        return self._look(self.pristine(), worktree.scan(self.dir))

    def _look(self, pristine: dict[str, JsonValue], files: dict[str, Found]) -> Working:
        cache = self.stat_cache()
        working = self._working(pristine, self.marks(), files, cache)
        cache.save(files)
        return working

    def _working(
        self, pristine: dict[str, JsonValue], marks: dict[str, Mark], files: dict[str, Found], cache: StatCache
    ) -> Working:
        entries: dict[str, JsonValue] = {key: value for key, value in pristine.items() if not is_file(key)}
        entries.setdefault(SPEC_KEY, SPEC)
        untracked: list[str] = []
        ignore = Ignore.load(self.dir)
        for path, found in files.items():
            known = pristine.get(path)
            mark = marks.get(path)
            if known is None and mark is None and path not in pristine:
                if not path.startswith(".pv/") and not ignore.hides(path):
                    untracked.append(path)
                continue
            as_object = (mark is not None and mark.force_object) or not is_inline(path, known)
            if as_object:
                entries[path] = cache.get(path, found.stat) or cache.hash(self.dir, path)
                continue
            value = self._inline(path)
            if value is not None:
                entries[path] = value
        return Working(entries, untracked)

    def _inline(self, path: str) -> JsonValue:
        data = worktree.read_file(self.dir, path, max_bytes=MAX_INLINE_BYTES)
        try:
            return canonical.loads(data)
        except JsonError as error:
            raise UserError(
                "inline-json-broken",
                f"JSON Unmarshal ({os.path.join(self.dir, path)}): {error}",
                hint="Mend the file, or add it as it is with `pvr add --raw`.",
            ) from error

    def status(self, *, told: Callable[[Status], tuple[str, str]] | None = None) -> Status:
        """What a commit would do. What `told` makes of it, as text and as JSON, is kept for `snapshot.answer`."""
        before = snapshot_write.Before.now(self.dir)
        pristine = self.pristine()
        folders: list[Folder] = []
        files = worktree.scan(self.dir, seen=folders)
        status = compare(pristine, self._look(pristine, files))
        if told is not None:
            text, document = told(status)
            snapshot_write.keep(self.dir, before, folders, files, text=text, document=document)
        return status

    # Changes

    def add(self, patterns: Iterable[str] = (), *, raw: bool = False, dry_run: bool = False) -> Added:
        """Mark files for the next commit; no pattern, or `.`, means all (pvr.md 2.5). Call under `lock`.

        With `dry_run` nothing is marked: what it would be is told.
        """
        files = worktree.scan(self.dir)
        paths, unmatched = select(self.dir, files, list(patterns), hides=Ignore.load(self.dir).hides)
        cache = self.stat_cache()
        marks = self.marks()
        before = marks.keys() | self.pristine().keys()
        added: list[str] = []
        skipped: list[tuple[str, str]] = []
        for path in paths:
            try:
                check_entries({path: "0" * 64}, source="the working tree")
                sha = cache.get(path, files[path].stat) or cache.hash(self.dir, path)
            except (UserError, HostileInputError) as error:
                skipped.append((path, str(error)))
                continue
            marks[path] = Mark(raw, sha)
            added.append(path)
            if files[path].symlink:
                skipped.append((path, "is a symlink: its target's content is added, the link itself is not kept."))
        if not dry_run:
            self.save_marks(marks)
        cache.save(files)
        fresh = [path for path in added if path not in before and files[path].stat.st_mode & 0o111]
        return Added(added, skipped, unmatched, fresh)

    def commit(
        self, message: str, *, spec: str = "", report: Callable[[Change], None] = lambda _: None
    ) -> list[Change]:
        """Make the working tree the committed state (pvr.md 2.7). Call under `lock`. Returns what changed.

        `spec` is the format that the state is of from now on; empty: the one it has.
        Objects are stored first, each hashed while it is copied, so that what is committed is what was stored.
        """
        cache = self.stat_cache()
        files = worktree.scan(self.dir)
        pristine = self.pristine()
        working = self._working(pristine, self.marks(), files, cache)
        status = compare(pristine, working)
        kinds = [("add", status.added), ("change", status.changed), ("remove", status.removed)]
        changes = [(kind, path) for kind, paths in kinds for path in paths]
        entries = working.entries
        if spec:
            entries[SPEC_KEY] = spec
        self._store_objects(entries)
        done: list[Change] = []
        for kind, path in changes:
            value = entries.get(path)
            change = Change(kind, path, "" if is_inline(path, value) or kind == "remove" else str(value))
            report(change)
            done.append(change)
        atomic.write_file(os.path.join(self.meta, "commitmsg"), message.encode())
        self.replace_state(entries, action="commit", message=message)
        self.clear_marks()
        cache.save(files)
        return done

    def _store_objects(self, entries: dict[str, JsonValue]) -> None:
        """Copy what the pool lacks. Many objects are synced at once: one sync of everything instead of thousands."""
        lacking = {path: sha for path, sha in objects_of(entries).items() if not self.objects.has(sha)}
        staged = []
        try:
            for path in sorted(lacking):
                with os.fdopen(worktree.open_regular(self.dir, path), "rb") as source:
                    item = self.objects.stage(read_chunks(source, heard=self.heard))
                staged.append(item)
                entries[path] = item.sha
            at_once = len(staged) > _SYNC_AT_ONCE
            if at_once:
                os.sync()
            for item in staged:
                item.publish(synced=at_once)
            if at_once:
                atomic.sync_dir(self.objects.root)
        finally:
            for item in staged:
                item.discard()

    def checkout(
        self, *, hardlink: bool = False, canonical_json: bool = False, keep: Callable[[str], bool] = lambda _: False
    ) -> None:
        """Write the committed state's files into the working tree (pvr.md 3.4). Call under `lock`.

        See `store.checkout`. `keep` names files of the tree that are left as they are.
        """
        from brickless.store.checkout import checkout

        checkout(self, hardlink=hardlink, canonical_json=canonical_json, keep=keep)


def compare(pristine: dict[str, JsonValue], working: Working) -> Status:
    """What leads from a committed state to a working tree."""
    before = {path for path in pristine if is_file(path)}
    after = {path for path in working.entries if is_file(path)}
    changed = [path for path in before & after if not _equal(pristine[path], working.entries[path])]
    return Status(sorted(after - before), sorted(before - after), sorted(changed), sorted(working.untracked))


def _equal(old: JsonValue, new: JsonValue) -> bool:
    # Nearly all entries are hashes: two of them need no walk through JSON.
    return old == new if isinstance(old, str) and isinstance(new, str) else canonical.equal(old, new)


def load_state(path: str) -> dict[str, JsonValue]:
    """Read a state from a file that is not ours to trust. Raises HostileInputError, OSError."""
    return check_entries(canonical.loads(_read(path, MAX_STATE_BYTES), max_bytes=MAX_STATE_BYTES), source=path)


def load_config(path: str) -> Config:
    """Read a `config` file; a missing one has every default. Raises RepositoryError when it is damaged."""
    try:
        document = canonical.loads(_read(path, MAX_CONFIG_BYTES))
    except FileNotFoundError:
        return Config()
    except HostileInputError as error:
        raise RepositoryError(
            f"{path} is damaged: {error}", hint="Mend it or remove it; it can be made anew."
        ) from error
    if not isinstance(document, dict):
        raise RepositoryError(f"{path} is damaged: it is no JSON object.", hint="Mend it or remove it.")
    return Config(document)


def _load_config(meta: str) -> Config:
    return load_config(os.path.join(meta, "config"))


def _damaged_marks(path: str, reason: str) -> RepositoryError:
    return RepositoryError(
        f"{path} is damaged: {reason}",
        hint="Nothing was changed. Remove that file and add your files again; no committed data is in it.",
    )


def _read(path: str, max_bytes: int) -> bytes:
    with open(path, "rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise HostileInputError(f"{path} is larger than the {max_bytes} bytes that are allowed.")
    return data
