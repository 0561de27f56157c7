"""Bytes of objects in a folder, named by their SHA-256.

<root>/ab/cdef...          published: hash and size were right, content and name are on the disk
<root>/incoming/<hex>      an upload on its way; what is left of a crash is swept at start
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator

from brickless.hub.domain.errors import Malformed
from brickless.hub.services.ports import Blobs
from brickless.store.atomic import make_dirs, publish

_READ_BYTES = 1024 * 1024
_WRITE_BYTES = 1024 * 1024


class FolderBlobs:
    """`services.ports.Blobs`."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._incoming = os.path.join(root, "incoming")

    def start(self) -> None:
        """Make the folders and sweep what a crash left."""
        make_dirs(self._incoming, mode=0o700)
        for name in os.listdir(self._incoming):
            self._sweep(os.path.join(self._incoming, name))

    @staticmethod
    def _sweep(path: str) -> None:
        """Remove an upload that nobody holds any more: another replica may be at it."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        except BlockingIOError:
            return
        finally:
            os.close(fd)

    def _path(self, sha: str) -> str:
        if len(sha) != 64 or not all(character in "0123456789abcdef" for character in sha):
            raise ValueError("not a SHA-256")
        return os.path.join(self._root, sha[:2], sha[2:])

    async def has(self, sha: str) -> bool:
        """See `services.ports.Blobs.has`."""
        return await self.size_bytes(sha) is not None

    async def size_bytes(self, sha: str) -> int | None:
        """See `services.ports.Blobs.size_bytes`."""
        try:
            return os.stat(self._path(sha)).st_size
        except FileNotFoundError:
            return None

    async def put(self, sha: str, size_bytes: int, chunks: AsyncIterator[bytes]) -> None:
        """See `services.ports.Blobs.put`."""
        temporary = os.path.join(self._incoming, secrets.token_hex(16))
        digest, taken = hashlib.sha256(), 0
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                async for chunk in gathered(chunks):
                    taken += len(chunk)
                    if taken > size_bytes:
                        raise Malformed(f"The upload is larger than the {size_bytes} bytes announced")
                    await asyncio.to_thread(_take, fd, chunk, digest)
            finally:
                os.close(fd)
            if taken != size_bytes:
                raise Malformed(f"The upload has {taken} bytes; {size_bytes} were announced")
            if digest.hexdigest() != sha:
                raise Malformed("The SHA-256 of the upload differs from the one announced")
            await asyncio.to_thread(self._publish, temporary, self._path(sha))
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise

    @staticmethod
    def _publish(temporary: str, final: str) -> None:
        make_dirs(os.path.dirname(final), mode=0o700)
        publish(temporary, final)

    async def names(self, *, older_than_s: float) -> AsyncIterator[str]:
        """See `services.ports.Blobs.names`."""
        for prefix in await asyncio.to_thread(os.listdir, self._root):
            if len(prefix) == 2:
                for sha in await asyncio.to_thread(self._old_ones, prefix, older_than_s):
                    yield sha

    def _old_ones(self, prefix: str, older_than_s: float) -> list[str]:
        before_s = time.time() - older_than_s
        with os.scandir(os.path.join(self._root, prefix)) as entries:
            found = [prefix + entry.name for entry in entries if entry.stat().st_mtime < before_s]
        return [sha for sha in found if len(sha) == 64]

    async def remove(self, sha: str, *, older_than_s: float) -> int | None:
        """See `services.ports.Blobs.remove`."""
        path = self._path(sha)
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return None  # another replica's collection was faster
        if status.st_mtime >= time.time() - older_than_s:
            return None
        os.unlink(path)
        return status.st_size

    async def fault(self, sha: str, size_bytes: int) -> str:
        """See `services.ports.Blobs.fault`."""
        return await fault_of(self, sha, size_bytes)

    async def read(self, sha: str, start: int, length: int) -> AsyncGenerator[bytes | bytearray, None]:
        """See `services.ports.Blobs.read`."""
        fd = os.open(self._path(sha), os.O_RDONLY | os.O_CLOEXEC)
        try:
            while length > 0:
                wanted = min(length, _READ_BYTES)
                chunk = _cached(fd, wanted, start) or await asyncio.to_thread(os.pread, fd, wanted, start)
                if not chunk:
                    raise OSError(f"object {sha} is shorter than its size")
                start, length = start + len(chunk), length - len(chunk)
                yield chunk
        finally:
            os.close(fd)


def _cached(fd: int, wanted: int, start: int) -> bytes | bytearray:
    """What the page cache has, without waiting for a disk and without a thread; nothing when it has not even the first.

    A quarter of the processor time of a large download was the way to a thread and back.
    """
    chunk = bytearray(wanted)
    try:
        got = os.preadv(fd, [chunk], start, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno in {errno.EAGAIN, errno.EOPNOTSUPP}:
            return b""
        raise
    del chunk[got:]
    return chunk


async def fault_of(blobs: Blobs, sha: str, size_bytes: int) -> str:
    """What is wrong with the bytes of any storage, empty when they are whole: reads them all."""
    stored = await blobs.size_bytes(sha)
    if stored is None:
        return "its bytes are missing"
    if stored != size_bytes:
        return f"has {stored} bytes instead of {size_bytes}"
    digest = hashlib.sha256()
    async for chunk in blobs.read(sha, 0, size_bytes):
        await asyncio.to_thread(digest.update, chunk)
    return "" if digest.hexdigest() == sha else "its content is not what its name says"


async def gathered(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Larger pieces: one hop to a thread for each megabyte, not for each packet."""
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size >= _WRITE_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


def _take(fd: int, chunk: bytes, digest: hashlib._Hash) -> None:
    digest.update(chunk)
    view = memoryview(chunk)
    while view:
        view = view[os.write(fd, view) :]
