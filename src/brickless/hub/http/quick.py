"""The shortest way of an idle poll: from its bytes on the connection to its remembered answer, past the framework.

The ordinary way teaches: when a handler answered a device's poll from memory, its target and Authorization are
remembered by their digest. The next request with the very same two is answered here, if the token is still good and the
answer is still remembered (`services.polls`: whoever writes makes it forgotten). Everything else goes the ordinary way,
as does every request with a header that could change its answer. See docs/adr/0044-the-shortest-way-of-a-poll.md.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from typing import NamedTuple

from brickless.hub.http.messages import Request, Response
from brickless.hub.http.metrics import Metrics
from brickless.hub.services.polls import PollCache
from brickless.hub.services.presence import Presence

_MAX_KNOWN = 400_000
_HEAD = (
    b"HTTP/1.1 200 OK\r\n%bcontent-type: application/json; charset=utf-8\r\nx-powered-by: go-json-rest\r\n"
    b"x-runtime: %.6f\r\n%bcontent-length: %d\r\n\r\n"
)
_CANONICAL = b"phjsonformat: gibson042-canonicaljson\r\n"


class _Poll(NamedTuple):
    """Whose poll it is and which remembered answer it gets."""

    expires_s: int
    device_id: str
    kind: str
    variant: str
    route: str
    canonical: bool


def _key(target: bytes, authorization: bytes) -> bytes:
    return hashlib.blake2b(target + b"\0" + authorization, digest_size=24).digest()


class QuickPolls:
    """Polls that were answered from memory before; bounded, and dropped all at once when there are too many."""

    def __init__(self, polls: PollCache, presence: Presence, metrics: Metrics) -> None:
        self._polls = polls
        self._presence = presence
        self._metrics = metrics
        self._known: dict[bytes, _Poll] = {}
        self.stopped = False

    def learn(self, request: Request, response: Response, *, canonical: bool) -> None:
        """An ordinary answer; only those that say which remembered one they are teach anything."""
        identity, poll = request.identity, response.poll
        authorization = request.headers.get(b"authorization")
        if poll is None or identity is None or identity.actor or authorization is None:
            return
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        target = request.path.encode("latin-1")
        if request.query_string:
            target += b"?" + request.query_string
        self._known[_key(target, authorization)] = _Poll(identity.expires_s, *poll, request.route, canonical)

    def answer(
        self, target: bytes, authorization: bytes, address: str, headers: Iterable[tuple[bytes, bytes]]
    ) -> bytes | None:
        """The whole answer with the server's own `headers`; None sends the request the ordinary way."""
        started_s = time.perf_counter()
        known = self._known.get(_key(target, authorization))
        if known is None or self.stopped or known.expires_s <= time.time():
            return None
        body = self._polls.get(known.device_id, known.kind, known.variant)
        if body is None:
            return None
        self._presence.seen(known.device_id, address)
        own = b"".join([b"%b: %b\r\n" % header for header in headers])
        elapsed_s = time.perf_counter() - started_s
        self._metrics.observe("GET", known.route, 200, elapsed_s)
        return _HEAD % (own, elapsed_s, _CANONICAL if known.canonical else b"", len(body)) + body
