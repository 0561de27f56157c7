"""The wire as an OpenAPI 3.1 document, made from the routes that are served: it cannot name one that is not there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from brickless.hub.domain.access import Role
from brickless.hub.http import fleet_bodies, openapi_events
from brickless.hub.http.router import Route, Service

_TEXT: dict[str, Any] = {"type": "string"}
_MAP: dict[str, Any] = {"type": "object"}
_ID: dict[str, Any] = {"type": "string", "pattern": "^[0-9a-f]{24}$"}
_SHA: dict[str, Any] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_ROLE: dict[str, Any] = {"type": "string", "enum": [role.value for role in Role]}
_PAGE: dict[str, Any] = {"type": "integer", "minimum": 0}


def _object(required: tuple[str, ...] = (), /, **members: Any) -> dict[str, Any]:
    return {"type": "object", "properties": members, "required": list(required)}


_DEVICE = _object(nick=_TEXT, secret=_TEXT, public={"type": "boolean"}, **{"user-meta": _MAP, "device-meta": _MAP})
_OBJECT = _object(("sha256sum",), objectname=_TEXT, size=_TEXT, sha256sum=_SHA, **{"mime-type": _TEXT})
_LINE = _object(
    tsec={"type": "integer"}, tnano={"type": "integer"}, rev=_TEXT, plat=_TEXT, src=_TEXT, lvl=_TEXT, msg=_TEXT
)
_ACCOUNT = _object(("email", "nick", "password"), email=_TEXT, nick=_TEXT, password=_TEXT)
_WEBHOOK = _object(url=_TEXT, events={"type": "array", "items": _TEXT}, enabled={"type": "boolean"})

_TEXTS: dict[str, Any] = {"type": "array", "items": _TEXT}
_SCOPES: dict[str, Any] = {"type": "array", "items": _object(("id",), id=_TEXT, service=_TEXT, description=_TEXT)}
_APP = _object(
    ("type", "redirect_uris", "scopes"),
    type={"type": "string", "enum": ["public", "confidential", "pkce"]},
    nick=_TEXT, name=_TEXT, logo=_TEXT, redirect_uris=_TEXTS, scopes=_SCOPES, exposed_scopes=_SCOPES,
)  # fmt: skip
_ASKED = _object(
    ("service", "scopes"), service=_TEXT, scopes=_TEXT, redirect_uri=_TEXT, state=_TEXT, response_type=_TEXT,
    auth_code=_TEXT,
)  # fmt: skip

#: What a request's body holds, by method and path.
BODIES: dict[str, dict[str, Any]] = {
    "POST /auth/login": _object(("username", "password"), username=_TEXT, password=_TEXT, scope=_TEXT),
    "POST /auth/accounts": _ACCOUNT,
    "POST /auth/recover": _object(("email",), email=_TEXT),
    "POST /auth/password": _object(("token", "password"), token=_TEXT, password=_TEXT),
    "POST /devices/": _DEVICE,
    "PUT /devices/{id}": _DEVICE,
    "PATCH /devices/{id}": _object(nick=_TEXT),
    "POST /devices/tokens": _object(
        nick=_TEXT, ovmode=_object(mode=_TEXT, root_of_trust=_TEXT), **{"default-user-meta": _MAP}
    ),
    "PUT /devices/{id}/user-meta": _MAP,
    "PATCH /devices/{id}/user-meta": _MAP,
    "PUT /devices/{id}/device-meta": _MAP,
    "PATCH /devices/{id}/device-meta": _MAP,
    "POST /trails/": _MAP,
    "POST /trails/{id}/steps": _object(
        ("rev", "state"), rev={"type": "integer", "minimum": -1}, state=_MAP, meta=_MAP, **{"commit-msg": _TEXT}
    ),
    "PUT /trails/{id}/steps/{rev}/state": _MAP,
    "PUT /trails/{id}/steps/{rev}/meta": _MAP,
    "PUT /trails/{id}/steps/{rev}/progress": _object(
        ("status",), status=_TEXT, progress={"type": "integer"}, **{"status-msg": _TEXT}
    ),
    "POST /trails/{id}/steps/{rev}/objects": _OBJECT,
    "POST /objects/": _OBJECT,
    "PUT /objects/{sha}": _object(("owner", "sha256sum"), objectname=_TEXT, owner=_TEXT, sha256sum=_SHA),
    "PUT /profiles/": _object(fullName=_TEXT, bio=_TEXT, picture=_TEXT, website=_TEXT),
    "PUT /profiles/config/meta": _MAP,
    "POST /tokens/": _object(
        ("scopes",), name=_TEXT, type=_TEXT, scopes={"type": "array", "items": _TEXT}, **{"expire-at": _TEXT}
    ),
    "POST /apps/": _APP,
    "PUT /apps/{app}": _APP,
    "PUT /subscriptions/admin/subscription": _object(("subject", "plan"), subject=_TEXT, plan=_TEXT, attrs=_MAP),
    "POST /auth/authorize": _ASKED,
    "POST /auth/code": _ASKED,
    "POST /auth/token": _object(("access-code",), comment=_TEXT, **{"access-code": _TEXT}),
    "POST /auth/oauth/token": _object(
        ("grant_type", "access-code", "code_verifier", "redirect_uri"),
        grant_type=_TEXT,
        code_verifier=_TEXT,
        redirect_uri=_TEXT,
        client_id=_TEXT,
        **{"access-code": _TEXT},
    ),
    "POST /orgs/": _object(("nick",), nick=_TEXT),
    "POST /orgs/accept": _object(("token",), token=_TEXT),
    "PUT /orgs/{org}/members/{member}": _object(("role",), role=_ROLE),
    "POST /orgs/{org}/invitations": _object(("email", "role"), email=_TEXT, role=_ROLE),
    "POST /webhooks/": _WEBHOOK,
    "PUT /webhooks/{id}": _WEBHOOK,
    "POST /logs/": {"oneOf": [_LINE, {"type": "array", "items": _LINE}]},
    "POST /logs/cursor": _object(("next-cursor",), **{"next-cursor": _TEXT}),
    **fleet_bodies.BODIES,
}
#: What a request's query may hold, by method and path.
QUERIES: dict[str, dict[str, Any]] = {
    "GET /apps/": {"serviceID": _TEXT},
    "GET /apps/scopes": {"serviceID": _TEXT},
    "GET /auth/oauth/authorize": {
        "client_id": _TEXT, "redirect_uri": _TEXT, "code_challenge": _TEXT, "code_challenge_method": _TEXT,
        "scope": _TEXT, "state": _TEXT, "response_type": _TEXT,
    },
    "PUT /callbacks/devices/{id}": {"timemodified": _TEXT},
    "PUT /callbacks/steps/{id}": {"timemodified": _TEXT},
    "GET /auth/accounts": {"asadmin": _TEXT},
    "GET /auth/verify": {"id": _ID, "challenge": _TEXT},
    "GET /devices/": {"nick": _TEXT, "owner": _TEXT, "owner-nick": _TEXT, "page[size]": _PAGE, "page[offset]": _PAGE},
    "GET /devices/{id}": {"owner": _TEXT, "owner-nick": _TEXT},
    "PUT /devices/{id}": {"challenge": _TEXT},
    "GET /trails/summary": {"sort": _TEXT, "filter": _TEXT},
    "GET /trails/{id}/steps": {
        "progress.status": _TEXT, "fields": _TEXT, "page[size]": _PAGE, "page[offset]": _PAGE, "page[after]": _PAGE,
    },
    "GET /trails/{id}/steps/{rev}": {"fields": _TEXT},
    "GET /logs/live": {"dev": _TEXT, "after": _TEXT},
    "GET /audit/": {"limit": _PAGE, "before": _PAGE, "hub": _TEXT},
    "GET /audit/verify": {"hub": _TEXT},
    "GET /events/": {"after": _TEXT, "types": _TEXT},
    "GET /tokens/": {"page[size]": _PAGE, "page[offset]": _PAGE},
    "GET /exports/{owner}/{device}/{rev}/{filename}": {"parts": _TEXT},
    "GET /profiles/": {"nick": _TEXT, "page": _PAGE, "limit": _PAGE},
    "GET /changes/devices": {"page[size]": _PAGE, "page[after]": _TEXT, "page[before]": _TEXT},
    "GET /changes/trails": {"page[size]": _PAGE, "page[after]": _TEXT, "page[before]": _TEXT},
    "GET /changes/steps": {"page[size]": _PAGE, "page[after]": _TEXT, "page[before]": _TEXT},
    "GET /logs/": {
        "start": _PAGE, "page": _PAGE, "dev": _TEXT, "rev": _TEXT, "plat": _TEXT, "src": _TEXT, "lvl": _TEXT,
        "before": _TEXT, "after": _TEXT, "sort": _TEXT, "cursor": _TEXT,
    },
    **fleet_bodies.QUERIES,
}  # fmt: skip
_PARAMETERS: dict[str, dict[str, Any]] = {"rev": {"type": "integer", "minimum": 0}, "sha": _SHA}
_STREAMS = openapi_events.answers()
_ERROR = {"description": "refused", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}


def path_of(service: Service, route: Route) -> str:
    """The path of a route as the document names it."""
    return f"{service.prefix}{route.pattern}"


def _operation(service: Service, route: Route) -> dict[str, Any]:
    path = path_of(service, route)
    key = f"{route.method} {path}"
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _PARAMETERS.get(name, _TEXT)}
        for name in re.findall(r"{(\w+)}", path)
    ]
    parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in QUERIES.get(key, {}).items()]
    operation: dict[str, Any] = {
        "summary": route.summary,
        "tags": [service.prefix.strip("/")],
        "parameters": parameters,
        "responses": {"200": {"description": "done"}, "default": _ERROR},
    }
    if service.bearer and not route.public:
        operation["security"] = [{"bearer": list(route.scopes)}]
    elif not route.public:
        operation["security"] = [{"operator": []}]
    if key in _STREAMS:
        operation["responses"]["200"] = _STREAMS[key]
    if key in BODIES:
        operation["requestBody"] = {"content": {"application/json": {"schema": BODIES[key]}}}
    return operation


def document(services: Iterable[Service]) -> dict[str, Any]:
    """The whole document. Pages for people are no part of it."""
    paths: dict[str, dict[str, Any]] = {}
    for service in services:
        for route in service.routes:
            if route.summary and route.method != "HEAD":
                paths.setdefault(path_of(service, route), {})[route.method.lower()] = _operation(service, route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Brickless hub", "version": "1"},
        "paths": paths,
        "webhooks": openapi_events.webhooks(),
        "components": {
            "schemas": {
                **openapi_events.schemas(),
                "Error": {
                    "anyOf": [
                        _object(("error", "code"), error=_TEXT, code={"type": "integer"}, msg=_TEXT),
                        _object(("Error",), Error=_TEXT),
                    ]
                },
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "operator": {"type": "http", "scheme": "basic"},
            },
        },
    }
