"""`/steps`: the revisions on this device, their states, progress and commit messages (device.md 6.2 and 4.8)."""

from __future__ import annotations

import os
import time

from brickless.core.canonical import loads
from brickless.core.errors import HostileInputError
from brickless.core.paths import check_revision, is_local
from brickless.core.progress import Message, Progress, Status
from brickless.core.state import parse_state
from brickless.device.control.http import HttpError, Response, json_response
from brickless.device.control.places import settings
from brickless.device.control.session import Call, method_error
from brickless.device.update.policy import judge, policy_of
from brickless.store.trails import MAX_STATE_BYTES, Storage

MAX_MESSAGE_BYTES = 256
MISSING = "Resource does not exist"


def answer(call: Call) -> Response:
    """Serve the endpoint."""
    storage = Storage(call.place.storage)
    if (call.method, len(call.parts)) == ("GET", 1):
        return json_response(listing(storage))
    rev, rest = revision_in(call.parts[1:], storage)
    if (call.method, rest) == ("GET", ""):
        return Response(200, state_of(storage, rev))
    if (call.method, rest) == ("PUT", ""):
        return _put(call, storage, rev)
    if (call.method, rest) == ("GET", "progress"):
        return Response(200, _progress_of(storage, rev))
    if (call.method, rest) == ("GET", "commitmsg"):
        return Response(200, commit_message(storage, rev).encode(), "text/plain")
    if (call.method, rest) == ("PUT", "commitmsg"):
        return _put_message(call, storage, rev)
    raise method_error(call)


def revision_in(parts: tuple[str, ...], storage: Storage) -> tuple[str, str]:
    """The revision that a path names (`current` is the running one) and what follows it."""
    count = 2 if parts[:1] == ("locals",) else 1
    rev, rest = "/".join(parts[:count]), "/".join(parts[count:])
    if rev == "current":
        rev = storage.current() or "0"
    try:
        check_revision(rev)
    except HostileInputError as error:
        raise HttpError(400, str(error)) from error
    return rev, rest


def listing(storage: Storage) -> list[dict[str, object]]:
    """One row a revision."""
    rows: list[dict[str, object]] = []
    for rev in storage.revisions():
        data = storage.progress(rev)
        try:
            progress = loads(data) if data is not None else {}
        except HostileInputError:
            progress = {}
        path = os.path.join(storage.revision_dir(rev), ".pvr", "json")
        date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(os.stat(path).st_mtime))
        rows.append({"name": rev, "date": date, "commitmsg": commit_message(storage, rev), "progress": progress})
    return rows


def state_of(storage: Storage, rev: str) -> bytes:
    """The state byte for byte. Raises HttpError 404."""
    try:
        return storage.state_bytes(rev)
    except FileNotFoundError:
        raise HttpError(404, MISSING) from None


def commit_message(storage: Storage, rev: str) -> str:
    """What the author said, "" when nothing."""
    try:
        with open(os.path.join(storage.revision_dir(rev), ".pv", "commitmsg"), "rb") as stream:
            return stream.read(MAX_MESSAGE_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _progress_of(storage: Storage, rev: str) -> bytes:
    state_of(storage, rev)
    data = storage.progress(rev)
    if data is None:
        raise HttpError(404, MISSING)
    return data


def _put(call: Call, storage: Storage, rev: str) -> Response:
    raw = call.request.body.read(MAX_STATE_BYTES)
    install_step(call, storage, rev, raw)
    return Response()


def install_step(call: Call, storage: Storage, rev: str, raw: bytes) -> None:
    """Take a local revision's state in. Raises HttpError 422 for one that is refused; nothing of it is left then."""
    if not is_local(rev):
        raise HttpError(403, "Only a revision locals/NAME can be put here: numbers are given by a hub")
    status = call.status()
    if rev in (status.get("rev"), status.get("trying")):
        raise HttpError(409, f"Revision {rev} is running: put it under another name")
    try:
        state = parse_state(raw)
    except HostileInputError as error:
        raise HttpError(422, f"Parser: {Message.BAD_STATE}: {error}") from error
    verdict = judge(state, policy_of(settings(call.place)), dated=True)
    if verdict.message:
        raise HttpError(422, f"Secureboot: {verdict.message}: {verdict.detail}")
    if os.path.isdir(storage.revision_dir(rev)):
        storage.remove(rev)
    storage.write_state(rev, raw)
    storage.write_progress(rev, Progress.of(Status.NEW, Message.NEW_LOCAL).to_json())


def _put_message(call: Call, storage: Storage, rev: str) -> Response:
    state_of(storage, rev)
    data = call.request.body.read(64 * 1024)
    if len(data) > MAX_MESSAGE_BYTES:
        raise HttpError(400, f"A commit message has at most {MAX_MESSAGE_BYTES} bytes, this one {len(data)}")
    storage.write_commit_message(rev, data.decode("utf-8", "replace"))
    return Response()
