"""The states that a repository had: what `pvr log`, `undo` and `diff REV REV` read. Ours, additive (pvr.md 8.3).

    .pvr/history/<state-sha>.json   one state, canonical JSON
    .pvr/history/log                one JSON object a line, oldest first: {"action","message","sha","time"}

The log is written before the state is replaced: an entry may name a change that a crash prevented, but no change
ever lacks its entry. Bounded: the oldest entries go first. `gc` reads it, to keep the objects that it names.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import NamedTuple

from brickless.core import canonical
from brickless.store import atomic, tags

MAX_ENTRIES = 200
_MAX_LOG_BYTES = 4 << 20


class Entry(NamedTuple):
    """One change: when (seconds since 1970), by which command, with which message, to which state."""

    time_s: int
    action: str
    message: str
    sha: str


def needed(meta: str) -> set[str]:
    """The hashes of all states that something names: a change that is kept, or a tag."""
    return {entry.sha for entry in entries(meta)} | {tag.sha for tag in tags.load(meta).values()}


def entries(meta: str) -> list[Entry]:
    """The changes, oldest first. A line that cannot be read (a torn write of another tool) is left out."""
    found: list[Entry] = []
    try:
        with open(os.path.join(meta, "history", "log"), "rb") as file:
            lines = file.read(_MAX_LOG_BYTES).splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        with suppress(ValueError, KeyError, TypeError):
            value = json.loads(line)
            found.append(Entry(int(value["time"]), str(value["action"]), str(value["message"]), str(value["sha"])))
    return found


def state_path(meta: str, sha: str) -> str:
    """Where the state with this canonical hash is kept."""
    return os.path.join(meta, "history", f"{sha}.json")


def record(meta: str, old_path: str, new: bytes, *, action: str, message: str) -> None:
    """Keep the state that is about to be replaced and the one that comes, and note the change."""
    folder = os.path.join(meta, "history")
    atomic.make_dirs(folder)
    known = entries(meta)
    with suppress(FileNotFoundError):
        with open(old_path, "rb") as file:
            old = file.read()
        if not known:
            known.append(Entry(int(os.stat(old_path).st_mtime), "start", "", keep(meta, old)))
        else:
            keep(meta, old)
    known.append(Entry(int(time.time()), action, message, keep(meta, new)))
    kept = known[-MAX_ENTRIES:]
    atomic.write_file(os.path.join(folder, "log"), b"".join(_line(entry) for entry in kept))
    named = {tag.sha for tag in tags.load(meta).values()}
    for gone in {entry.sha for entry in known} - {entry.sha for entry in kept} - named:
        atomic.discard(state_path(meta, gone))


def keep(meta: str, data: bytes) -> str:
    """Store a state under its own hash; a state that is not canonical (fresh from `init`) under that of its bytes."""
    sha = canonical.sha256_hex(data)
    path = state_path(meta, sha)
    atomic.make_dirs(os.path.dirname(path))
    if not os.path.exists(path):
        atomic.write_file(path, data)
    return sha


def _line(entry: Entry) -> bytes:
    document = {"action": entry.action, "message": entry.message, "sha": entry.sha, "time": entry.time_s}
    return json.dumps(document, sort_keys=True).encode() + b"\n"
