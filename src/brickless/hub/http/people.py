"""The routes of /profiles, /changes and /dash (contract sections 6.8, 6.5 and 6.3)."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import quote

from brickless.hub.domain import jsontext, plans, scopes
from brickless.hub.domain.errors import Malformed
from brickless.hub.domain.filters import page_number
from brickless.hub.domain.jsontext import Raw
from brickless.hub.domain.values import Account
from brickless.hub.http import encoding
from brickless.hub.http.messages import Handler, Request, Response, ok
from brickless.hub.http.router import PATCH_METHODS, Route, Service
from brickless.hub.services.changes import MAX_PAGE, Changes
from brickless.hub.services.devices import Shown
from brickless.hub.services.metadata import Metadata
from brickless.hub.services.profiles import FIELDS, Profiles

_GIB = 1024**3
_MAX_PROFILE_BYTES = 3 * 1024 * 1024


class ProfileRoutes:
    """Handlers of /profiles."""

    def __init__(self, profiles: Profiles, metadata: Metadata) -> None:
        self._profiles = profiles
        self._metadata = metadata

    def service(self) -> Service:
        """The routes."""
        read, write = scopes.PROFILE_READ, scopes.PROFILE_WRITE
        routes = (
            Route("GET", "", self.list, read, summary="Profiles of accounts with public devices"),
            Route("PUT", "", self.put, write, summary="Change the caller's profile"),
            Route("GET", "config/meta", self.meta, read, summary="The account-wide user-meta"),
            Route("PUT", "config/meta", self.put_meta, write, summary="Replace the account-wide user-meta"),
            Route("GET", "{nick}", self.get, read, summary="One profile"),
        )
        return Service("/profiles/", routes, methods=PATCH_METHODS)

    @staticmethod
    def _profile(account: Account, *, mine: bool) -> Raw:
        stored = jsontext.load_stored(account.profile)
        members: dict[str, object] = {"nick": account.nick, "email": account.email if mine else ""}
        members.update({name: stored.get(name, "") for name in FIELDS})
        # What an account tells its devices is for them alone.
        members["meta"] = jsontext.struct_from_stored(account.meta) if mine else {}
        members["time-created"] = encoding.rfc3339(account.created_ms)
        members["time-modified"] = encoding.rfc3339(account.modified_ms)
        return jsontext.struct(members)

    async def list(self, request: Request) -> Response:
        """GET /profiles/?nick=^prefix."""
        limit = page_number(request.field("limit"), "limit", default=20, maximum=100)
        page = page_number(request.field("page"), "page", default=0, maximum=10**6)
        prefix = (request.field("nick") or "").lstrip("^")
        found = await self._profiles.find(request.caller, prefix, offset=page * limit, limit=limit)
        mine = request.caller.prn
        return Response(jsontext.canonical_array(self._profile(account, mine=account.prn == mine) for account in found))

    async def get(self, request: Request) -> Response:
        """GET /profiles/{nick}."""
        account = await self._profiles.get(request.caller, request.params["nick"])
        return Response(self._profile(account, mine=account.prn == request.caller.prn))

    async def put(self, request: Request) -> Response:
        """PUT /profiles/."""
        body = await request.json_object(_MAX_PROFILE_BYTES)
        return Response(self._profile(await self._profiles.put(request.caller, body), mine=True))

    async def meta(self, request: Request) -> Response:
        """GET /profiles/config/meta."""
        return Response(jsontext.struct_map(await self._metadata.account_meta(request.caller)))

    async def put_meta(self, request: Request) -> Response:
        """PUT /profiles/config/meta."""
        stored = await self._metadata.put_account_meta(request.caller, await request.json_object())
        return Response(jsontext.struct_map(stored))


class ChangeRoutes:
    """Handlers of /changes and /dash."""

    def __init__(self, changes: Changes, base_url: Callable[[Request], str], auth_status: Handler) -> None:
        self._changes = changes
        self._base_url = base_url
        self._auth_status = auth_status

    def services(self) -> tuple[Service, ...]:
        """The routes."""
        changes = (
            Route("GET", "devices", self.devices, scopes.DEVICES_READ, summary="Devices as they change"),
            Route("GET", "trails", self.trails, scopes.TRAILS_READ, summary="Trails as they change"),
            Route("GET", "steps", self.steps, scopes.TRAILS_READ, summary="Revisions as they change"),
        )
        dash = (
            Route("GET", "", self.overview, summary="The account in figures"),
            Route("GET", "auth_status", self._auth_status, summary="The claims of the token"),
        )
        return Service("/changes/", changes, methods=("GET",)), Service("/dash/", dash)

    @staticmethod
    def _moment(request: Request, name: str) -> int | None:
        text = request.field(name)
        if not text:
            return None
        try:
            return encoding.parse_rfc3339(text)
        except (ValueError, OverflowError) as error:
            raise Malformed(f"{name!r} must be a time such as 2026-01-31T12:00:00Z") from error

    def _asked(self, request: Request) -> dict[str, int | None]:
        size = page_number(request.field("page[size]"), "page[size]", default=50, maximum=MAX_PAGE)
        after, before = self._moment(request, "page[after]"), self._moment(request, "page[before]")
        if after is None and before is None:
            after = time.time_ns() // 1_000_000
        return {"limit": max(1, size), "after_ms": after, "before_ms": before if after is None else None}

    def _page(self, request: Request, asked: dict[str, int | None], items: list[tuple[int, Raw]]) -> Response:
        base = f"{self._base_url(request)}{request.path}?page[size]={asked['limit']}"

        def link(name: str, time_ms: int | None) -> str:
            return "" if time_ms is None else f"{base}&page[{name}]={quote(encoding.rfc3339(time_ms), safe=':')}"

        if items:
            links = {"next": link("after", items[-1][0]), "prev": link("before", items[0][0])}
        else:
            links = {"next": link("after", asked["before_ms"]), "prev": link("before", asked["after_ms"])}
        return ok({"links": links, "data": [item for _, item in items]})

    async def devices(self, request: Request) -> Response:
        """GET /changes/devices."""
        asked = self._asked(request)
        found = await self._changes.devices(request.caller, **asked)  # type: ignore[arg-type]  # the query's names are checked above
        return self._page(request, asked, [(item.modified_ms, encoding.device(Shown(item))) for item in found])

    async def trails(self, request: Request) -> Response:
        """GET /changes/trails."""
        asked = self._asked(request)
        found = await self._changes.trails(request.caller, **asked)  # type: ignore[arg-type]  # the query's names are checked above
        return self._page(request, asked, [(item.last_touched_ms, encoding.trail(item)) for item in found])

    async def steps(self, request: Request) -> Response:
        """GET /changes/steps."""
        asked = self._asked(request)
        found = await self._changes.steps(request.caller, **asked)  # type: ignore[arg-type]  # the query's names are checked above
        return self._page(request, asked, [(item.modified_ms, encoding.step(item)) for item in found])

    async def overview(self, request: Request) -> Response:
        """GET /dash/."""
        caller = request.caller
        if not caller.is_person:  # a device learns nothing of its siblings here
            return ok({"prn": caller.prn, "nick": caller.nick})
        found = await self._changes.overview(caller)

        def quota(name: str, actual: float, most: int | None, unit: str) -> dict[str, object]:
            scale = _GIB if unit == "GiB" else 1
            return {
                "Name": name, "Actual": round(actual / scale, 6), "Max": round((most or 0) / scale, 6), "Unit": unit,
            }  # fmt: skip

        top = []
        for row in found.top:
            progress = jsontext.load_stored(row.newest_progress)
            top.append(
                {
                    "device-id": row.device.id,
                    "nick": row.device.nick,
                    "prn": row.device.prn,
                    "message": progress.get("status-msg", ""),
                    "type": "DEVICE",
                    "status": progress.get("status", ""),
                    "last-activity": encoding.rfc3339(max(row.trail_touched_ms, row.device.modified_ms)),
                }
            )
        subscription = {
            "plan-id": plans.PREFIX + found.plan,
            "billing": {"Type": "", "AmountDue": 0, "Currency": "", "VatRegion": ""},
            "quota-stats": {
                "BANDWIDTH": quota("BANDWIDTH", found.sent_bytes, found.limits.bandwidth_bytes, "GiB"),
                "DEVICES": quota("DEVICES", found.devices, found.limits.devices, "Piece"),
                "OBJECTS": quota("OBJECTS", found.objects_bytes, found.limits.objects_bytes, "GiB"),
            },
        }
        return ok({"prn": caller.prn, "nick": caller.nick, "subscription": subscription, "top-devices": top})
