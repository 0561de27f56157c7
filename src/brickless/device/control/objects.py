"""`/objects`: what the pool holds, taken out and put in (device.md 6.2). A put is hashed before it gets its name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO

from brickless.core.errors import HostileInputError
from brickless.device.control.http import HttpError, Response, json_response
from brickless.device.control.places import OBJECT_PUT, settings
from brickless.device.control.session import Call, method_error
from brickless.store.objects import is_sha, read_chunks
from brickless.store.trails import Storage

NO_SPACE = "Not enough disk space available"
BAD_CHECKSUM = "Object has bad checksum"
BINARY = "application/octet-stream"


def answer(call: Call) -> Response:
    """Serve the endpoint."""
    storage = Storage(call.place.storage)
    if (call.method, len(call.parts)) == ("GET", 1):
        return json_response([{"sha256": sha, "size": str(size)} for sha, size in listing(storage)])
    if len(call.parts) != 2 or call.method not in ("GET", "PUT"):
        raise method_error(call)
    sha = call.parts[1]
    if not is_sha(sha):
        raise HttpError(400, "An object is named by the 64 lower-case hex digits of its SHA-256")
    return get(storage, sha) if call.method == "GET" else put(call, storage, sha)


def listing(storage: Storage) -> Iterator[tuple[str, int]]:
    """The pool's objects with their sizes, by name."""
    for sha in sorted(storage.objects.shas()):
        try:
            yield sha, storage.objects.size_bytes(sha)
        except FileNotFoundError:
            continue  # collected meanwhile


def get(storage: Storage, sha: str) -> Response:
    """An object's bytes. Raises HttpError 404."""
    try:
        stream = storage.objects.open(sha)
    except FileNotFoundError:
        raise HttpError(404, "Resource does not exist") from None
    return Response(200, _pieces(stream), BINARY, os.fstat(stream.fileno()).st_size)


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    with stream:
        yield from read_chunks(stream, 64 * 1024)


def put(call: Call, storage: Storage, sha: str) -> Response:
    """Take an object in. Raises HttpError 422 for other bytes than promised, 507 when there is no room for them."""
    body = call.request.body
    if storage.objects.has(sha):
        for _ in body.pieces():
            continue
        return Response()
    reserved = settings(call.place).integer("PV_STORAGE_GC_RESERVED")
    room = max(0, storage.free_bytes() - storage.total_bytes() * reserved // 100)
    if body.size_bytes > room:
        raise HttpError(507, NO_SPACE)
    _note_put(call.place.private)
    size = body.size_bytes if body.size_bytes >= 0 else None
    try:
        storage.objects.add(_within(body.pieces(), room), sha=sha, size=size)
    except HostileInputError as error:
        raise HttpError(422, BAD_CHECKSUM) from error
    except OSError as error:
        from brickless.device.update.space import is_disk_full

        if is_disk_full(error):
            raise HttpError(507, NO_SPACE) from error
        raise
    return Response()


def _within(pieces: Iterator[bytes], room: int) -> Iterator[bytes]:
    for piece in pieces:
        room -= len(piece)
        if room < 0:
            raise HttpError(507, NO_SPACE)
        yield piece


def _note_put(private: str) -> None:
    """The threshold collection waits a while after this: what was put is not linked by any revision yet."""
    os.makedirs(private, mode=0o700, exist_ok=True)
    path = os.path.join(private, OBJECT_PUT)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    os.utime(path)
