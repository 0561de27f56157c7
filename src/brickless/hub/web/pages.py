"""The dashboard: pages for people, kept live by server-sent events; without scripts they stand still."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable

from brickless.hub.domain.errors import Forbidden
from brickless.hub.domain.events import Event
from brickless.hub.domain.jsontext import load_stored
from brickless.hub.http.audit import woken
from brickless.hub.http.messages import Request, Response
from brickless.hub.http.router import Route, Service
from brickless.hub.services.dashboard import Dashboard
from brickless.hub.services.ports_operators import Bus
from brickless.hub.web.device_pages import DevicePages
from brickless.hub.web.fleet_pages import FleetPages
from brickless.hub.web.settings_pages import SettingsPages
from brickless.hub.web.site import HEADERS, NO_STORE, Site, Visit
from brickless.hub.web.use_cases import UseCases

_BATCH = 500


class Pages:
    """Handlers of `/` and of what lies below `/dash-ui/`."""

    def __init__(
        self,
        dashboard: Dashboard,
        use: UseCases,
        bus: Bus,
        base_url: Callable[[Request], str],
        *,
        oidc: str = "",
    ) -> None:
        self._dashboard = dashboard
        self._bus = bus
        self.site = site = Site(dashboard, oidc=oidc)
        self._devices = DevicePages(site, use, base_url)
        self._others = (FleetPages(site, use), SettingsPages(site, use, base_url))

    def services(self, *more: Route) -> tuple[Service, ...]:
        """The first page, and the others; `more` are other routes below `/dash-ui/`."""
        front = self._devices.front()
        first = (front, Route("HEAD", "", front.handler, public=True))
        others = [route for pages in self._others for route in pages.routes()]
        parts = (
            Route("POST", "sign-in", self.site.sign_in, public=True),
            Route("POST", "sign-out", self.site.sign_out, public=True),
            self.site.post("act", self.site.act),
            Route("GET", "events", self.events, public=True),
            Route("GET", "static/{name}", self.site.static, public=True),
            *self._devices.routes(),
            *others,
            *more,
        )
        return Service("/", first, bearer=False), Service("/dash-ui/", parts, bearer=False)

    async def events(self, request: Request) -> Response:
        """GET events: what changed, for pages that show it."""
        visit = await self.site.visit(request)
        if visit is None:
            raise Forbidden("Sign in first")
        return Response(self._stream(request, visit), content_type="text/event-stream", headers=(*HEADERS, NO_STORE))

    async def _stream(self, request: Request, visit: Visit) -> AsyncGenerator[bytes, None]:
        gone = asyncio.create_task(request.gone())
        try:
            yield b"retry: 3000\n\n"
            cursor = await self._dashboard.end_of_events()
            with self._bus.following(visit.caller.account) as waiting:
                while not self._bus.closed and not gone.done():
                    waiting.clear()
                    found = await self._dashboard.events_after(visit.caller, cursor, limit=_BATCH)
                    if found is None:
                        return
                    for text in _changes(found):
                        yield text
                    cursor = found[-1].cursor if found else cursor
                    if not found and not await woken(waiting, gone):
                        yield b": nothing new\n\n"
        finally:
            gone.cancel()


def _changes(found: list[Event]) -> list[bytes]:
    """What a page is told of events: the last of each thing and kind is enough for looking again."""
    newest = {(event.kind, event.subject): event for event in found}
    return [_change(event) for event in newest.values()]


def _change(event: Event) -> bytes:
    data = load_stored(event.data)
    text = f"Revision {data.get('rev')}: {data.get('status')}" if event.kind == "step.progress" else ""
    shown = json.dumps({"kind": event.kind, "subject": event.subject, "text": text})
    return f"event: change\ndata: {shown}\n\n".encode()
