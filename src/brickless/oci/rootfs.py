"""Root file systems that are no images: a folder or a tarball becomes one layer.

Owners are those of the tree when we may see them (as root, or under fakeroot); an unprivileged user's tree is root's,
since its real owner means nothing on a device.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from brickless.core.errors import HostileInputError, UserError
from brickless.oci import compression, tar
from brickless.oci.flatten import ignore, ignore_bytes
from brickless.oci.limits import DEFAULT, Limits

if TYPE_CHECKING:
    import httpx

CHUNK_BYTES = 1 << 20
MAX_REDIRECTS = 5
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 15.0, 60.0
_TYPES = {
    stat.S_IFREG: tar.FILE,
    stat.S_IFDIR: tar.FOLDER,
    stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFCHR: tar.CHAR,
    stat.S_IFBLK: tar.BLOCK_DEVICE,
    stat.S_IFIFO: tar.FIFO,
}


@dataclass(frozen=True, slots=True)
class TarballLayer:
    """A tarball (plain, gzip, zstd) as a layer."""

    path: Path
    diff_id: str | None = None

    def chunks(self) -> Iterator[bytes]:
        """The uncompressed archive."""
        with self.path.open("rb") as handle:
            yield from compression.decompress(compression.chunks_of(handle), what=str(self.path))


@dataclass(frozen=True, slots=True)
class FolderLayer:
    """A folder as a layer; `report` is told of what cannot be kept. Symlinks are kept, never followed."""

    root: Path
    keep_owners: bool
    report: Callable[[str], None] = ignore
    diff_id: str | None = None

    def chunks(self) -> Iterator[bytes]:
        """The folder as an archive. Raises `OSError` for what cannot be read."""
        links: dict[tuple[int, int], bytes] = {}
        pending = [b""]
        base = os.fsencode(self.root)
        while pending:
            relative = pending.pop()
            path = os.path.join(base, relative) if relative else base
            info = os.stat(path) if not relative else os.lstat(path)
            entry = self._entry(path, relative, info)
            if entry is None:
                continue
            if info.st_nlink > 1 and entry.type != tar.FOLDER:
                first = links.setdefault((info.st_dev, info.st_ino), entry.name)
                if first != entry.name:
                    entry.type, entry.link, entry.size, entry.xattrs = tar.LINK, first, 0, None
            yield tar.header(entry)
            if entry.type == tar.FILE:
                yield from _content(path, entry.size)
            if entry.type == tar.FOLDER:
                prefix = relative + b"/" if relative else b""
                pending += sorted((prefix + name for name in os.listdir(path)), reverse=True)
        yield tar.END

    def _entry(self, path: bytes, relative: bytes, info: os.stat_result) -> tar.Entry | None:
        kind = _TYPES.get(stat.S_IFMT(info.st_mode))
        if kind is None:
            self.report(f"{os.fsdecode(path)}: a socket cannot be kept; it is left out")
            return None
        entry = tar.Entry(b"./" + relative, kind, mode=stat.S_IMODE(info.st_mode))
        entry.mtime_s = int(info.st_mtime)
        if self.keep_owners:
            entry.uid, entry.gid = info.st_uid, info.st_gid
        if kind == tar.FILE:
            entry.size = info.st_size
        elif kind == tar.SYMLINK:
            entry.link = os.readlink(path)
        elif kind in (tar.CHAR, tar.BLOCK_DEVICE):
            entry.major, entry.minor = os.major(info.st_rdev), os.minor(info.st_rdev)
        names = os.listxattr(path, follow_symlinks=False)
        entry.xattrs = {os.fsencode(n): os.getxattr(path, n, follow_symlinks=False) for n in names} or None
        return entry


def _content(path: bytes, size: int) -> Iterator[bytes]:
    rest = size
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as handle:
        while rest:
            chunk = handle.read(min(CHUNK_BYTES, rest))
            if not chunk:
                raise UserError("rootfs-changed", f"{os.fsdecode(path)} became shorter while it was read")
            rest -= len(chunk)
            yield chunk
    yield tar.padding(size)


def is_url(source: str) -> bool:
    """Whether a root file system is to be fetched first."""
    return urlsplit(source).scheme in ("http", "https")


def download(
    url: str,
    dest: Path,
    *,
    limits: Limits = DEFAULT,
    heard: Callable[[int], None] = ignore_bytes,
    timeout_s: float = READ_TIMEOUT_S,
) -> None:
    """Fetch a tarball to a file; `heard` is told the bytes as they come.

    Raises `UserError` (rootfs-missing) with the server's status, `HostileInputError`.
    """
    import httpx

    timeout = httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))
    try:
        with httpx.Client(timeout=timeout, trust_env=False) as http:
            for _ in range(MAX_REDIRECTS):
                with http.stream("GET", url, headers={"Accept-Encoding": "identity"}) as answer:
                    if not answer.has_redirect_location:
                        _save(answer, dest, limits, heard)
                        return
                    url = _redirected(url, answer.headers["location"])
    except httpx.HTTPError as error:
        raise UserError("rootfs-missing", f"cannot fetch {url}: {str(error) or type(error).__name__}") from error
    raise HostileInputError(f"{url} redirects more than {MAX_REDIRECTS} times")


def _redirected(url: str, location: str) -> str:
    target = urljoin(url, location)
    if not is_url(target) or (urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http"):
        raise HostileInputError(f"{url} redirects to {target!r}, which is not secure")
    return target


def _save(answer: httpx.Response, dest: Path, limits: Limits, heard: Callable[[int], None]) -> None:
    if answer.status_code != 200:
        raise UserError("rootfs-missing", f"{answer.request.url} answered {answer.status_code}")
    size = 0
    with dest.open("wb") as handle:
        for chunk in answer.iter_raw():
            size += len(chunk)
            if size > limits.layer_bytes:
                raise HostileInputError(f"{answer.request.url} has more than {limits.layer_bytes} bytes")
            handle.write(chunk)
            heard(len(chunk))
