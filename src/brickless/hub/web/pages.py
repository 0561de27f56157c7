"""The dashboard: pages for people, kept live by server-sent events; without scripts they stand still."""

from __future__ import annotations

import json
from collections.abc import Callable

from brickless.hub.domain.errors import Forbidden
from brickless.hub.domain.events import Event
from brickless.hub.domain.jsontext import load_stored
from brickless.hub.http import streams
from brickless.hub.http.messages import Request, Response
from brickless.hub.http.router import Route, Service
from brickless.hub.services.dashboard import Dashboard
from brickless.hub.services.ports_operators import Bus
from brickless.hub.web.device_pages import DevicePages
from brickless.hub.web.fleet_pages import FleetPages
from brickless.hub.web.settings_pages import SettingsPages
from brickless.hub.web.site import HEADERS, NO_STORE, Site
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
        """GET events: what changed, for pages that show it; with `logs`, also the lines of that device behind `line`.

        One stream a page: browsers keep few connections to one host.
        """
        visit = await self.site.visit(request)
        if visit is None:
            raise Forbidden("Sign in first")
        tail = await self._devices.tail(request, visit) if request.field("logs") else None
        cursor = await self._dashboard.end_of_events()

        async def look() -> list[bytes] | None:
            nonlocal cursor
            found = await self._dashboard.events_after(visit.caller, cursor, limit=_BATCH)
            lines = await tail.look() if tail is not None else []
            if found is None or lines is None:
                return None
            cursor = found[-1].cursor if found else cursor
            return [*_changes(found), *lines]

        names = (visit.caller.account, *((tail.name,) if tail is not None else ()))
        body = streams.stream(request, self._bus, names, streams.RETRY + b"\n", look)
        return Response(body, content_type=streams.CONTENT_TYPE, headers=(*HEADERS, NO_STORE))


def _changes(found: list[Event]) -> list[bytes]:
    """What a page is told of events: the last of each thing and kind is enough for looking again."""
    newest = {(event.kind, event.subject): event for event in found}
    return [_change(event) for event in newest.values()]


def _change(event: Event) -> bytes:
    data = load_stored(event.data)
    text = f"Revision {data.get('rev')}: {data.get('status')}" if event.kind == "step.progress" else ""
    shown = json.dumps({"kind": event.kind, "subject": event.subject, "text": text})
    return f"event: change\ndata: {shown}\n\n".encode()
