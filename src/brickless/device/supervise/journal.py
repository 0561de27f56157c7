"""What a supervisor that dies must find again after it was started anew. In memory (`/run`): a reboot forgets it.

<dir>/session            which revision runs, and what is being tried
<dir>/containers/<C>     the monitor of each running container
"""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from brickless.core.canonical import JsonValue
from brickless.core.errors import HostileInputError
from brickless.core.paths import check_revision
from brickless.device.supervise.jobs import Handle, Running
from brickless.store import atomic

MAX_BYTES = 65536


class Tried(NamedTuple):
    """A revision being tried. `reboot` says whether the bootloader booted it; `previous` is where a failure leads."""

    rev: str
    previous: str
    reboot: bool


class Session(NamedTuple):
    """What runs."""

    rev: str
    trial: Tried | None = None


class Record(NamedTuple):
    """A running container, with the signal that asks it to end."""

    running: Running
    halt: int


class Journal:
    """Reads and writes the files above. A file that is damaged reads as absent: the containers are started anew."""

    __slots__ = ("_dir",)

    def __init__(self, folder: str) -> None:
        self._dir = folder
        os.makedirs(os.path.join(folder, "containers"), mode=0o700, exist_ok=True)

    def session(self) -> Session | None:
        """The session of an earlier supervisor since the boot, or None."""
        value = self._load("session")
        try:
            return _session(value)
        except (HostileInputError, KeyError, TypeError):
            return None

    def keep_session(self, session: Session) -> None:
        """Write the session down."""
        trial = session.trial._asdict() if session.trial is not None else None
        self._store("session", {"rev": session.rev, "trial": trial})

    def records(self) -> list[Record]:
        """The containers that were running."""
        found = []
        for name in sorted(os.listdir(os.path.join(self._dir, "containers"))):
            value = self._load(f"containers/{name}") if not atomic.is_temporary(name) else None
            record = _record(name, value)
            if record is not None:
                found.append(record)
        return found

    def keep_record(self, record: Record) -> None:
        """Write a running container down."""
        running = record.running
        self._store(
            f"containers/{running.name}",
            {
                "rev": running.rev,
                "fingerprint": running.fingerprint,
                "pid": running.handle.pid,
                "ticks": running.handle.ticks,
                "started": running.started,
                "halt": record.halt,
            },
        )

    def drop_record(self, name: str) -> None:
        """Forget a container."""
        atomic.discard(os.path.join(self._dir, "containers", name))

    def _load(self, name: str) -> JsonValue:
        try:
            with open(os.path.join(self._dir, name), "rb") as stream:
                value: JsonValue = json.loads(stream.read(MAX_BYTES))
        except (FileNotFoundError, ValueError):
            return None
        return value

    def _store(self, name: str, value: dict[str, object]) -> None:
        atomic.write_file(os.path.join(self._dir, name), json.dumps(value).encode(), mode=0o600)


def _session(value: JsonValue) -> Session | None:
    if not isinstance(value, dict):
        return None
    rev = str(value["rev"])
    check_revision(rev)
    given = value["trial"]
    if not isinstance(given, dict):
        return Session(rev)
    trial = Tried(str(given["rev"]), str(given["previous"]), bool(given["reboot"]))
    check_revision(trial.rev)
    check_revision(trial.previous)
    return Session(rev, trial)


def _record(name: str, value: JsonValue) -> Record | None:
    if not isinstance(value, dict):
        return None
    pid, ticks, halt = value.get("pid"), value.get("ticks"), value.get("halt")
    if not isinstance(pid, int) or not isinstance(ticks, int) or not isinstance(halt, int):
        return None
    running = Running(
        name, str(value.get("rev")), str(value.get("fingerprint")), Handle(pid, ticks), value.get("started") is True
    )
    return Record(running, halt)
