"""Events: what happened to an account's things, in the order in which it became true. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from brickless.hub.domain.errors import Malformed
from brickless.hub.domain.jsontext import Value, load_stored
from brickless.hub.domain.times import rfc3339

TYPE_PREFIX = "io.brickless."
#: What there is to be told of, with what `subject` and `data` hold; docs/reference/events.md says more.
KINDS: dict[str, str] = {
    "device.created": "a device was registered for, or claimed by, the account",
    "device.changed": "its name, visibility or user-meta changed",
    "device.removed": "it was deleted",
    "step.posted": "a revision was posted for a device",
    "step.progress": "a device told how a revision goes",
    "release.created": "a release was made",
    "rollout.changed": "a rollout started, went on, was paused, stopped or ended",
    "webhook.ping": "somebody tried a webhook",
}
_CURSOR = re.compile(r"(\d{1,19})-(\d{1,19})\Z")


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in the stream: (transaction, number). Both only grow for whoever reads in this order."""

    xact: int = 0
    id: int = 0

    def __str__(self) -> str:
        return f"{self.xact}-{self.id}"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `data` is JSON text."""

    cursor: Cursor
    account: str
    kind: str
    subject: str
    data: str
    time_ms: int


def parse_cursor(text: str) -> Cursor:
    """The place that `str(cursor)` wrote. Raises Malformed."""
    found = _CURSOR.match(text)
    if found is None:
        raise Malformed("An event's id looks like 1234-567")
    return Cursor(int(found.group(1)), int(found.group(2)))


def matches(kind: str, patterns: tuple[str, ...]) -> bool:
    """Whether one of `device.changed`, `device.*` or `*` names the kind."""
    return any(
        pattern in {"*", kind} or (pattern.endswith(".*") and kind.startswith(pattern[:-1])) for pattern in patterns
    )


def check_patterns(patterns: tuple[str, ...]) -> None:
    """Raise Malformed for a pattern that names no kind."""
    for pattern in patterns:
        if not any(matches(kind, (pattern,)) for kind in KINDS):
            raise Malformed(f"{pattern[:60]!r} names no kind of event; there are {', '.join(KINDS)}, and device.* or *")


def cloud_event(event: Event) -> dict[str, Value]:
    """The event as CloudEvents 1.0 in JSON; `source` is the PRN of the account."""
    return {
        "specversion": "1.0",
        "id": str(event.cursor),
        "source": event.account,
        "type": f"{TYPE_PREFIX}{event.kind}",
        "subject": event.subject,
        "time": rfc3339(event.time_ms),
        "datacontenttype": "application/json",
        "data": load_stored(event.data),
    }
