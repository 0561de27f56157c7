"""The object store: files named by the SHA-256 of their content, checked before they are named.

    <root>/<64 hex>              one object: flat, no prefix, no compression (device.md 2.2, pvr.md 2.3)
    <root>/<64 hex>.part         a download that may be resumed; flock'ed by whoever appends to it
    <root>/.<...>.tmp-<16 hex>   an unfinished add; `sweep` removes it

A name in the store is a promise about the content. Nothing gets one before all its bytes were hashed and are on the
disk. Checked-out files are hard links to objects; an object whose link count is 1 is used by no checkout.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable, Container, Iterable, Iterator
from typing import IO, TYPE_CHECKING

from brickless.core.errors import HostileInputError
from brickless.store.atomic import (
    FILES,
    Files,
    discard,
    is_temporary,
    make_dirs,
    publish,
    rename,
    sync_dir,
    temporary_path,
    write_all,
)
from brickless.store.tree import link_beneath

if TYPE_CHECKING:
    from hashlib import _Hash

CHUNK_BYTES = 1 << 20
PART = ".part"
_SHA = re.compile(r"[0-9a-f]{64}")


def is_sha(text: str) -> bool:
    """Whether `text` is the name of an object: 64 lower-case hex digits."""
    return _SHA.fullmatch(text) is not None


class ObjectStore:
    """The objects in one flat folder, shared by every repository or revision that names it."""

    __slots__ = ("files", "root")

    def __init__(self, root: str, *, files: Files = FILES) -> None:
        self.root = os.path.abspath(root)
        self.files = files

    def path(self, sha: str) -> str:
        """Where the object lies, or would lie. Raises HostileInputError when `sha` is not a hash: it names a file."""
        if not is_sha(sha):
            raise HostileInputError(f"{sha[:100]!r} is not the SHA-256 of an object.")
        return os.path.join(self.root, sha)

    def has(self, sha: str) -> bool:
        """Whether the object is there as a regular file. Says nothing about its bytes: see `verify`."""
        try:
            return stat.S_ISREG(os.stat(self.path(sha), follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return False

    def size_bytes(self, sha: str) -> int:
        """The size of an object. Raises FileNotFoundError."""
        return os.stat(self.path(sha), follow_symlinks=False).st_size

    def prepare(self) -> None:
        """Make the folder."""
        make_dirs(self.root, files=self.files)

    def add(
        self, chunks: Iterable[bytes], *, sha: str | None = None, size: int | None = None, max_bytes: int | None = None
    ) -> str:
        """Store the concatenation of `chunks` and return its hash.

        With `sha` or `size` (bytes) the content must be exactly that; `max_bytes` bounds it. Raises HostileInputError
        when it is not, OSError when the disk refuses; in both cases nothing is left. An object that exists is kept.
        """
        if sha is not None and self.has(sha):
            return sha
        staged = self.stage(chunks, sha=sha, size=size, max_bytes=max_bytes)
        try:
            staged.publish()
        finally:
            staged.discard()
        return staged.sha

    def stage(
        self, chunks: Iterable[bytes], *, sha: str | None = None, size: int | None = None, max_bytes: int | None = None
    ) -> Staged:
        """Write and hash without naming: the first half of `add`, for callers that name many objects at once."""
        self.prepare()
        limit = size if size is not None else max_bytes
        temporary = temporary_path(os.path.join(self.root, "add"))
        fd = self.files.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        try:
            try:
                found, total = self._copy(chunks, fd, limit)
                self.files.chmod(fd, 0o644)
            finally:
                self.files.close(fd)
            if size is not None and total != size:
                raise HostileInputError(f"An object has {total} bytes, but {size} were announced.")
            if sha is not None and found != sha:
                raise HostileInputError(f"The object {sha} arrived with the hash {found}.")
        except BaseException:
            discard(temporary, self.files)
            raise
        return Staged(self, temporary, found, total)

    def _copy(self, chunks: Iterable[bytes], fd: int, limit: int | None) -> tuple[str, int]:
        digest = _sha256()
        total = 0
        for chunk in chunks:
            total += len(chunk)
            if limit is not None and total > limit:
                raise HostileInputError(f"An object is larger than the {limit} bytes that are allowed.")
            digest.update(chunk)
            write_all(fd, chunk, self.files)
        return digest.hexdigest(), total

    def add_file(self, path: str) -> str:
        """Store a copy of a file, read once: what was hashed is what is stored, even if the file changes meanwhile."""
        with open(path, "rb") as source:
            return self.add(read_chunks(source))

    def partial(self, sha: str, *, max_bytes: int | None = None) -> Partial:
        """Open the download of an object, with whatever an interrupted one left. See `Partial`."""
        self.prepare()
        return Partial(self, sha, max_bytes)

    def open(self, sha: str) -> IO[bytes]:
        """The object's bytes, read-only. Raises FileNotFoundError."""
        fd = os.open(self.path(sha), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return os.fdopen(fd, "rb")

    def verify(self, sha: str, heard: Callable[[int], None] | None = None) -> bool:
        """Whether the object is there and its bytes hash to its name. Reads all of it; `heard` is told how much."""
        try:
            with self.open(sha) as source:
                return hash_stream(source, heard) == sha
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno == errno.ELOOP:
                return False
            raise

    def link(self, sha: str, dest: str, *, root: str | None = None) -> bool:
        """Hard-link the object to `dest`, parents made, an old file replaced in one step. True when it changed.

        No component of `dest` below `root` may be a symlink (HostileInputError). Without `root` that is the folder
        which holds both the store and `dest`, else the file system's root. Not yet durable: `sync_dir` the parent.
        """
        target = os.path.abspath(dest)
        if root is None:
            root = os.path.dirname(self.root)
            if os.path.commonpath([root, target]) != root:
                root = "/"
        return link_beneath(self.path(sha), root, os.path.relpath(target, root), files=self.files)

    def remove(self, sha: str) -> None:
        """Take a corrupt object out of the store, so that it counts as missing and is fetched again."""
        discard(self.path(sha), self.files)
        sync_dir(self.root, self.files)

    def adopt(self, path: str, sha: str) -> bool:
        """Make the file at `path` (by hard link) the object `sha`, in place of a lost or damaged one.

        False, and nothing is changed, when the file is not there, is a symlink, or does not hash to `sha`.
        """
        try:
            if hash_file(path) != sha:
                return False
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EIO}:
                return False
            raise
        self.prepare()
        link_beneath(path, self.root, sha, files=self.files)
        sync_dir(self.root, self.files)
        return True

    def shas(self) -> Iterator[str]:
        """The names of all objects, in no order."""
        try:
            entries = os.scandir(self.root)
        except FileNotFoundError:
            return
        with entries:
            for entry in entries:
                if is_sha(entry.name) and entry.is_file(follow_symlinks=False):
                    yield entry.name

    def collect(self, keep: Container[str]) -> int:
        """Remove every object that no checkout links (link count 1) and `keep` does not name; partial ones too.

        Returns the bytes freed. The caller sees to it that nobody adds or links at the same time.
        """
        freed = 0
        try:
            names = os.listdir(self.root)
        except FileNotFoundError:
            return 0
        for name in names:
            sha = name.removesuffix(PART)
            leftover = is_temporary(name)
            if not leftover and (not is_sha(sha) or sha in keep):
                continue
            path = os.path.join(self.root, name)
            info = os.stat(path, follow_symlinks=False)
            if not stat.S_ISREG(info.st_mode) or (info.st_nlink > 1 and not leftover):
                continue
            discard(path, self.files)
            freed += info.st_blocks * 512 if info.st_nlink == 1 else 0
        sync_dir(self.root, self.files)
        return freed


class Staged:
    """An object that is written and hashed but has no name yet."""

    __slots__ = ("_path", "_store", "sha", "size_bytes")

    def __init__(self, store: ObjectStore, path: str, sha: str, size_bytes: int) -> None:
        self._store = store
        self._path = path
        self.sha = sha
        self.size_bytes = size_bytes

    def publish(self, *, synced: bool = False) -> None:
        """Give it its name. `synced` promises that the data is on the disk already (after a sync of everything)."""
        if self._store.has(self.sha):
            return
        final = self._store.path(self.sha)
        if synced:
            self._store.files.rename(self._path, final)
        else:
            publish(self._path, final, files=self._store.files)

    def discard(self) -> None:
        """Remove it if it was not published."""
        discard(self._path, self._store.files)


class Partial:
    """A download that survives interruption: what is there stays, and is hashed again before more is appended.

    Holds a lock on the file: a second process that wants the same object waits here, then finds it finished.
    Use as a context manager. The bytes count for nothing until `finish` has seen the right hash.
    """

    __slots__ = ("_digest", "_fd", "_max_bytes", "_path", "_store", "sha", "size_bytes")

    def __init__(self, store: ObjectStore, sha: str, max_bytes: int | None) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self.sha = sha
        self._path = store.path(sha) + PART
        self._fd = self._open_locked()
        self._digest = _sha256()
        self.size_bytes = 0
        while chunk := os.pread(self._fd, CHUNK_BYTES, self.size_bytes):
            self._digest.update(chunk)
            self.size_bytes += len(chunk)
        if max_bytes is not None and self.size_bytes > max_bytes:
            self.restart()

    def _open_locked(self) -> int:
        while True:
            fd = self._store.files.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_APPEND, 0o644)
            fcntl.flock(fd, fcntl.LOCK_EX)
            # The one who held the lock may have published or removed the file: then ours has no name any more.
            try:
                there = os.stat(self._path, follow_symlinks=False).st_ino
            except FileNotFoundError:
                there = -1
            if there == os.fstat(fd).st_ino:
                return fd
            os.close(fd)

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, chunk: bytes) -> None:
        """Add the next bytes. Raises HostileInputError beyond `max_bytes`, OSError when the disk is full."""
        if self._max_bytes is not None and self.size_bytes + len(chunk) > self._max_bytes:
            raise HostileInputError(
                f"The object {self.sha} is larger than the {self._max_bytes} bytes that were announced."
            )
        write_all(self._fd, chunk, self._store.files)
        self._digest.update(chunk)
        self.size_bytes += len(chunk)

    def restart(self) -> None:
        """Forget the bytes: the server cannot resume, or they are not what they should be."""
        os.ftruncate(self._fd, 0)
        self._digest = _sha256()
        self.size_bytes = 0

    def finish(self, sha: str | None = None) -> str:
        """Check the hash and give the object its name. On a wrong hash the bytes are dropped: HostileInputError."""
        wanted = self.sha if sha is None else sha
        found = self._digest.hexdigest()
        if found != wanted or wanted != self.sha:
            self.discard()
            raise HostileInputError(f"The object {wanted} arrived with the hash {found}.")
        try:
            self._store.files.chmod(self._fd, 0o644)
            self._store.files.fsync(self._fd)
            rename(self._path, self._store.path(self.sha), files=self._store.files)
        finally:
            self.close()
        return self.sha

    def discard(self) -> None:
        """Remove the file and let go of the lock."""
        discard(self._path, self._store.files)
        self.close()

    def close(self) -> None:
        """Keep the bytes for a later attempt and let go of the lock."""
        if self._fd >= 0:
            self._store.files.close(self._fd)
            self._fd = -1


def read_chunks(
    source: IO[bytes], chunk_bytes: int = CHUNK_BYTES, heard: Callable[[int], None] | None = None
) -> Iterator[bytes]:
    """The rest of a stream in pieces; `heard` is told the size of each."""
    while chunk := source.read(chunk_bytes):
        if heard is not None:
            heard(len(chunk))
        yield chunk


def hash_stream(source: IO[bytes], heard: Callable[[int], None] | None = None) -> str:
    """The SHA-256 of the rest of a stream, as hex; `heard` is told the size of each piece."""
    digest = _sha256()
    for chunk in read_chunks(source, heard=heard):
        digest.update(chunk)
    return digest.hexdigest()


def hash_file(path: str) -> str:
    """The SHA-256 of a file, as hex. Does not follow a symlink."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as source:
        return hash_stream(source)


def _sha256() -> _Hash:
    # Imported where it is used: hashlib loads libcrypto, which a process that only reads states does not need.
    import hashlib

    return hashlib.sha256()
