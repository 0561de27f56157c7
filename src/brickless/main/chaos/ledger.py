"""What a campaign has found out already: a line of JSON a state, beside its recording, so that it can be gone on with.

    judged.jsonl    {"case", "state", "faults"}
    booted.jsonl    {"case", "state", "page", "boots", "seconds", "faults"}

A line is written at once, in one call: several processes may work at one recording, and a torn last line (the power of
this machine was cut) counts for nothing. The verdicts are those of the code that gave them: who changed the judge, or
the device, begins anew.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

JUDGED, BOOTED = "judged.jsonl", "booted.jsonl"


class Ledger:
    """One of the two files. `known` has what it says: state -> line; several threads may add."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Read it; without `resume` begin with an empty one."""
        self._path = path
        self._lock = threading.Lock()
        if not resume:
            path.unlink(missing_ok=True)
        self.known: dict[str, Mapping[str, Any]] = {}
        raw = path.read_bytes() if path.exists() else b""
        for line in raw.splitlines():
            entry = _entry(line)
            if entry is not None:
                self.known[str(entry["state"])] = entry
        # A torn line is ended, so that the next one stands by itself.
        self._before = b"" if not raw or raw.endswith(b"\n") else b"\n"

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write one result down. Raises `OSError`."""
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                os.write(fd, self._before + line)
                self._before = b""
            finally:
                os.close(fd)
            self.known[str(entry["state"])] = entry


def _entry(line: bytes) -> Mapping[str, Any] | None:
    """What a line says; None for one that was torn."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "state" in entry else None
