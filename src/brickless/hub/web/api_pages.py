"""The interface's description as a page: every route, what it wants, and a form that calls it. Nothing is loaded from
elsewhere; without scripts the page is a reference."""

from __future__ import annotations

import json
from importlib.resources import files
from itertools import groupby
from typing import Any, NamedTuple

from brickless.hub.http.messages import Request, Response
from brickless.hub.http.openapi import document
from brickless.hub.http.router import Route, Router
from brickless.hub.web.site import HEADERS, Site

_NAMES = {"": "the hub", "local-s3": "signed addresses", "s3": "signed addresses, another prefix"}


class Operation(NamedTuple):
    """One route as the page shows it. `needs` is who may call: scopes, `operator`, or nothing at all."""

    key: str
    method: str
    path: str
    summary: str
    parameters: list[dict[str, Any]]
    body: str
    needs: str


def _sample(schema: dict[str, Any]) -> Any:
    """A value of a schema's shape, to begin from."""
    kind = schema.get("type")
    if kind == "object":
        return {name: _sample(one) for name, one in schema.get("properties", {}).items()}
    if kind == "array":
        return [_sample(schema.get("items", {}))]
    return {"integer": 0, "boolean": False}.get(str(kind), "")


def _needs(operation: dict[str, Any]) -> str:
    security = operation.get("security")
    if not security:
        return "nobody needs a token"
    if "operator" in security[0]:
        return "the operator, with user and password"
    words = [scope.rpartition("/")[2] for scope in security[0]["bearer"]]
    return f"a token with one of the scopes {', '.join(words)}" if words else "a token"


def operations(services: Any) -> list[tuple[str, list[Operation]]]:
    """Every route of the document, by its first segment."""
    found = []
    for path, methods in document(services)["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody")
            schema = body["content"]["application/json"]["schema"] if body else None
            text = "" if schema is None else json.dumps(_sample(schema), indent=2)
            found.append(
                Operation(
                    f"{method}-{path}".replace("/", "-").replace("{", "").replace("}", ""), method.upper(), path,
                    operation["summary"], operation["parameters"], text, _needs(operation),
                )
            )  # fmt: skip
    ordered = sorted(found, key=lambda one: one.path.split("/")[1])
    groups = groupby(ordered, key=lambda one: one.path.split("/")[1])
    return [(_NAMES.get(name, name), list(group)) for name, group in groups]


class ApiPages:
    """Handlers below `/swagger/`."""

    def __init__(self, site: Site, router: Router) -> None:
        self._site = site
        self._router = router

    def routes(self) -> tuple[Route, ...]:
        """The page and its script."""
        return Route("GET", "", self.page, public=True), Route("GET", "api.js", self.script, public=True)

    async def page(self, _request: Request) -> Response:
        """GET /swagger/."""
        text = self._site.fragment("api.html", groups=operations(self._router.services))
        return Response(text.encode(), content_type="text/html; charset=utf-8", headers=HEADERS)

    async def script(self, _request: Request) -> Response:
        """GET /swagger/api.js."""
        data = files("brickless.hub.web").joinpath("static", "api.js").read_bytes()
        return Response(data, content_type="text/javascript; charset=utf-8", headers=HEADERS)
