"""The routes of /audit, which only read, and of /events: the stream of what happens to an account's things."""

from __future__ import annotations

import json

from brickless.hub.domain import access, events
from brickless.hub.domain.audit import Entry
from brickless.hub.domain.errors import Forbidden
from brickless.hub.domain.events import Cursor, Event
from brickless.hub.domain.filters import page_number
from brickless.hub.domain.values import Identity
from brickless.hub.http import encoding, streams
from brickless.hub.http.messages import Request, Response, ok
from brickless.hub.http.router import Route, Service
from brickless.hub.services.audit import AuditLog
from brickless.hub.services.parts import Parts
from brickless.hub.services.ports_operators import Bus

_MAX_PAGE = 500
_BATCH = 200


def _entry(value: Entry) -> dict[str, object]:
    return {
        "seq": value.seq,
        "time": encoding.rfc3339(value.time_ms),
        "actor": value.actor,
        "actor-nick": value.actor_nick,
        "address": value.address,
        "action": value.action,
        "target": value.target,
        "previous": value.previous,
        "hash": value.hash,
    }


class AuditRoutes:
    """Handlers of /audit."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    def service(self) -> Service:
        """The routes."""
        routes = (
            Route("GET", "", self.list, summary="The audit log, newest entries first"),
            Route("GET", "verify", self.verify, summary="Whether the audit log is whole"),
        )
        return Service("/audit/", routes)

    async def list(self, request: Request) -> Response:
        """GET /audit/."""
        limit = max(1, page_number(request.field("limit"), "limit", default=100, maximum=_MAX_PAGE))
        before = page_number(request.field("before"), "before", default=0, maximum=10**12)
        hub = request.field("hub") is not None
        found = await self._log.entries(request.caller, before=before or None, limit=limit, hub=hub)
        return ok([_entry(value) for value in found])

    async def verify(self, request: Request) -> Response:
        """GET /audit/verify."""
        count, newest, fault = await self._log.verify(request.caller, hub=request.field("hub") is not None)
        return ok({"entries": count, "hash": newest, "whole": not fault, "fault": fault})


class EventRoutes:
    """Handler of /events."""

    def __init__(self, parts: Parts, bus: Bus) -> None:
        self._parts = parts
        self._bus = bus

    def service(self) -> Service:
        """The route."""
        return Service("/events/", (Route("GET", "", self.stream, summary="What happens, as server-sent events"),))

    async def stream(self, request: Request) -> Response:
        """GET /events/: after `Last-Event-ID` (or `after`), or from now on."""
        caller = request.caller
        if not caller.is_person:
            raise Forbidden("Only people follow events")
        patterns = tuple(filter(None, (request.field("types") or "*").split(",")))
        events.check_patterns(patterns)
        place = request.header("last-event-id") or request.field("after")
        if place:
            cursor = events.parse_cursor(place)
        else:
            async with self._parts.db.read() as session:
                cursor = await session.events.end()
        hello = streams.RETRY + f"id: {cursor}\n: from here on\n\n".encode()

        async def look() -> list[bytes] | None:
            nonlocal cursor
            found = await self._after(caller, cursor)
            cursor = found[-1].cursor if found else cursor
            return None if found is None else [_shown(event, patterns) for event in found]

        body = streams.stream(request, self._bus, (caller.account,), hello, look)
        return Response(body, content_type=streams.CONTENT_TYPE, headers=(("Cache-Control", "no-store"),))

    async def _after(self, caller: Identity, cursor: Cursor) -> list[Event] | None:
        """What follows; None when the caller does not belong to the organisation any more."""
        async with self._parts.db.read() as session:
            if caller.actor:
                role = await session.organisations.role(caller.account, caller.actor)
                if role is None or not access.granted(role, access.ROUTES["GET /events/"]):
                    return None
            return await session.events.after(caller.account, cursor, limit=_BATCH)


def _shown(event: Event, patterns: tuple[str, ...]) -> bytes:
    return server_sent(event) if events.matches(event.kind, patterns) else streams.NOT_SHOWN


def server_sent(event: Event) -> bytes:
    """The event for a stream: its id is where the next connection goes on."""
    members = events.cloud_event(event)
    data = json.dumps({name: members[name] for name in ("type", "subject", "time", "data")})
    return f"id: {event.cursor}\nevent: {event.kind}\ndata: {data}\n\n".encode()
