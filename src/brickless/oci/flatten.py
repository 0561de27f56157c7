"""Layers -> one sorted tar stream, without root, in bounded memory.

Each layer is uncompressed once into an unnamed temporary file and checked (`diff_id`) before a byte of it is believed.
Then its headers are read into the tree (`oci.tree`); content stays on disk until the sorted stream is written, and is
read from where it lies. Memory grows with the number of entries (about 500 bytes each), never with their size.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol

from brickless.core.errors import HostileInputError
from brickless.oci import tar
from brickless.oci.limits import DEFAULT, Limits
from brickless.oci.squashfs import Stream
from brickless.oci.tree import ImageError, Node, Tree

CHUNK_BYTES = 1 << 20
PARALLEL_LAYERS = 4
# What a read-only container needs as mount points (contract pvr.md 4.3). World-writable folders keep their sticky bit.
ESSENTIAL_FOLDERS = (
    (b"proc", 0o755),
    (b"sys", 0o755),
    (b"dev", 0o755),
    (b"tmp", 0o1777),
    (b"var/tmp", 0o1777),
    (b"run", 0o755),
    (b"var/run", 0o755),
)
EMULATOR = b"usr/bin/qemu-arm-static"
# Namespaces of extended attributes that squashfs stores. POSIX ACLs (`system.`) are not among them.
STORABLE_XATTRS = (b"user.", b"trusted.", b"security.")
# overlayfs's own marks: inside an image they would redirect or hide what the device's overlay shows.
OVERLAY_XATTRS = (b"trusted.overlay.", b"user.overlay.")
MAX_TIME_S = (1 << 32) - 1  # squashfs keeps unsigned 32-bit seconds


class Layer(Protocol):
    """What `Flattener` needs of a layer."""

    @property
    def diff_id(self) -> str | None:
        """`sha256:…` of the uncompressed layer, None where nobody recorded it."""

    def chunks(self) -> Iterator[bytes]:
        """The uncompressed bytes. Raises `HostileInputError` when they are not what was announced."""


def ignore(note: str) -> None:
    """The reporter for callers who want no notes."""


def ignore_bytes(_count: int) -> None:
    """The listener for callers who want no progress."""


class Flattener:
    """Collects layers, lowest first, then gives the merged tree as one tar stream. A context manager: it owns files.

    `spool` is a folder with room for the uncompressed image. `report` is told what squashfs cannot hold.
    """

    def __init__(
        self,
        spool: str | Path | None = None,
        *,
        limits: Limits = DEFAULT,
        report: Callable[[str], None] = ignore,
        keep_folder_links: bool = False,
        heard: Callable[[int], None] = ignore_bytes,
    ) -> None:
        """`heard` is told how many bytes of layers were unpacked, as they are."""
        self.tree = Tree(limits, keep_folder_links=keep_folder_links)
        self._limits = limits
        self._spool = spool
        self._report = report
        self._files: list[IO[bytes]] = []
        self._spooled_bytes = 0
        self._stopped = False
        self._lock = threading.Lock()
        self._heard = heard

    def __enter__(self) -> Flattener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._files:
            handle.close()

    def add(self, layer: Layer) -> None:
        """Apply the next layer. Raises `HostileInputError` for damaged or hostile layers, `OSError` for a full disk."""
        self.add_all([layer])

    def add_all(self, layers: Sequence[Layer], *, started: Callable[[int], None] = lambda _: None) -> None:
        """Apply layers in order, lowest first; they are fetched and uncompressed side by side, a few at a time.

        `started` hears the number of each layer, from 0, as its turn comes. Raises as `add`.
        """
        first = len(self._files)
        if first + len(layers) > self._limits.layers:
            raise ImageError(f"the image has more than {self._limits.layers} layers")
        handles = [self._temporary() for _ in layers]
        # zlib, zstd, the hash and the network all let other threads run.
        with ThreadPoolExecutor(PARALLEL_LAYERS) as pool:
            spooled = [pool.submit(self._spool_one, *pair) for pair in zip(handles, layers, strict=True)]
            try:
                for number, (future, handle) in enumerate(zip(spooled, handles, strict=True)):
                    started(number)
                    self._check(future.result(), layers[number], first + number + 1)
                    what = f"layer {first + number + 1}"
                    self.tree.add_layer(tar.read(handle, what=what, limits=self._limits))
            except BaseException:
                self._stopped = True
                pool.shutdown(cancel_futures=True)
                raise

    def _temporary(self) -> IO[bytes]:
        handle = tempfile.TemporaryFile(dir=self._spool, prefix="brickless-layer-")  # noqa: SIM115 - closed by __exit__
        self._files.append(handle)
        return handle

    def _check(self, found: str, layer: Layer, number: int) -> None:
        if layer.diff_id is not None and layer.diff_id != found:
            raise ImageError(f"layer {number} unpacks to {found}, but the image's configuration says {layer.diff_id}")

    def _spool_one(self, handle: IO[bytes], layer: Layer) -> str:
        """Write the uncompressed layer to its file; its digest. Runs in a thread of the pool."""
        digest = hashlib.sha256()
        for chunk in layer.chunks():
            with self._lock:
                self._spooled_bytes += len(chunk)
                if self._spooled_bytes > self._limits.unpacked_bytes:
                    raise ImageError(f"the image unpacks to more than {self._limits.unpacked_bytes} bytes")
                if self._stopped:
                    raise ImageError("another layer of the image failed")
            digest.update(chunk)
            self._write(handle, chunk)
            self._heard(len(chunk))
        self._write(handle, b"")
        return f"sha256:{digest.hexdigest()}"

    def _write(self, handle: IO[bytes], chunk: bytes) -> None:
        """Write a piece, or what is buffered if there is none; a full disk is named by its folder."""
        try:
            if chunk:
                handle.write(chunk)
            else:
                handle.flush()
        except OSError as error:
            folder = str(self._spool or tempfile.gettempdir())
            # Otherwise the file's own close would try again, and fail again, where nobody expects it.
            os.ftruncate(handle.fileno(), 0)
            raise OSError(error.errno, f"cannot unpack the image: {error.strerror}", folder) from error

    def finish_root(self) -> None:
        """Make the image usable as a read-only root: mount points are there, the builder's emulator is not."""
        self.tree.remove(EMULATOR)
        for path, mode in ESSENTIAL_FOLDERS:
            self.tree.make_folder(path, mode)

    def exclude(self, paths: Iterable[str]) -> None:
        """Leave out what these paths name; a path that names nothing changes nothing (as mksquashfs's `-e`)."""
        for path in paths:
            self.tree.remove(os.fsencode(path))

    def read_file(self, path: str, *, max_bytes: int = 1 << 20) -> bytes | None:
        """A regular file of the merged tree by its path inside the container; None if there is none."""
        node = self.tree.lookup(path)
        if node is None or node.entry.type != tar.FILE:
            return None
        if node.entry.size > max_bytes:
            raise ImageError(f"{path} of the image has {node.entry.size} bytes; at most {max_bytes} are read")
        return b"".join(self.content(node))

    def content(self, node: Node) -> Iterator[bytes]:
        """The bytes of a regular file, holes as zeros."""
        descriptor, place = self._files[node.layer].fileno(), 0
        for logical, size, offset in node.entry.segments:
            yield from _zeros(logical - place)
            yield from _slice(descriptor, offset, size)
            place = logical + size
        yield from _zeros(node.entry.size - place)

    @property
    def content_bytes(self) -> int:
        """How much `tar_chunks` will give of the contents of files, about."""
        return sum(node.entry.size for _, node in self.tree.walk() if node.entry.type == tar.FILE)

    def squashfs_stream(self, *, epoch_s: int | None = None) -> Stream:
        """The stream without its root, and beside it what mksquashfs takes as options instead of the root's entry."""
        root = self.tree.root.entry
        if root.uid or root.gid or root.xattrs:
            self._report("mksquashfs cannot set the owner or the attributes of the root folder; it stays root's")
        limit_s = MAX_TIME_S if epoch_s is None else epoch_s
        latest_s = max(_clamp(node.entry.mtime_s, limit_s) for _, node in self.tree.walk())
        return Stream(self.tar_chunks(epoch_s=latest_s, root=False), root.mode, latest_s)

    def tar_chunks(self, *, epoch_s: int | None = None, root: bool = True) -> Iterator[bytes]:
        """The merged tree as one pax archive, sorted by path, hard links behind the first of their names.

        Times are whole seconds from 1970 to 2106; `epoch_s` is the latest that appears (as SOURCE_DATE_EPOCH).
        """
        latest_s = MAX_TIME_S if epoch_s is None else epoch_s
        first_names: dict[int, bytes] = {}
        for path, node in self.tree.walk():
            if not path and not root:
                continue
            name = b"./" + path + b"/" * (node.children is not None and path != b"")
            if node.children is None:
                first = first_names.setdefault(id(node), name)
                if first is not name:
                    yield tar.header(_hard_link(node, name, first, latest_s))
                    continue
            yield tar.header(self._described(node, name, latest_s))
            if node.entry.type == tar.FILE and node.entry.size:
                yield from self.content(node)
                yield tar.padding(node.entry.size)
        yield tar.END

    def _described(self, node: Node, name: bytes, latest_s: int) -> tar.Entry:
        source = node.entry
        entry = tar.Entry(name, source.type, mode=source.mode, link=source.link, size=source.size)
        entry.uid, entry.gid, entry.mtime_s = source.uid, source.gid, _clamp(source.mtime_s, latest_s)
        entry.major, entry.minor = source.major, source.minor
        entry.xattrs = self._storable(name, source.xattrs) if source.xattrs else None
        return entry

    def _storable(self, name: bytes, xattrs: dict[bytes, bytes]) -> dict[bytes, bytes]:
        kept = {}
        for key, value in xattrs.items():
            if key.startswith(OVERLAY_XATTRS):
                self._report(f"{_shown(name)}: left out the attribute {_shown(key)}, a private mark of overlayfs")
            elif not key.startswith(STORABLE_XATTRS):
                self._report(f"{_shown(name)}: squashfs cannot hold the attribute {_shown(key)}; it is left out")
            else:
                kept[key] = value
        return kept


def _hard_link(node: Node, name: bytes, first: bytes, latest_s: int) -> tar.Entry:
    source = node.entry
    entry = tar.Entry(name, tar.LINK, mode=source.mode, link=first)
    entry.uid, entry.gid, entry.mtime_s = source.uid, source.gid, _clamp(source.mtime_s, latest_s)
    return entry


def _clamp(time_s: int, latest_s: int) -> int:
    return max(0, min(time_s, latest_s))


def _slice(descriptor: int, offset: int, size: int) -> Iterator[bytes]:
    while size > 0:
        chunk = os.pread(descriptor, min(CHUNK_BYTES, size), offset)
        if not chunk:
            raise HostileInputError("a spooled layer became shorter while it was read")
        offset, size = offset + len(chunk), size - len(chunk)
        yield chunk


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield bytes(min(CHUNK_BYTES, count))
        count -= CHUNK_BYTES


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
