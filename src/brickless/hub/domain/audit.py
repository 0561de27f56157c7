"""Entries of the audit log and the chain that makes a changed, missing or inserted one show. Pure.

Each account has a chain of its own. An entry's hash is SHA-256 over the previous entry's hash, a line feed and the
entry's canonical JSON; the first one follows 64 zeros. Who keeps the newest hash elsewhere can prove the whole log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from brickless.hub.domain.jsontext import canonical_object

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Entry:
    """One change. `account` is whose thing changed, `actor` who did it (a PRN), `target` what, as the address says."""

    account: str
    seq: int
    time_ms: int
    actor: str
    actor_nick: str
    address: str
    action: str
    target: str
    previous: str
    hash: str = ""


def digest(entry: Entry) -> str:
    """What the entry's `hash` must be."""
    members = asdict(entry)
    del members["hash"], members["previous"]
    return hashlib.sha256(f"{entry.previous}\n".encode() + bytes(canonical_object(members.items()))).hexdigest()


def fault(entries: Iterable[Entry]) -> str:
    """What is wrong with a whole chain in ascending order; empty when it is sound."""
    previous, seq = GENESIS, 1
    for entry in entries:
        if entry.seq != seq:
            return f"entry {seq} is missing"
        if entry.previous != previous or entry.hash != digest(entry):
            return f"entry {seq} was changed, or one before it"
        previous, seq = entry.hash, seq + 1
    return ""
