"""The routes of /apps and /subscriptions (contract sections 6.1 and 6.4)."""

from __future__ import annotations

import json
import time

from brickless.hub.domain import jsontext, plans, scopes
from brickless.hub.domain.apps import BASE_SERVICE, App, Scope, parse_request
from brickless.hub.domain.errors import Malformed, Precondition
from brickless.hub.domain.jsontext import Raw, text_field
from brickless.hub.domain.plans import Subscription
from brickless.hub.http import encoding
from brickless.hub.http.messages import Request, Response, ok
from brickless.hub.http.router import PATCH_METHODS, Route, Service
from brickless.hub.services.apps import Apps
from brickless.hub.services.subscriptions import Subscriptions

_MAX_APP_BYTES = 64 * 1024
_NOBODY = "0" * 24


def _scope(value: Scope) -> dict[str, object]:
    members: dict[str, object] = {"id": value.id, "service": value.service}
    if value.description:
        members["description"] = value.description
    if value.required:
        members["required"] = True
    return members


def base_scope(full: str) -> dict[str, object]:
    """A base scope as /apps/scopes and the list of API tokens show it."""
    word = full.removeprefix(scopes.PREFIX)
    return {"id": word, "service": BASE_SERVICE, "description": dict(scopes.BASE)[word]}


def _app(value: App, secret: str = "", *, own: bool = True) -> Raw:
    """An application; others see what it calls itself and what it offers."""
    now = encoding.rfc3339(time.time_ns() // 1_000_000)
    members: dict[str, object] = {
        "id": value.id if own else _NOBODY,
        "name": value.name,
        "logo": value.logo,
        "type": value.type if own else "",
        "nick": value.nick,
        "prn": value.prn,
        "owner": value.owner if own else "",
    }
    if secret:
        members["secret"] = secret
    if own:
        members["redirect_uris"] = list(value.redirect_uris)
    members["scopes"] = [_scope(scope) for scope in value.scopes]
    if value.exposed_scopes:
        members["exposed_scopes"] = [_scope(scope) for scope in value.exposed_scopes]
    members["ExposedScopesLength"] = len(value.exposed_scopes)
    members["time-created"] = encoding.rfc3339(value.created_ms) if own else now
    members["time-modified"] = encoding.rfc3339(value.modified_ms) if own else now
    if value.deleted_ms:
        members["deleted-at"] = encoding.rfc3339(value.deleted_ms)
    return jsontext.struct(members)


def _name(request: Request) -> str:
    """The application that the path names: a PRN has a slash, which arrives as `%2F` and stays that in parameters."""
    return request.params["app"].replace("%2F", "/")


class AppRoutes:
    """Handlers of /apps."""

    def __init__(self, apps: Apps) -> None:
        self._apps = apps

    def service(self) -> Service:
        """The routes."""
        routes = (
            Route("GET", "scopes", self.scopes, public=True, summary="The scopes that exist"),
            Route("POST", "", self.create, summary="Register an application"),
            Route("GET", "", self.list, summary="The caller's applications"),
            Route("GET", "{app}", self.get, summary="One application, by id, PRN or nick"),
            Route("PUT", "{app}", self.update, summary="Replace an application's registration"),
            Route("DELETE", "{app}", self.delete, summary="Delete an application"),
        )
        return Service("/apps/", routes, methods=PATCH_METHODS)

    async def scopes(self, request: Request) -> Response:
        """GET /apps/scopes."""
        service = request.field("serviceID")
        if service:
            return ok([_scope(scope) for scope in (await self._apps.get(service)).scopes])
        base = [base_scope(scopes.PREFIX + word) for word, _ in scopes.BASE]
        return ok([*base, *map(_scope, await self._apps.exposed())])

    async def create(self, request: Request) -> Response:
        """POST /apps/."""
        wanted = parse_request(await request.json_object(_MAX_APP_BYTES))
        return Response(_app(*await self._apps.create(request.caller, wanted)))

    async def list(self, request: Request) -> Response:
        """GET /apps/."""
        found = await self._apps.of(request.caller, request.field("serviceID") or "")
        return Response(jsontext.canonical_array(_app(app, own=app.owner == request.caller.prn) for app in found))

    async def get(self, request: Request) -> Response:
        """GET /apps/{app}."""
        app = await self._apps.get(_name(request))
        return Response(_app(app, own=app.owner == request.caller.prn))

    async def update(self, request: Request) -> Response:
        """PUT /apps/{app}."""
        wanted = parse_request(await request.json_object(_MAX_APP_BYTES))
        return Response(_app(*await self._apps.update(request.caller, _name(request), wanted)))

    async def delete(self, request: Request) -> Response:
        """DELETE /apps/{app}."""
        return Response(_app(await self._apps.delete(request.caller, _name(request))))


def _subscription(value: Subscription) -> dict[str, object]:
    members: dict[str, object] = {
        "id": value.id,
        "prn": f"{plans.PREFIX}/{value.id}",
        "type": plans.PREFIX + value.plan,
        "subject": value.subject,
        "issuer": value.issuer,
        "service": plans.PREFIX,
        "last-modified": encoding.rfc3339(value.modified_ms),
        "time-created": encoding.rfc3339(value.created_ms),
    }
    history = [
        {"type": plans.PREFIX + entry["plan"], "attr": entry["attrs"], "last-modified": encoding.rfc3339(entry["ms"])}
        for entry in json.loads(value.history)
    ]
    if history:
        members["history"] = history
    attrs = json.loads(value.attrs)
    if attrs:
        members["attr"] = attrs
    return members


class SubscriptionRoutes:
    """Handlers of /subscriptions."""

    def __init__(self, subscriptions: Subscriptions) -> None:
        self._subscriptions = subscriptions

    def service(self) -> Service:
        """The routes."""
        routes = (
            Route("GET", "", self.list, summary="The caller's subscription"),
            Route("PUT", "admin/subscription", self.change, summary="Give an account a plan"),
        )
        return Service("/subscriptions/", routes, strip_slash=True)

    async def list(self, request: Request) -> Response:
        """GET /subscriptions/."""
        found = [_subscription(await self._subscriptions.of(request.caller))]
        return ok({"Start": 0, "Page": -1, "Size": len(found), "Subs": found})

    async def change(self, request: Request) -> Response:
        """PUT /subscriptions/admin/subscription."""
        try:
            body = await request.json_object(_MAX_APP_BYTES)
            subject, plan = text_field(body, "subject", max_chars=200), text_field(body, "plan", max_chars=100)
        except Malformed as error:
            raise Precondition(error.message) from error
        attrs = body.get("attrs") or {}
        if not isinstance(attrs, dict):
            raise Precondition("'attrs' must be an object")
        changed = await self._subscriptions.change(request.caller, subject, plan, dict(attrs))
        return ok(_subscription(changed))
