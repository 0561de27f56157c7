"""Exports: a tar archive of a state and its objects (pvr.md 3.9), written reproducibly and read without trust."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple, cast

from brickless.core import canonical
from brickless.core.canonical import JsonValue
from brickless.core.errors import HostileInputError, UserError
from brickless.store.entries import check_entries, objects_of
from brickless.store.objects import ObjectStore, is_sha, read_chunks

MAX_STATE_BYTES = 64 << 20
MAX_MEMBERS = 200_000
#: Is told how many bytes came through.
Heard = Callable[[int], None] | None
_GZIP_SUFFIXES = (".gz", ".tgz")
_IGNORED = {"config", ".pvr/config", "commitmsg", ".pvr/commitmsg"}


class Member(NamedTuple):
    """One file of an archive: `sha` is empty for the state."""

    sha: str
    size_bytes: int
    stream: IO[bytes]


def is_gzip_name(name: str) -> bool:
    """Whether an archive of this name is compressed."""
    return name.lower().endswith(_GZIP_SUFFIXES)


def write(
    stream: IO[bytes], entries: dict[str, JsonValue], store: ObjectStore, *, compress: bool, heard: Heard = None
) -> int:
    """Write an export; returns the number of objects. The same state gives the same bytes on every machine.

    `json` comes first (devices read the archive as a stream), then each object once, sorted. Raises UserError for an
    object that the pool lacks, before anything is written. `heard` is told how many bytes were read, as they are.
    """
    shas = sorted(set(objects_of(entries).values()))
    missing = [sha for sha in shas if not store.has(sha)]
    if missing:
        raise UserError(
            "objects-missing",
            f"{len(missing)} object(s) are not in the pool {store.root}, the first is {missing[0]}.",
            hint="See them with `pvr fsck`; fetch them with `pvr get`.",
        )
    # mtime=0 and no name: the header of the compressed stream must not differ from run to run either.
    target = gzip.GzipFile(filename="", fileobj=stream, mode="wb", compresslevel=6, mtime=0) if compress else stream
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.GNU_FORMAT) as archive:
        state = canonical.dumps(entries)
        archive.addfile(_header("json", len(state), 0o600), io.BytesIO(state))
        for sha in shas:
            with store.open(sha) as source:
                told = cast(IO[bytes], _Told(source, heard))
                archive.addfile(_header(f"objects/{sha}", store.size_bytes(sha), 0o644), told)
    if compress:
        target.close()
    return len(shas)


class _Told:
    """A stream, as far as tarfile reads one; `heard` is told what is read."""

    def __init__(self, stream: IO[bytes], heard: Heard) -> None:
        self._stream = stream
        self._heard = heard

    def read(self, size: int) -> bytes:
        """The next bytes."""
        data = self._stream.read(size)
        if self._heard is not None:
            self._heard(len(data))
        return data


def _header(name: str, size_bytes: int, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    info.mode = mode
    info.mtime = 0
    info.uid = info.gid = 0
    return info


@contextmanager
def members(stream: IO[bytes], source: str) -> Iterator[Iterator[Member]]:
    """Read an export (plain, gzip, bzip2 or xz; `json` or `.pvr/json` layout) as a stream.

    Raises HostileInputError for anything that an export does not hold: other names, links, devices, too many members.
    """
    buffered: io.BufferedReader = io.BufferedReader(cast(io.RawIOBase, stream))
    try:
        with _uncompressed(buffered) as plain, tarfile.open(fileobj=plain, mode="r|") as archive:
            yield _members(archive, source)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise HostileInputError(f"{source} is no readable export: {error or 'it is empty'}.") from error
    finally:
        buffered.detach()  # the stream is the caller's


@contextmanager
def _uncompressed(stream: io.BufferedReader) -> Iterator[IO[bytes]]:
    """The archive's own bytes, by the magic numbers of gzip, bzip2 and xz."""
    start = stream.peek(6)
    if start.startswith(b"\x1f\x8b"):
        with gzip.open(stream) as plain:
            yield cast(IO[bytes], plain)
    elif start.startswith(b"BZh"):
        with bz2.open(stream) as unpacked:
            yield cast(IO[bytes], unpacked)
    elif start.startswith(b"\xfd7zXZ\x00"):
        with lzma.open(stream) as unxz:
            yield cast(IO[bytes], unxz)
    else:
        yield stream


def _members(archive: tarfile.TarFile, source: str) -> Iterator[Member]:
    for count, info in enumerate(archive):
        if count >= MAX_MEMBERS:
            raise HostileInputError(f"{source} has more than {MAX_MEMBERS} members.")
        name = info.name.removeprefix("./").removeprefix(".pvr/")
        if info.isdir() or name in _IGNORED:
            continue
        sha = name.removeprefix("objects/") if name.startswith("objects/") else ""
        if not info.isreg() or info.issparse() or not (name == "json" or is_sha(sha)):
            raise HostileInputError(
                f"{source} has the member {info.name[:200]!r}, which no export has; nothing was imported."
            )
        if name == "json" and info.size > MAX_STATE_BYTES:
            raise HostileInputError(f"{source} has a state of {info.size} bytes, more than the {MAX_STATE_BYTES} read.")
        content = archive.extractfile(info)
        assert content is not None  # noqa: S101 - a regular file has content
        yield Member(sha, info.size, content)


def read_state(path: str) -> dict[str, JsonValue]:
    """The state of an export. Reads until the state is found."""
    with open(path, "rb") as stream, members(stream, path) as found:
        for member in found:
            if not member.sha:
                return check_entries(
                    canonical.loads(member.stream.read(), max_bytes=MAX_STATE_BYTES), source=f"{path}:json"
                )
    raise HostileInputError(f"{path} is no export: it holds no `json`.")


def read_objects(path: str, wanted: set[str], store: ObjectStore, heard: Heard = None) -> int:
    """Copy objects of an export into a pool, each checked against its name; returns how many were added."""
    added = 0
    with open(path, "rb") as stream, members(stream, path) as found:
        for member in found:
            if member.sha in wanted and not store.has(member.sha):
                store.add(read_chunks(member.stream, heard=heard), sha=member.sha, size=member.size_bytes)
                added += 1
    return added


def read_all(
    stream: IO[bytes], source: str, store: ObjectStore, heard: Heard = None
) -> tuple[dict[str, JsonValue], int]:
    """Take everything from an export in one pass: objects into the pool; returns the state and the objects' number."""
    entries: dict[str, JsonValue] | None = None
    added = 0
    with members(stream, source) as found:
        for member in found:
            if member.sha:
                added += not store.has(member.sha)
                store.add(read_chunks(member.stream, heard=heard), sha=member.sha, size=member.size_bytes)
            else:
                document = canonical.loads(member.stream.read(), max_bytes=MAX_STATE_BYTES)
                entries = check_entries(document, source=f"{source}:json")
    if entries is None:
        raise HostileInputError(f"{source} is no export: it holds no `json`.")
    return entries, added


def looks_like_one(path: str) -> bool:
    """Whether a file is a tar archive, whatever its name."""
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError):
        return False
