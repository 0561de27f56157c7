"""The routes of /tokens (contract section 6.2)."""

from __future__ import annotations

from brickless.hub.domain import jsontext
from brickless.hub.domain.errors import Malformed
from brickless.hub.domain.filters import page_number
from brickless.hub.domain.jsontext import Raw, text_field
from brickless.hub.domain.prn import api_token
from brickless.hub.domain.values import ApiToken
from brickless.hub.http import encoding
from brickless.hub.http.apps import base_scope
from brickless.hub.http.messages import Request, Response, ok
from brickless.hub.http.router import Route, Service
from brickless.hub.services.tokens import ApiTokens

_MAX_PAGE = 1000


def _token(value: ApiToken, secret: str = "", *, parsed: bool = False) -> Raw:
    members: dict[str, object] = {
        "time-created": encoding.rfc3339(value.created_ms),
        "time-modified": encoding.rfc3339(value.modified_ms),
        "id": value.id,
        "name": value.name,
        "type": value.type,
        "prn": api_token(value.id),
        "owner": value.owner,
    }
    if secret:
        members["secret"] = secret
    members["scopes"] = value.scopes.split()
    if parsed:
        members["parse-scopes"] = [base_scope(scope) for scope in value.scopes.split()]
    members["deleted"] = False
    members["expire-at"] = encoding.rfc3339(value.expires_ms)
    return jsontext.struct(members)


class TokenRoutes:
    """Handlers of /tokens."""

    def __init__(self, tokens: ApiTokens) -> None:
        self._tokens = tokens

    def service(self) -> Service:
        """The routes."""
        routes = (
            Route("POST", "", self.create, summary="Make an API token"),
            Route("GET", "", self.list, summary="The caller's API tokens"),
            Route("GET", "{id}", self.get, summary="One API token"),
            Route("DELETE", "{id}", self.delete, summary="Delete an API token"),
        )
        return Service("/tokens/", routes)

    async def create(self, request: Request) -> Response:
        """POST /tokens/."""
        body = await request.json_object()
        wanted = body.get("scopes")
        if not isinstance(wanted, list) or not all(isinstance(scope, str) for scope in wanted):
            raise Malformed("'scopes' must be a list of strings")
        expires = text_field(body, "expire-at")
        try:
            expires_ms = encoding.parse_rfc3339(expires) if expires else None
        except ValueError as error:
            raise Malformed("'expire-at' must be a time such as 2027-01-31T12:00:00Z") from error
        token, secret = await self._tokens.create(
            request.caller,
            name=text_field(body, "name"),
            kind=text_field(body, "type", default="SESSION") or "SESSION",
            scope_list=tuple(map(str, wanted)),
            expires_ms=expires_ms,
        )
        return Response(_token(token, secret))

    async def list(self, request: Request) -> Response:
        """GET /tokens/."""
        size = max(1, page_number(request.field("page[size]"), "page[size]", default=100, maximum=_MAX_PAGE))
        offset = page_number(request.field("page[offset]"), "page[offset]", default=0, maximum=10**9)
        total, found = await self._tokens.of(request.caller, offset=offset, limit=size)

        def page(start: int) -> str:
            return f"/tokens/?page[size]={size}&page[offset]={start}" if 0 <= start < total and start != offset else ""

        return ok(
            {
                "resource": "/tokens/",
                "page_size": size,
                "page_offset": offset,
                "current_page": offset // size + 1,
                "total": total,
                "next": page(offset + size),
                "prev": page(max(0, offset - size)),
                "items": [_token(token, parsed=True) for token in found],
            }
        )

    async def get(self, request: Request) -> Response:
        """GET /tokens/{id}."""
        return Response(_token(await self._tokens.get(request.caller, request.params["id"])))

    async def delete(self, request: Request) -> Response:
        """DELETE /tokens/{id}."""
        await self._tokens.delete(request.caller, request.params["id"])
        return ok({"success": True})
