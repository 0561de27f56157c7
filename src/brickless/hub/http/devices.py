"""The routes of /devices (contract section 2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from brickless.hub.domain import jsontext, scopes
from brickless.hub.domain.errors import Forbidden, Malformed
from brickless.hub.domain.filters import page_number, parse_device_filters
from brickless.hub.domain.jsontext import Value, text_field
from brickless.hub.domain.prn import DEVICE_PREFIX
from brickless.hub.domain.values import Identity
from brickless.hub.http import encoding
from brickless.hub.http.auth import require_user_agent
from brickless.hub.http.messages import Handler, Request, Response, ok, parse_query
from brickless.hub.http.ownership import OwnershipRoutes
from brickless.hub.http.router import PATCH_METHODS, Route, Service
from brickless.hub.services.devices import Devices, Draft, Shown
from brickless.hub.services.metadata import USER_META, Metadata

_MAX_PAGE = 10_000
_AUTO_TOKEN = "Pantahub-Devices-Auto-Token-V1"  # noqa: S105 - a header's name
#: What nobody may change about a device.
_FIXED = ("id", "prn", "owner", "time-created")


def _map(body: dict[str, Value], name: str) -> dict[str, Value] | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Malformed(f"{name!r} must be a JSON object")
    return value


def _draft(body: dict[str, Value]) -> Draft:
    public = body.get("public")
    if public is not None and not isinstance(public, bool):
        raise Malformed("'public' must be true or false")
    return Draft(
        nick=text_field(body, "nick") or None,
        secret=text_field(body, "secret") if body.get("secret") is not None else None,
        public=public,
        user_meta=_map(body, "user-meta"),
        device_meta=_map(body, "device-meta"),
    )


class DeviceRoutes:
    """Handlers of /devices."""

    def __init__(
        self,
        devices: Devices,
        metadata: Metadata,
        optional_identity: Callable[[Request], Awaitable[Identity | None]],
        auth_status: Handler,
        ownership: OwnershipRoutes,
    ) -> None:
        self._ownership = ownership
        self._auth_status = auth_status
        self._devices = devices
        self._metadata = metadata
        self._optional_identity = optional_identity

    def service(self) -> Service:
        """The routes."""
        read, write = scopes.DEVICES_READ, scopes.DEVICES_WRITE
        routes = (
            Route("POST", "", self.register, public=True, summary="Register a device"),
            Route("GET", "", self.list, read, summary="The caller's devices, or another account's public ones"),
            Route("GET", "auth_status", self._auth_status, summary="The claims of the token"),
            Route("POST", "tokens", self.create_token, read, summary="Make a join token for a factory"),
            Route("GET", "tokens", self.tokens, read, summary="The caller's join tokens"),
            Route("GET", "tokens/{id}", self.token, read, summary="One join token"),
            Route("DELETE", "tokens/{id}", self.disable_token, scopes.DEVICES_CHANGE, summary="Disable a join token"),
            Route("GET", "np/{user}/{device}", self.by_nicks, read, summary="A device by its owner's nick and its own"),
            Route("GET", "{id}", self.get, read, summary="One device"),
            Route("PUT", "{id}", self.put, write, summary="Claim a device, or change it"),
            Route("PATCH", "{id}", self.patch, write, summary="Change a device's nick"),
            Route("DELETE", "{id}", self.delete, write, summary="Delete a device"),
            Route("PUT", "{id}/public", self.publish, write, summary="Make a device public"),
            Route("DELETE", "{id}/public", self.unpublish, write, summary="Make a device private"),
            Route("GET", "{id}/user-meta", self.user_meta, read, summary="What people tell the device"),
            Route("PUT", "{id}/user-meta", self.put_user_meta, write, summary="Replace the user-meta"),
            Route("PATCH", "{id}/user-meta", self.patch_user_meta, write, summary="Change some keys of the user-meta"),
            Route("PUT", "{id}/device-meta", self.put_device_meta, write, summary="Replace the device-meta"),
            Route("PATCH", "{id}/device-meta", self.patch_device_meta, write, summary="Change some device-meta"),
            *self._ownership.of_devices(),
        )
        return Service("/devices/", routes, methods=PATCH_METHODS)

    async def register(self, request: Request) -> Response:
        """POST /devices/: the C client's first call has no body and no token."""
        require_user_agent(request)
        scheme = (request.header("authorization") or "").partition(" ")[0].lower()
        caller = await self._optional_identity(request) if scheme == "bearer" else None
        if caller is not None:
            scopes.require(caller.scopes, scopes.DEVICES_WRITE)
        draft = _draft(await request.json_object())
        shown = await self._devices.register(caller, request.header(_AUTO_TOKEN), draft, address=request.address)
        return Response(encoding.device(shown))

    async def list(self, request: Request) -> Response:
        """GET /devices/."""
        limit = request.field("page[size]")
        found = await self._devices.find(
            request.caller,
            parse_device_filters(request.fields),
            owner=request.field("owner"),
            owner_nick=request.field("owner-nick"),
            offset=page_number(request.field("page[offset]"), "page[offset]", default=0, maximum=10**9),
            limit=None if limit is None else page_number(limit, "page[size]", default=_MAX_PAGE, maximum=_MAX_PAGE),
        )
        return Response(jsontext.canonical_array(map(encoding.device, found)))

    async def get(self, request: Request) -> Response:
        """GET /devices/{id}."""
        shown = await self._devices.get(
            request.caller,
            request.params["id"],
            owner=request.field("owner"),
            owner_nick=request.field("owner-nick"),
        )
        return Response(encoding.device(shown))

    async def by_nicks(self, request: Request) -> Response:
        """GET /devices/np/{user}/{device}."""
        shown = await self._devices.get_by_nicks(request.caller, request.params["user"], request.params["device"])
        return Response(encoding.device(shown))

    async def put(self, request: Request) -> Response:
        """PUT /devices/{id}?challenge=..., which some clients send as a form instead."""
        raw = await request.body()
        challenge = request.field("challenge")
        form = (request.header("content-type") or "").startswith("application/x-www-form-urlencoded")
        if form and not raw.lstrip().startswith(b"{"):
            challenge = challenge or dict(parse_query(raw)).get("challenge")
            raw = b""
        body = jsontext.parse_object(raw, max_bytes=1024 * 1024)
        device_id = request.params["id"]
        await self._refuse_fixed(request, device_id, body)
        shown = await self._devices.put(
            request.caller, device_id, _draft(body), challenge=challenge or "", address=request.address
        )
        return Response(encoding.device(shown))

    async def _refuse_fixed(self, request: Request, device_id: str, body: dict[str, Value]) -> None:
        """A body may repeat what is fixed about a device, and must not change it."""
        said = {name: body[name] for name in _FIXED if body.get(name) is not None}
        if not said:
            return
        device = (await self._devices.get(request.caller, device_id)).device
        stored = {
            "id": device.id, "prn": device.prn, "owner": device.owner,
            "time-created": encoding.rfc3339(device.created_ms),
        }  # fmt: skip
        for name, value in said.items():
            if value != stored[name]:
                raise Forbidden(f"{name!r} of a device cannot be changed")

    async def patch(self, request: Request) -> Response:
        """PATCH /devices/{id}."""
        body = await request.json_object()
        device = await self._devices.rename(request.caller, request.params["id"], text_field(body, "nick"))
        return Response(encoding.device(Shown(device)))

    async def delete(self, request: Request) -> Response:
        """DELETE /devices/{id}."""
        return Response(encoding.device(await self._devices.delete(request.caller, request.params["id"])))

    async def publish(self, request: Request) -> Response:
        """PUT /devices/{id}/public."""
        shown = await self._devices.set_public(request.caller, request.params["id"], public=True)
        return Response(encoding.device(shown))

    async def unpublish(self, request: Request) -> Response:
        """DELETE /devices/{id}/public."""
        shown = await self._devices.set_public(request.caller, request.params["id"], public=False)
        return Response(encoding.device(shown))

    # -- metadata ----------------------------------------------------------------------------------------------------

    async def user_meta(self, request: Request) -> Response:
        """GET /devices/{id}/user-meta."""
        caller, name = request.caller, request.params["id"]
        own_poll = caller.is_device and caller.prn == DEVICE_PREFIX + name
        return Response(await self._metadata.user_meta(caller, name), poll=(name, USER_META, "") if own_poll else None)

    @staticmethod
    async def _meta_body(request: Request) -> dict[str, Value]:
        raw = await request.body()
        if not raw.strip():
            raise Malformed("A JSON object is expected")
        return jsontext.parse_object(raw, max_bytes=1024 * 1024)

    async def put_user_meta(self, request: Request) -> Response:
        """PUT /devices/{id}/user-meta."""
        meta = await self._meta_body(request)
        stored = await self._metadata.put_user_meta(request.caller, request.params["id"], meta)
        return Response(jsontext.struct_map(stored))

    async def patch_user_meta(self, request: Request) -> Response:
        """PATCH /devices/{id}/user-meta."""
        patch = await self._meta_body(request)
        return Response(
            jsontext.struct_map(await self._metadata.patch_user_meta(request.caller, request.params["id"], patch))
        )

    async def put_device_meta(self, request: Request) -> Response:
        """PUT /devices/{id}/device-meta."""
        await self._metadata.put_device_meta(request.caller, request.params["id"], await self._meta_body(request))
        return ok({"status": "ok"})

    async def patch_device_meta(self, request: Request) -> Response:
        """PATCH /devices/{id}/device-meta."""
        await self._metadata.patch_device_meta(request.caller, request.params["id"], await self._meta_body(request))
        return ok({"status": "ok"})

    # -- join tokens -------------------------------------------------------------------------------------------------

    async def create_token(self, request: Request) -> Response:
        """POST /devices/tokens."""
        body = await request.json_object()
        token, text = await self._devices.create_token(
            request.caller,
            text_field(body, "nick"),
            _map(body, "default-user-meta") or {},
            self._ownership.ownership.of_token(body.get("ovmode")),
        )
        return Response(encoding.join_token(token, text))

    async def tokens(self, request: Request) -> Response:
        """GET /devices/tokens."""
        found = await self._devices.tokens(request.caller)
        return Response(jsontext.canonical_array(map(encoding.join_token, found)))

    async def token(self, request: Request) -> Response:
        """GET /devices/tokens/{id}."""
        return Response(encoding.join_token(await self._devices.token(request.caller, request.params["id"])))

    async def disable_token(self, request: Request) -> Response:
        """DELETE /devices/tokens/{id}."""
        await self._devices.disable_token(request.caller, request.params["id"])
        return ok({"status": "OK"})
