"""The routes of /fleets: labels, device types, releases and rollouts (docs/reference/fleets.md). Ours, additive."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from brickless.hub.domain import fleet_spec, scopes
from brickless.hub.domain.errors import Malformed
from brickless.hub.domain.filters import page_number
from brickless.hub.domain.fleet import MemberState
from brickless.hub.domain.jsontext import Value, text_field
from brickless.hub.domain.values import Identity
from brickless.hub.http import fleet_encoding as encoding
from brickless.hub.http.messages import Request, Response, ok
from brickless.hub.http.router import PATCH_METHODS, Route, Service
from brickless.hub.services.fleets import Fleets, ReleaseDraft
from brickless.hub.services.rollouts import MAX_PAGE, Overview, RolloutDraft, Rollouts

_MAX_TEXT_CHARS = 4096


def _offset(request: Request) -> int:
    return page_number(request.field("page[offset]"), "page[offset]", default=0, maximum=10**9)


def _limit(request: Request, default: int = 100) -> int:
    return max(1, page_number(request.field("page[size]"), "page[size]", default=default, maximum=MAX_PAGE))


def _known(body: dict[str, Value], *names: str) -> None:
    """Refuse members that nobody reads: a misspelt one must not be passed over."""
    if unknown := sorted(set(body) - set(names)):
        raise Malformed(f"{unknown[0]!r} is not known here; known are {', '.join(sorted(names))}")


def _changes(value: Value) -> dict[str, str | None]:
    if not isinstance(value, dict) or not all(one is None or isinstance(one, str) for one in value.values()):
        raise Malformed("Labels are an object of strings; null removes one")
    return {key: one if isinstance(one, str) else None for key, one in value.items()}


def _words(body: dict[str, Value], name: str) -> tuple[str, ...]:
    found = body.get(name) or []
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise Malformed(f"{name!r} must be a list of strings")
    return tuple(str(one) for one in found)


class FleetRoutes:
    """Handlers of labels, device types and releases."""

    def __init__(self, fleets: Fleets) -> None:
        self._fleets = fleets

    def routes(self) -> tuple[Route, ...]:
        """Below /fleets/."""
        read, write = scopes.DEVICES_READ, scopes.DEVICES_WRITE
        return (
            Route("GET", "devices", self.devices, scopes=read, summary="Devices that a selector matches"),
            Route("PATCH", "devices", self.label_many, scopes=write, summary="Labels of all that a selector matches"),
            Route("GET", "devices/{id}/labels", self.labels, scopes=read, summary="A device's labels"),
            Route("PATCH", "devices/{id}/labels", self.label, scopes=write, summary="Set and remove labels"),
            Route("GET", "types", self.types, scopes=read, summary="Device types"),
            Route("PUT", "types/{name}", self.put_type, scopes=write, summary="Make or change a device type"),
            Route("DELETE", "types/{name}", self.delete_type, scopes=write, summary="Delete a device type"),
            Route("GET", "releases", self.releases, scopes=scopes.TRAILS_READ, summary="Releases, newest first"),
            Route("POST", "releases", self.create, scopes=scopes.TRAILS_WRITE, summary="Make a release"),
            Route("GET", "releases/{release}", self.release, scopes=scopes.TRAILS_READ, summary="One release"),
            Route("DELETE", "releases/{release}", self.delete, scopes=scopes.TRAILS_WRITE, summary="Delete a release"),
        )

    async def devices(self, request: Request) -> Response:
        """GET devices."""
        after, selector = request.field("page[after]") or "", request.field("selector") or ""
        found = await self._fleets.devices(request.caller, selector, after=after, limit=_limit(request))
        return ok([encoding.labelled(one) for one in found])

    async def label_many(self, request: Request) -> Response:
        """PATCH devices. The selector must be said: a request without one does not mean every device."""
        body = await request.json_object()
        _known(body, "selector", "labels")
        selector = text_field(body, "selector", max_chars=_MAX_TEXT_CHARS)
        if not selector.strip():
            raise Malformed("'selector' is missing; '*' means every device")
        changed = await self._fleets.set_labels_of(request.caller, selector, _changes(body.get("labels")))
        return ok({"changed": changed})

    async def labels(self, request: Request) -> Response:
        """GET devices/{id}/labels."""
        found = await self._fleets.labels(request.caller, request.params["id"])
        return ok(dict(sorted(found.items())))

    async def label(self, request: Request) -> Response:
        """PATCH devices/{id}/labels."""
        changes = _changes(await request.json_object())
        found = await self._fleets.set_labels(request.caller, request.params["id"], changes)
        return ok(dict(sorted(found.items())))

    async def types(self, request: Request) -> Response:
        """GET types."""
        return ok([encoding.device_type(one) for one in await self._fleets.types(request.caller)])

    async def put_type(self, request: Request) -> Response:
        """PUT types/{name}."""
        body = await request.json_object()
        _known(body, "description")
        description = text_field(body, "description", max_chars=_MAX_TEXT_CHARS)
        return ok(
            encoding.device_type(await self._fleets.put_type(request.caller, request.params["name"], description))
        )

    async def delete_type(self, request: Request) -> Response:
        """DELETE types/{name}."""
        await self._fleets.delete_type(request.caller, request.params["name"])
        return ok({})

    async def releases(self, request: Request) -> Response:
        """GET releases."""
        found = await self._fleets.releases(request.caller, offset=_offset(request), limit=_limit(request))
        return ok([encoding.release(one) for one in found])

    async def create(self, request: Request) -> Response:
        """POST releases."""
        body = await request.json_object()
        _known(body, "device", "revision", "state", "fragment", "name", "note", "types", "allow-unsigned")
        state, rev, unsigned = body.get("state"), body.get("revision"), body.get("allow-unsigned", False)
        if state is not None and not isinstance(state, dict):
            raise Malformed("'state' must be an object")
        if rev is not None and (isinstance(rev, bool) or not isinstance(rev, int)):
            raise Malformed("'revision' must be a number")
        if not isinstance(unsigned, bool):
            raise Malformed("'allow-unsigned' must be true or false")
        draft = ReleaseDraft(
            device=text_field(body, "device"),
            rev=rev,
            state=state,
            fragment=text_field(body, "fragment", max_chars=_MAX_TEXT_CHARS * 4),
            name=text_field(body, "name"),
            note=text_field(body, "note", max_chars=_MAX_TEXT_CHARS * 2),
            types=_words(body, "types"),
            allow_unsigned=unsigned,
        )
        return ok(encoding.release(await self._fleets.create_release(request.caller, draft), state=True))

    async def release(self, request: Request) -> Response:
        """GET releases/{release}."""
        return ok(encoding.release(await self._fleets.release(request.caller, request.params["release"]), state=True))

    async def delete(self, request: Request) -> Response:
        """DELETE releases/{release}."""
        await self._fleets.delete_release(request.caller, request.params["release"])
        return ok({})


_Action = Callable[[Identity, str, str], Awaitable[Overview]]


class RolloutRoutes:
    """Handlers of rollouts."""

    def __init__(self, rollouts: Rollouts) -> None:
        self._rollouts = rollouts

    def routes(self) -> tuple[Route, ...]:
        """Below /fleets/."""
        read, write = scopes.TRAILS_READ, scopes.TRAILS_WRITE
        actions: tuple[tuple[str, _Action, str], ...] = (
            ("pause", self._rollouts.pause, "Give it to no more devices for now"),
            ("resume", self._rollouts.resume, "Go on"),
            ("abort", self._rollouts.abort, "Stop at once, for good"),
            ("finish", self._rollouts.finish, "Take no more devices in"),
            ("rollback", self._rollouts.roll_back, "Give devices their former parts back"),
        )
        return (
            Route("GET", "rollouts", self.all, scopes=read, summary="Rollouts, newest first"),
            Route("POST", "rollouts", self.create, scopes=write, summary="Begin a rollout"),
            Route("POST", "preview", self.preview, scopes=read, summary="What a rollout would do"),
            Route("GET", "rollouts/{rollout}", self.get, scopes=read, summary="One rollout with its counts"),
            Route("GET", "rollouts/{rollout}/devices", self.members, scopes=read, summary="Its devices"),
            Route("GET", "devices/{id}/rollouts", self.of_device, scopes=read, summary="A device's rollouts"),
            *(
                Route("POST", f"rollouts/{{rollout}}/{name}", self._action(action), scopes=write, summary=summary)
                for name, action, summary in actions
            ),
        )

    async def all(self, request: Request) -> Response:
        """GET rollouts."""
        found = await self._rollouts.all(request.caller, offset=_offset(request), limit=_limit(request, 50))
        return ok([encoding.rollout(one) for one in found])

    @staticmethod
    async def _draft(request: Request) -> RolloutDraft:
        body = await request.json_object()
        _known(body, "release", "selector", "name", "spec")
        release, selector = text_field(body, "release"), text_field(body, "selector", max_chars=_MAX_TEXT_CHARS)
        if not release or not selector.strip():
            raise Malformed("A rollout needs a 'release' and a 'selector'; '*' means every device")
        spec = body.get("spec") or {}
        if not isinstance(spec, dict):
            raise Malformed("'spec' must be an object")
        return RolloutDraft(release, selector, text_field(body, "name"), fleet_spec.parse(spec))

    async def create(self, request: Request) -> Response:
        """POST rollouts."""
        return ok(encoding.rollout(await self._rollouts.create(request.caller, await self._draft(request))))

    async def preview(self, request: Request) -> Response:
        """POST preview."""
        return ok(encoding.preview(await self._rollouts.preview(request.caller, await self._draft(request))))

    async def get(self, request: Request) -> Response:
        """GET rollouts/{rollout}."""
        return ok(encoding.rollout(await self._rollouts.get(request.caller, request.params["rollout"])))

    async def members(self, request: Request) -> Response:
        """GET rollouts/{rollout}/devices."""
        text = request.field("state")
        try:
            state = MemberState(text) if text else None
        except ValueError as error:
            raise Malformed(f"'state' is one of {', '.join(MemberState)}") from error
        found = await self._rollouts.members(
            request.caller,
            request.params["rollout"],
            state=state,
            after=request.field("page[after]") or "",
            limit=_limit(request),
        )
        return ok([encoding.member(one, "nick") for one in found])

    async def of_device(self, request: Request) -> Response:
        """GET devices/{id}/rollouts."""
        found = await self._rollouts.of_device(request.caller, request.params["id"])
        return ok([encoding.member(one, "rollout-name") for one in found])

    @staticmethod
    def _action(action: _Action) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            body = await request.json_object()
            _known(body, "reason")
            overview = await action(request.caller, request.params["rollout"], text_field(body, "reason"))
            return ok(encoding.rollout(overview))

        return handle


def service(fleets: FleetRoutes, rollouts: RolloutRoutes) -> Service:
    """The routes of /fleets."""
    return Service("/fleets/", (*fleets.routes(), *rollouts.routes()), methods=PATCH_METHODS)
