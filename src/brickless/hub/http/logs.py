"""The routes of /logs (contract section 5)."""

from __future__ import annotations

import json

from brickless.hub.domain import jsontext
from brickless.hub.domain.errors import Malformed
from brickless.hub.domain.filters import page_number
from brickless.hub.domain.values import LogEntry
from brickless.hub.http import encoding, streams
from brickless.hub.http.messages import Request, Response, ok, parse_query
from brickless.hub.http.router import Route, Service
from brickless.hub.services.logs import MAX_PAGE, LogPage, Logs
from brickless.hub.services.parts import Parts
from brickless.hub.services.ports import LogQuery
from brickless.hub.services.ports_operators import Bus, logs_of

_MAX_WORDS = 100


def _words(request: Request, name: str) -> tuple[str, ...]:
    words = tuple(filter(None, (request.field(name) or "").split(",")))
    if len(words) > _MAX_WORDS:
        raise Malformed(f"{name!r} lists more than {_MAX_WORDS} words")
    return words


def _time(request: Request, name: str) -> int | None:
    text = request.field(name)
    if not text:
        return None
    try:
        return encoding.parse_rfc3339(text)
    except ValueError as error:
        raise Malformed(f"{name!r} must be a time such as 2026-01-31T12:00:00Z") from error


def _page(page: LogPage) -> Response:
    body: dict[str, object] = {"start": page.start, "page": page.page, "count": page.total}
    if page.cursor:
        body["next-cursor"] = page.cursor
    if page.entries:
        body["entries"] = [encoding.log_entry(entry) for entry in page.entries]
    return ok(body)


def _server_sent(line: LogEntry) -> bytes:
    return f"id: {line.id}\nevent: log\ndata: {json.dumps(encoding.log_entry(line))}\n\n".encode()


class LogRoutes:
    """Handlers of /logs."""

    def __init__(self, parts: Parts, logs: Logs, bus: Bus) -> None:
        self._parts = parts
        self._bus = bus
        self._logs = logs

    def service(self) -> Service:
        """The routes."""
        routes = (
            Route("POST", "", self.add, summary="Lines of a device"),
            Route("GET", "", self.find, summary="Lines of the caller's devices"),
            Route("GET", "live", self.live, summary="Lines of a device as it sends them, as server-sent events"),
            Route("GET", "cursor", self.resume, summary="The next page of a cursor"),
            Route("POST", "cursor", self.resume, summary="The next page of a cursor"),
        )
        return Service("/logs/", routes)

    async def add(self, request: Request) -> Response:
        """POST /logs/: one entry or an array of them."""
        limit = self._parts.policy.max_log_body_bytes
        await self._logs.add(request.caller, jsontext.parse(await request.body(limit), max_bytes=limit))
        return ok({"status": "ok"})

    async def find(self, request: Request) -> Response:
        """GET /logs/."""
        names = (request.field("sort") or "").split(",")
        query = LogQuery(
            owner="",
            revs=_words(request, "rev"),
            plats=_words(request, "plat"),
            sources=_words(request, "src"),
            levels=_words(request, "lvl"),
            before_ms=_time(request, "before"),
            after_ms=_time(request, "after"),
            sort=tuple((name.lstrip("-+ "), name.startswith("-")) for name in names if name)[:8],
            start=page_number(request.field("start"), "start", default=0, maximum=10**9),
            page=max(1, page_number(request.field("page"), "page", default=50, maximum=MAX_PAGE)),
        )
        cursor = bool(request.field("cursor"))
        return _page(await self._logs.find(request.caller, query, _words(request, "dev"), cursor=cursor))

    async def live(self, request: Request) -> Response:
        """GET /logs/live: lines of the device `dev` behind `Last-Event-ID` (or `after`), or from now on."""
        caller = request.caller
        device = await self._logs.device(caller, request.field("dev") or "")
        place = request.header("last-event-id") or request.field("after")
        line_id = page_number(place, "after", default=0, maximum=2**62) if place else await self._logs.end()

        async def look() -> list[bytes] | None:
            nonlocal line_id
            lines = await self._logs.after(caller, device, line_id)
            line_id = lines[-1].id if lines else line_id
            return None if lines is None else [_server_sent(line) for line in lines]

        hello = streams.RETRY + f"id: {line_id}\n: from here on\n\n".encode()
        body = streams.stream(request, self._bus, (logs_of(device),), hello, look)
        return Response(body, content_type=streams.CONTENT_TYPE, headers=(("Cache-Control", "no-store"),))

    async def resume(self, request: Request) -> Response:
        """GET or POST /logs/cursor."""
        raw = await request.body()
        token = request.field("next-cursor") or ""
        if raw.lstrip().startswith(b"{"):
            body = jsontext.parse_object(raw, max_bytes=1024 * 1024)
            token = jsontext.text_field(body, "next-cursor", max_chars=16 * 1024)
        elif raw:
            token = dict(parse_query(raw)).get("next-cursor", "")
        if not token:
            raise Malformed("A body with 'next-cursor' is expected")
        return _page(await self._logs.resume(request.caller, token))
