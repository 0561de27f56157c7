"""The routes of /webhooks."""

from __future__ import annotations

from brickless.hub.domain.errors import Malformed
from brickless.hub.domain.jsontext import Value, text_field
from brickless.hub.domain.webhooks import Delivery, Webhook
from brickless.hub.http import encoding
from brickless.hub.http.messages import Request, Response, ok
from brickless.hub.http.router import Route, Service
from brickless.hub.services.webhooks import Wanted, Webhooks

_MAX_BODY_BYTES = 16 * 1024


def _delivery(value: Delivery) -> dict[str, object]:
    return {
        "id": value.id,
        "event": value.event_id,
        "type": value.kind,
        "state": value.state,
        "attempts": value.attempts,
        "status": value.status,
        "error": value.error,
        "time-created": encoding.rfc3339(value.created_ms),
        "time-done": encoding.rfc3339(value.done_ms) if value.done_ms else "",
        "next-attempt": encoding.rfc3339(value.due_ms) if value.state == "pending" else "",
    }


def _wanted(body: dict[str, Value]) -> Wanted:
    kinds, enabled = body.get("events"), body.get("enabled")
    if kinds is not None and (not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds)):
        raise Malformed("'events' must be a list of strings")
    if enabled is not None and not isinstance(enabled, bool):
        raise Malformed("'enabled' must be true or false")
    url = text_field(body, "url") if "url" in body else None
    return Wanted(url, None if kinds is None else tuple(map(str, kinds)), enabled)


class WebhookRoutes:
    """Handlers of /webhooks."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks

    def service(self) -> Service:
        """The routes."""
        retry = "{id}/deliveries/{delivery}/retry"
        routes = (
            Route("GET", "", self.list, summary="The account's webhooks"),
            Route("POST", "", self.create, summary="Send events to an address from now on"),
            Route("GET", "{id}", self.get, summary="One webhook, with its secret"),
            Route("PUT", "{id}", self.change, summary="Change a webhook"),
            Route("DELETE", "{id}", self.remove, summary="Remove a webhook"),
            Route("POST", "{id}/ping", self.ping, summary="Send an event that means nothing"),
            Route("GET", "{id}/deliveries", self.deliveries, summary="The newest deliveries"),
            Route("POST", retry, self.retry, summary="Send a delivery once more"),
        )
        return Service("/webhooks/", routes)

    def _webhook(self, value: Webhook, *, secret: bool = False) -> dict[str, object]:
        members: dict[str, object] = {
            "id": value.id,
            "url": value.url,
            "events": list(value.patterns),
            "enabled": value.enabled,
            "time-created": encoding.rfc3339(value.created_ms),
            "time-modified": encoding.rfc3339(value.modified_ms),
        }
        return {**members, "secret": self._webhooks.secret(value)} if secret else members

    async def list(self, request: Request) -> Response:
        """GET /webhooks/."""
        return ok([self._webhook(value) for value in await self._webhooks.of(request.caller)])

    async def create(self, request: Request) -> Response:
        """POST /webhooks/."""
        wanted = _wanted(await request.json_object(_MAX_BODY_BYTES))
        return ok(self._webhook(await self._webhooks.create(request.caller, wanted), secret=True))

    async def get(self, request: Request) -> Response:
        """GET /webhooks/{id}."""
        return ok(self._webhook(await self._webhooks.get(request.caller, request.params["id"]), secret=True))

    async def change(self, request: Request) -> Response:
        """PUT /webhooks/{id}."""
        wanted = _wanted(await request.json_object(_MAX_BODY_BYTES))
        return ok(self._webhook(await self._webhooks.change(request.caller, request.params["id"], wanted)))

    async def remove(self, request: Request) -> Response:
        """DELETE /webhooks/{id}."""
        await self._webhooks.remove(request.caller, request.params["id"])
        return ok({})

    async def ping(self, request: Request) -> Response:
        """POST /webhooks/{id}/ping."""
        return ok(_delivery(await self._webhooks.ping(request.caller, request.params["id"])))

    async def deliveries(self, request: Request) -> Response:
        """GET /webhooks/{id}/deliveries."""
        found = await self._webhooks.deliveries(request.caller, request.params["id"])
        return ok([_delivery(value) for value in found])

    async def retry(self, request: Request) -> Response:
        """POST /webhooks/{id}/deliveries/{delivery}/retry."""
        params = request.params
        return ok(_delivery(await self._webhooks.retry(request.caller, params["id"], params["delivery"])))
