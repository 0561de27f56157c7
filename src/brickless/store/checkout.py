"""Writing a committed state into the working tree (pvr.md 3.4), without ever leaving it and without a torn file."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING

from brickless.core import canonical
from brickless.core.canonical import JsonValue
from brickless.core.errors import UserError
from brickless.store.entries import check_entries, is_file, is_inline, objects_of
from brickless.store.jsontext import escaped_text
from brickless.store.objects import ObjectStore, read_chunks
from brickless.store.tree import link_beneath, safe_join, write_beneath
from brickless.store.worktree import StatCache

if TYPE_CHECKING:
    from brickless.store.repo import Repository


def checkout(repo: Repository, *, hardlink: bool, canonical_json: bool, keep: Callable[[str], bool]) -> None:
    """Write every file of the committed state; files that are not in it stay, and local changes are overwritten.

    An inline document is written with 4 blanks and Go's escapes, or canonically with `canonical_json` or `hardlink`.
    With `hardlink` objects become read-only links to the pool. All objects are looked up before the first file is
    touched, and each copy is hashed on its way: raises UserError for one that is missing or damaged.
    """
    entries = check_entries(repo.pristine(), source=os.path.join(repo.meta, "json"))
    objects = {path: sha for path, sha in objects_of(entries).items() if not keep(path)}
    _check_present(repo, objects)
    cache = repo.stat_cache()
    written: dict[str, os.stat_result] = {}
    for path, value in entries.items():
        if not is_file(path) or keep(path):
            continue
        try:
            if is_inline(path, value):
                _write_inline(repo.dir, path, value, canonical_json or hardlink)
            elif hardlink:
                _link(repo, path, objects[path])
            else:
                info = _copy(repo, cache, path, objects[path])
                if info is not None:
                    written[path] = info
        except (IsADirectoryError, NotADirectoryError) as error:
            raise UserError(
                "path-in-the-way",
                f"{path} cannot be written: {error.strerror}.",
                context=str(error.filename),
                hint="Move what is in the way, and check out again.",
            ) from error
    # Not synced: the tree can be written anew from the pool at any time, and a file that a power cut tore has another
    # size than the stat cache remembers.
    repo.clear_marks()
    now_ns = time.time_ns()
    for path, info in written.items():
        cache.put(path, info, objects[path], now_ns)
    cache.save()


def _check_present(repo: Repository, objects: dict[str, str]) -> None:
    missing = sorted(path for path, sha in objects.items() if not repo.objects.has(sha))
    if missing:
        raise UserError(
            "objects-missing",
            f"{len(missing)} object(s) of the state are not in the pool {repo.objects.root}; the first is that of "
            f"{missing[0]} ({objects[missing[0]]}).",
            hint="Fetch them with `pvr get`, or see all of them with `pvr fsck`.",
        )


def _write_inline(root: str, path: str, value: JsonValue, as_canonical: bool) -> None:
    data = canonical.dumps(value) if as_canonical else escaped_text(value, indent="    ").encode()
    try:
        with open(safe_join(root, path), "rb") as file:
            if not os.path.islink(file.name) and file.read(len(data) + 1) == data:
                return
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.ENXIO}:
            raise
    write_beneath(root, path, data, durable=False)


def _link(repo: Repository, path: str, sha: str) -> None:
    source = repo.objects.path(sha)
    os.chmod(source, 0o444)
    try:
        link_beneath(source, repo.dir, path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise UserError(
            "pool-on-another-file-system",
            f"{path} cannot be a hard link: the pool {repo.objects.root} lies on another file system.",
            hint="Check out without --hardlink, or keep the pool beside the tree (`pvr init --objects`).",
        ) from error


def write_entries(objects: ObjectStore, root: str, entries: dict[str, JsonValue]) -> None:
    """Write the files of some entries below `root` as copies, each hashed on its way."""
    for path, value in check_entries(entries, source="the state").items():
        if is_inline(path, value):
            _write_inline(root, path, value, False)
        elif is_file(path):
            with objects.open(str(value)) as source:
                write_beneath(root, path, _verified(source, path, str(value)), durable=False)


def _copy(repo: Repository, cache: StatCache, path: str, sha: str) -> os.stat_result | None:
    """Write a copy of the object; returns what it looks like then, or None when the file was right already."""
    target = safe_join(repo.dir, path)
    try:
        info = os.stat(target, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        pass
    else:
        # Unchanged since it was hashed, and no link to the pool (a write to it would change the object).
        if info.st_nlink == 1 and cache.get(path, info) == sha:
            return None
    with repo.objects.open(sha) as source:
        write_beneath(repo.dir, path, _verified(source, path, sha, repo.heard), durable=False)
    return os.stat(target, follow_symlinks=False)


def _verified(source: IO[bytes], path: str, sha: str, heard: Callable[[int], None] | None = None) -> Iterator[bytes]:
    """The object's bytes; raises at their end, before the file gets its name, when they do not hash to `sha`."""
    import hashlib

    digest = hashlib.sha256()
    for chunk in read_chunks(source, heard=heard):
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != sha:
        raise UserError(
            "object-damaged",
            f"Object cannot be checked out; wrong sha: {sha} ({path}).",
            hint="See what else is damaged with `pvr fsck`; `pvr fsck --repair` fetches it again.",
        )
