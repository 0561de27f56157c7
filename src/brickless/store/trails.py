"""A device's storage partition: its revisions, its objects, and what belongs to each revision (device.md 2.2).

    <S>/trails/<rev>/.pvr/json       the state, byte for byte as it was received
    <S>/trails/<rev>/.pvr/config     {"ObjectsDir": "<S>/objects"}
    <S>/trails/<rev>/.pv/progress    the last progress, JSON
    <S>/trails/<rev>/.pv/done        empty: this revision was committed once
    <S>/trails/<rev>/.pv/pv-*        boot files, hard links to objects
    <S>/trails/<rev>/<path>          a hard link to an object (`*.bind`: a copy), or an inline JSON document, expanded
    <S>/trails/current -> <rev>      the revision that runs
    <S>/objects/<sha256>             see store.objects
    <S>/logs/<rev>, <S>/disks/rev/<rev>   gone with their revision

`<rev>` is `0`, a positive number or `locals/<name>`. A revision is made in any order and counts for nothing before its
owner says so (bootloader variables, `.pv/done`); so an interrupted install is restarted, never repaired by guesswork.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from brickless.core.errors import HostileInputError
from brickless.core.paths import check_revision
from brickless.store import atomic
from brickless.store.atomic import FILES, Files
from brickless.store.objects import ObjectStore, hash_file, read_chunks
from brickless.store.tree import components, link_beneath, unlink_beneath, walk, write_beneath

if TYPE_CHECKING:
    from brickless.core.canonical import JsonValue
    from brickless.core.state import State

FACTORY = "0"
LOCALS = "locals"
MAX_STATE_BYTES = 16 << 20
MAX_PROGRESS_BYTES = 1 << 20
_SHA_IN_TEXT = re.compile(rb"[0-9a-f]{64}")


class Storage:
    """The storage partition mounted at `root`. All methods raise OSError when the disk refuses."""

    __slots__ = ("files", "objects", "root")

    def __init__(self, root: str, *, files: Files = FILES) -> None:
        self.root = os.path.abspath(root)
        self.files = files
        self.objects = ObjectStore(os.path.join(self.root, "objects"), files=files)

    def prepare(self) -> list[str]:
        """Make the folders and remove what interrupted writes left; returns the leftovers' names. Run at start-up."""
        leftovers: list[str] = []
        for folder in ("objects", "trails", "trails/locals", "logs", "disks/perm", "disks/rev", "boot", "config"):
            path = os.path.join(self.root, folder)
            atomic.make_dirs(path, files=self.files)
            leftovers += atomic.sweep(path, files=self.files)
        return leftovers

    # Where things lie

    def revision_dir(self, rev: str) -> str:
        """The folder of a revision. Raises HostileInputError for a name that is none."""
        check_revision(rev)
        return os.path.join(self.root, "trails", rev)

    def _of(self, rev: str, relative: str) -> str:
        return os.path.join(self.revision_dir(rev), relative)

    def revisions(self) -> list[str]:
        """Every revision that has a state: numbers ascending, then `locals/...` by name."""
        trails = os.path.join(self.root, "trails")
        numbers = [name for name in _names(trails) if name.isascii() and name.isdigit()]
        local = [f"{LOCALS}/{name}" for name in _names(os.path.join(trails, LOCALS)) if not atomic.is_temporary(name)]
        found = sorted(numbers, key=int) + sorted(local)
        return [rev for rev in found if os.path.isfile(os.path.join(trails, rev, ".pvr", "json"))]

    # State, progress, markers

    def state_bytes(self, rev: str) -> bytes:
        """The state as it was received. Raises FileNotFoundError."""
        return _read(self._of(rev, ".pvr/json"), MAX_STATE_BYTES)

    def write_state(self, rev: str, raw: bytes) -> None:
        """Persist the bytes of a state unmodified (signatures cover the text, device.md 1.1), with the pool's path."""
        import json

        config = json.dumps({"ObjectsDir": self.objects.root}).encode()
        atomic.make_dirs(self._of(rev, ".pvr"), files=self.files)
        atomic.write_file(self._of(rev, ".pvr/config"), config, files=self.files)
        atomic.write_file(self._of(rev, ".pvr/json"), raw, files=self.files)

    def progress(self, rev: str) -> bytes | None:
        """The last progress that was written, or None."""
        with suppress(FileNotFoundError):
            return _read(self._of(rev, ".pv/progress"), MAX_PROGRESS_BYTES)
        return None

    def write_progress(self, rev: str, data: bytes) -> None:
        """Persist a revision's progress."""
        atomic.make_dirs(self._of(rev, ".pv"), files=self.files)
        atomic.write_file(self._of(rev, ".pv/progress"), data, files=self.files)

    def write_commit_message(self, rev: str, text: str) -> None:
        """Persist what the author says about a revision."""
        atomic.make_dirs(self._of(rev, ".pv"), files=self.files)
        atomic.write_file(self._of(rev, ".pv/commitmsg"), text.encode(), files=self.files)

    def mark_done(self, rev: str) -> None:
        """Mark a revision as committed: it ran well once and is a rollback point."""
        atomic.make_dirs(self._of(rev, ".pv"), files=self.files)
        atomic.write_file(self._of(rev, ".pv/done"), b"", files=self.files)

    def is_done(self, rev: str) -> bool:
        """Whether a revision was committed once."""
        return os.path.isfile(self._of(rev, ".pv/done"))

    def current(self) -> str | None:
        """The revision that `trails/current` names, or None. A link that names no revision is as good as none."""
        try:
            rev = os.readlink(os.path.join(self.root, "trails", "current"))
            check_revision(rev)
        except (OSError, HostileInputError):
            return None
        return rev

    def set_current(self, rev: str) -> None:
        """Point `trails/current` to a revision."""
        check_revision(rev)
        atomic.replace_symlink(rev, os.path.join(self.root, "trails", "current"), files=self.files)

    # Install

    def missing(self, state: State) -> list[tuple[str, str]]:
        """The (path, sha) of every object that the pool lacks; each sha once, under its first path."""
        seen: set[str] = set()
        found: list[tuple[str, str]] = []
        for path, sha in sorted(state.objects.items()):
            if sha not in seen and not self.objects.has(sha):
                found.append((path, sha))
            seen.add(sha)
        return found

    def install(self, rev: str, state: State) -> None:
        """Write a revision's tree: state, links to objects, expanded JSON, boot links. Everything is on the disk after.

        Repeatable: whatever an interrupted install, or another state under the same name, left is put right.
        Raises FileNotFoundError when an object is missing (fetch `missing` first).
        """
        lacking = self.missing(state)
        if lacking:
            raise FileNotFoundError(2, f"object {lacking[0][1]} of {len(lacking)} missing ones", lacking[0][0])
        root = self.revision_dir(rev)
        for folder in (".pvr", ".pv"):
            atomic.sweep(os.path.join(root, folder), files=self.files)
        self.write_state(rev, state.raw)
        wanted = {*state.objects, *state.jsons}
        for path in self._files(root):
            if path not in wanted:
                unlink_beneath(root, path, files=self.files)
        for path, sha in state.objects.items():
            self._place(root, path, sha)
        for path, value in state.jsons.items():
            self._expand(root, path, value)
        self._link_boot_files(root, state)
        self._sync(root, wanted)

    def _files(self, root: str) -> list[str]:
        return [path for path in walk(root) if path.partition("/")[0] not in {".pvr", ".pv"}]

    def _place(self, root: str, path: str, sha: str) -> None:
        if not path.endswith(".bind"):
            link_beneath(self.objects.path(sha), root, path, files=self.files)
            return
        # A `.bind` object is mounted writable by its container: a copy, or the pool would change with it.
        target = os.path.join(root, *components(path))
        if not os.path.isfile(target) or hash_file(target) != sha:
            with self.objects.open(sha) as source:
                write_beneath(root, path, read_chunks(source), files=self.files)

    def _expand(self, root: str, path: str, value: JsonValue) -> None:
        data = _expanded(value)
        if _content(root, path) != data:
            write_beneath(root, path, data, files=self.files)

    def _link_boot_files(self, root: str, state: State) -> None:
        wanted = boot_links(state)
        for name in _names(os.path.join(root, ".pv")):
            if _is_boot_file(name) and name not in wanted:
                unlink_beneath(root, f".pv/{name}", files=self.files)
        for name, path in wanted.items():
            link_beneath(self.objects.path(state.objects[path]), root, f".pv/{name}", files=self.files)

    def _sync(self, root: str, paths: Iterable[str]) -> None:
        folders = {".pv", ""}
        for path in paths:
            parent = os.path.dirname(path)
            while parent:
                folders.add(parent)
                parent = os.path.dirname(parent)
        for folder in sorted(folders, reverse=True):
            path = os.path.join(root, folder)
            if os.path.isdir(path):
                atomic.sync_dir(path, self.files)

    # Integrity (device.md 2.4)

    def verify(self, rev: str, *, healed: list[str] | None = None, skip: Container[str] = ()) -> list[str]:
        """Check every file of a revision against its state; returns the faults that could not be mended, as sentences.

        Each object must hash to its name and the tree's file must be that very inode. What can be put right from the
        other side (a missing or foreign file from the pool, a lost or damaged object from the tree) is, and `healed`
        says so. `skip` names paths that something else protects (dm-verity). Raises StateError for a broken state.
        """
        from brickless.core.state import parse_state

        state = parse_state(self.state_bytes(rev))
        root = self.revision_dir(rev)
        notes: list[str] = [] if healed is None else healed
        faults: list[str] = []
        verdicts: dict[str, bool] = {}
        for path, sha in sorted(state.objects.items()):
            if path in skip:
                continue
            if sha not in verdicts:
                verdicts[sha] = self.objects.verify(sha) or self._recover(root, path, sha, notes)
            if not verdicts[sha]:
                faults.append(f"{path}: the object {sha} is missing or damaged.")
            elif self._relink(root, path, sha):
                notes.append(f"{path}: linked to its object again.")
        for path, value in sorted(state.jsons.items()):
            if _content(root, path) != _expanded(value):
                self._expand(root, path, value)
                notes.append(f"{path}: written anew from the state.")
        if notes:
            self._sync(root, [*state.objects, *state.jsons])
        return faults

    def _relink(self, root: str, path: str, sha: str) -> bool:
        if path.endswith(".bind"):
            # The container may have changed its copy: only a lost one is made again.
            if os.path.exists(os.path.join(root, *components(path))):
                return False
            self._place(root, path, sha)
            return True
        return link_beneath(self.objects.path(sha), root, path, files=self.files)

    def _recover(self, root: str, path: str, sha: str, notes: list[str]) -> bool:
        """Give the pool its object back from a revision's file, when that one is whole."""
        if path.endswith(".bind") or not self.objects.adopt(os.path.join(root, *components(path)), sha):
            return False
        notes.append(f"objects/{sha}: recovered from {path}.")
        return True

    # Garbage

    def collect_garbage(self, keep: set[str], *, keep_factory: bool = True, in_use: Container[str] = ()) -> int:
        """Remove the revisions not in `keep`, then the objects that nothing uses; returns the bytes freed.

        Revision 0 stays unless its owner gave it up (`keep_factory`): without it there is no way back to the factory's
        state. The current one always stays.
        Objects that a kept revision names stay even where it is not linked yet (an update that is being fetched).
        `in_use` are revisions whose own volumes stay although they go: a container that runs on has them mounted.
        """
        kept = {FACTORY, *keep} if keep_factory else set(keep)
        current = self.current()
        if current is not None:
            kept.add(current)
        before = self.free_bytes()
        for rev in self._all_revisions():
            if rev not in kept:
                self._remove(rev, "logs")
        for rev in _revisions_in(os.path.join(self.root, "disks", "rev")):
            if rev not in kept and rev not in in_use:
                atomic.remove_tree(os.path.join(self.root, "disks", "rev", rev), files=self.files)
        needed: set[str] = set()
        for rev in kept:
            with suppress(FileNotFoundError, HostileInputError):
                needed.update(match.decode() for match in _SHA_IN_TEXT.findall(self.state_bytes(rev)))
        freed = self.objects.collect(needed)
        return max(freed, self.free_bytes() - before)

    def _all_revisions(self) -> list[str]:
        """Also those without a state: an interrupted start of an install."""
        return _revisions_in(os.path.join(self.root, "trails"))

    def remove(self, rev: str) -> None:
        """Remove a revision, its logs and its revision disks. Not the objects: see `collect_garbage`."""
        self._remove(rev, "logs", "disks/rev")

    def _remove(self, rev: str, *others: str) -> None:
        for folder in (self.revision_dir(rev), *(f"{self.root}/{other}/{rev}" for other in others)):
            if os.path.lexists(folder):
                atomic.remove_tree(folder, files=self.files)

    def free_bytes(self) -> int:
        """Free space of the partition (`f_bfree`, device.md 2.5), in bytes."""
        info = os.statvfs(self.root)
        return info.f_bfree * info.f_frsize

    def total_bytes(self) -> int:
        """Size of the partition, in bytes."""
        info = os.statvfs(self.root)
        return info.f_blocks * info.f_frsize


def boot_links(state: State) -> dict[str, str]:
    """What lies in `.pv/` for the bootloader: link name -> path in the state (device.md 1.10 and 2.2).

    Raises HostileInputError when `bsp/run.json` names a file that the state does not hold as an object.
    """
    run = state.jsons.get("bsp/run.json")
    if not isinstance(run, dict):
        return {}
    links: dict[str, str] = {}
    named: list[tuple[str, object]] = [
        ("pantavisor.fit", run.get("fit")),
        ("pv-kernel.img", run.get("linux", run.get("kernel"))),
        ("pv-initrd.img", run.get("initrd")),
        ("pv-fdt.dtb", run.get("fdt")),
    ]
    rpi = run.get("rpiab")
    named.append(("rpiboot.img.gz" if isinstance(rpi, str) and rpi.endswith(".gz") else "rpiboot.img", rpi))
    addons = run.get("addons")
    if isinstance(addons, list):
        named += [(f"pv-initrd.img.{index}", addon) for index, addon in enumerate(addons)]
    for name, value in named:
        if value in (None, ""):
            continue
        path = f"bsp/{value}"
        if path not in state.objects:
            raise HostileInputError(f"bsp/run.json names {path!r} for {name}, which is no object of the state.")
        links[name] = path
    return links


def _revisions_in(folder: str) -> list[str]:
    """The names below a folder that has one for each revision."""
    numbers = [name for name in _names(folder) if name.isascii() and name.isdigit()]
    return numbers + [f"{LOCALS}/{name}" for name in _names(os.path.join(folder, LOCALS))]


def _is_boot_file(name: str) -> bool:
    return name.startswith(("pv-", "rpiboot.img")) or name == "pantavisor.fit"


def _expanded(value: JsonValue) -> bytes:
    from brickless.core.canonical import dumps

    return dumps(value)


def _content(root: str, relative: str) -> bytes | None:
    path = os.path.join(root, *components(relative))
    if os.path.islink(path):
        return None
    try:
        return _read(path, MAX_STATE_BYTES)
    except OSError:
        return None


def _read(path: str, max_bytes: int) -> bytes:
    with open(path, "rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise HostileInputError(f"{path} is larger than the {max_bytes} bytes that are allowed.")
    return data


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
