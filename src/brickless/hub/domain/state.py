"""What the hub demands of a state before a device is told to run it (contract section 3.2). Pure.

The hub refuses what every device would refuse: an unknown format, a path that leaves the revision, a value that is
neither inline JSON nor the SHA-256 of an object, a manifest that does not parse. What it does not know it keeps.
"""

from __future__ import annotations

from typing import NamedTuple

from brickless.core import canonical
from brickless.core.errors import BricklessError, HostileInputError
from brickless.core.state import SPEC_KEY, SYSTEM_SPEC, check_entries, is_inline_json, is_object_id, validate
from brickless.hub.domain.errors import Malformed, Unprocessable
from brickless.hub.domain.jsontext import Value, parse


class CheckedState(NamedTuple):
    """A state that passed. `objects` are the distinct SHA-256 that it names, sorted; `raw` is canonical JSON."""

    raw: bytes
    sha: str
    objects: tuple[str, ...]


def is_sha(text: str) -> bool:
    """Whether `text` is a SHA-256 in lower-case hex."""
    return is_object_id(text)


def check(value: Value) -> CheckedState:
    """Check a decoded state. Raises Malformed when it is no object, Unprocessable with the place of the fault else."""
    if not isinstance(value, dict):
        raise Malformed("A state must be a JSON object")
    try:
        check_entries(value)
        if value.get(SPEC_KEY) == SYSTEM_SPEC:
            validate(value)
    except HostileInputError as error:
        raise Unprocessable(f"A device would refuse this state: {error}") from error
    raw = canonical.dumps(value)
    return CheckedState(raw, canonical.sha256_hex(raw), tuple(sorted(set(_objects(value).values()))))


def _objects(value: dict[str, Value]) -> dict[str, str]:
    return {
        key: item
        for key, item in value.items()
        if isinstance(item, str) and key != SPEC_KEY and not is_inline_json(key, item)
    }


def objects_by_path(raw: bytes) -> dict[str, str]:
    """Path -> SHA-256 for every object that a stored state names."""
    value = canonical.loads(raw)
    if not isinstance(value, dict):
        raise BricklessError("A stored state is not a JSON object.", context="hub database")
    return _objects(value)


def parse_body(data: bytes, *, max_bytes: int) -> CheckedState:
    """Parse and check a state that is a whole request body; an empty body is the empty state."""
    if not data.strip():
        return check({})
    return check(parse(data, max_bytes=max_bytes, what="the state"))
