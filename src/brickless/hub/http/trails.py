"""The routes of /trails (contract section 3). Every answer is canonical JSON."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from brickless.core import canonical as core_canonical
from brickless.hub.domain import jsontext, scopes
from brickless.hub.domain.errors import Malformed, NotFound
from brickless.hub.domain.filters import WHOLE, page_number, parse_fields, parse_status
from brickless.hub.domain.jsontext import Raw, Value, text_field
from brickless.hub.domain.objects import parse_request
from brickless.hub.domain.prn import DEVICE_PREFIX
from brickless.hub.domain.state import CheckedState, check, parse_body
from brickless.hub.domain.values import Summary
from brickless.hub.http import encoding
from brickless.hub.http.messages import Handler, Request, Response
from brickless.hub.http.objects import access_response
from brickless.hub.http.router import TRAILS_HEADERS, Route, Service
from brickless.hub.services.objects import Objects
from brickless.hub.services.parts import Parts
from brickless.hub.services.trails import StepPage, Trails

_MAX_PAGE = 1000
#: A step's body holds a state, a message and a meta map.
_ENVELOPE_BYTES = 256 * 1024
_STEPS = "steps"


def canonical(value: object) -> Response:
    """An answer in canonical JSON."""
    return Response(value if isinstance(value, Raw) else Raw(core_canonical.dumps(value)))  # type: ignore[arg-type]  # callers give JSON


def autolink(request: Request) -> bool:
    """Whether public objects may be linked: yes, unless the client says no."""
    return request.field("autolink") != "no"


class TrailRoutes:
    """Handlers of /trails."""

    def __init__(
        self, parts: Parts, trails: Trails, objects: Objects, base_url: Callable[[Request], str], auth_status: Handler
    ) -> None:
        self._auth_status = auth_status
        self._parts = parts
        self._trails = trails
        self._objects = objects
        self._base_url = base_url

    def service(self) -> Service:
        """The routes."""
        read, write = scopes.TRAILS_READ, scopes.TRAILS_WRITE
        step = "{id}/steps/{rev}"
        routes = (
            Route("GET", "", self.list, read, summary="The caller's trails"),
            Route("POST", "", self.create, write, summary="Start the calling device's trail with its factory state"),
            Route("GET", "auth_status", self._auth_status, summary="The claims of the token"),
            Route("GET", "summary", self.summaries, read, summary="One row a device: revision, status, last seen"),
            Route("GET", "{id}", self.get, read, summary="One trail"),
            Route("GET", "{id}/summary", self.summary, read, summary="One row"),
            Route("GET", "{id}/.pvrremote", self.remote, read, summary="How pvr works with the newest revision"),
            Route("GET", "{id}/steps", self.steps, read, summary="Revisions, by number"),
            Route("POST", "{id}/steps", self.post, write, summary="Post a revision"),
            Route("GET", step, self.step, read, summary="One revision"),
            Route("GET", f"{step}/.pvrremote", self.step_remote, read, summary="How pvr works with a revision"),
            Route("GET", f"{step}/state", self.state, read, summary="A revision's state"),
            Route("GET", f"{step}/meta", self.meta, read, summary="A revision's meta"),
            Route("GET", f"{step}/objects", self.objects, read, summary="A revision's objects with signed URLs"),
            Route("GET", f"{step}/objects/{{sha}}", self.object, read, summary="One object with signed URLs"),
            Route("GET", f"{step}/objects/{{sha}}/blob", self.blob, read, summary="A redirect to the bytes"),
            Route("POST", f"{step}/objects", self.add_object, write, summary="Announce an object"),
            Route("PUT", f"{step}/state", self.put_state, write, summary="Replace the state of a NEW revision"),
            Route("PUT", f"{step}/meta", self.put_meta, write, summary="Replace a revision's meta"),
            Route("PUT", f"{step}/progress", self.progress, write, summary="Report progress (devices)"),
            Route("PUT", f"{step}/cancel", self.cancel, write, summary="Cancel a NEW revision"),
            Route("PUT", f"{step}/wontgo", self.wontgo, write, summary="Give up a revision INPROGRESS"),
        )
        return Service("/trails/", routes, canonical=True, strip_slash=True, headers=TRAILS_HEADERS)

    @staticmethod
    def _rev(request: Request) -> int:
        text = request.params["rev"]
        if not text.isascii() or not text.isdigit() or len(text) > 10:
            raise NotFound("There is no such revision")
        return int(text)

    # -- trails ------------------------------------------------------------------------------------------------------

    async def list(self, request: Request) -> Response:
        """GET /trails/."""
        found = await self._trails.of(request.caller)
        return Response(jsontext.canonical_array(map(encoding.trail, found)))

    async def create(self, request: Request) -> Response:
        """POST /trails/: the body is the factory state itself."""
        limit = self._parts.policy.max_state_bytes
        state = parse_body(await request.body(limit), max_bytes=limit)
        return Response(encoding.trail(await self._trails.create(request.caller, state, autolink=autolink(request))))

    async def get(self, request: Request) -> Response:
        """GET /trails/{id}."""
        return Response(encoding.trail(await self._trails.get(request.caller, request.params["id"])))

    def _summary(self, value: Summary) -> dict[str, object]:
        return encoding.summary(value, self._parts.presence.last(value.device.id))

    async def summaries(self, request: Request) -> Response:
        """GET /trails/summary."""
        rows = [self._summary(value) for value in await self._trails.summaries(request.caller)]
        sort = request.field("sort") or "-timestamp"
        name = sort.lstrip("-+ ")
        if rows and name in rows[0]:
            rows.sort(key=lambda row: _sort_key(row[name]), reverse=sort.startswith("-"))
        condition = request.field("filter")
        if condition:
            wanted = jsontext.parse_object(condition.encode(), max_bytes=4096, what="filter")
            rows = [row for row in rows if _matches(row, wanted)]
        return canonical(rows)

    async def summary(self, request: Request) -> Response:
        """GET /trails/{id}/summary."""
        found = await self._trails.summaries(request.caller, request.params["id"])
        return canonical(self._summary(found[0]))

    def _remote(
        self, request: Request, trail_id: str, rev: int, fields: tuple[str, ...], optional: tuple[str, ...]
    ) -> Raw:
        trail = f"{self._base_url(request)}/trails/{trail_id}"
        return jsontext.canonical_object(
            (
                ("json-get-url", f"{trail}/steps/{rev}/state"),
                ("json-key", "state"),
                ("objects-endpoint", f"{trail}/steps/{rev}/objects"),
                ("post-fields", list(fields)),
                ("post-fields-opt", list(optional)),
                ("post-url", f"{trail}/steps"),
                ("pvr-spec", "pvr-pantahub-1"),
                ("step-get-url", f"{trail}/steps/{rev}"),
            )
        )

    async def remote(self, request: Request) -> Response:
        """GET /trails/{id}/.pvrremote: the newest revision."""
        trail_id = request.params["id"]
        rev = await self._trails.newest_rev(request.caller, trail_id)
        return Response(self._remote(request, trail_id, rev, ("commit-msg",), ("rev",)))

    async def step_remote(self, request: Request) -> Response:
        """GET /trails/{id}/steps/{rev}/.pvrremote."""
        step = await self._trails.step(request.caller, request.params["id"], self._rev(request))
        return Response(self._remote(request, step.trail_id, step.rev, ("msg",), ()))

    async def named_remote(self, request: Request) -> Response:
        """GET /{user}/{device}[/{rev}]/.pvrremote: the same by names."""
        user, device = request.params["user"], request.params["device"]
        request.params["id"] = await self._trails.trail_of_nicks(request.caller, user, device)
        return await (self.step_remote(request) if "rev" in request.params else self.remote(request))

    # -- steps -------------------------------------------------------------------------------------------------------

    async def steps(self, request: Request) -> Response:
        """GET /trails/{id}/steps. The idle poll of a device is answered from memory."""
        trail_id, caller = request.params["id"], request.caller
        polling = caller.is_device and caller.prn == DEVICE_PREFIX + trail_id
        variant = request.query_string.decode("latin-1")
        if polling:
            remembered = self._parts.polls.get(trail_id, _STEPS, variant)
            if remembered is not None:
                return Response(remembered, poll=(trail_id, _STEPS, variant))
        ticket = self._parts.polls.ticket(trail_id)
        fields = request.field("fields")
        projection = parse_fields(fields) if fields else WHOLE
        found = await self._trails.steps(caller, trail_id, self._page(request))
        answer = bytes(jsontext.canonical_array(encoding.step(step, projection) for step in found))
        if polling:
            self._parts.polls.put(trail_id, _STEPS, variant, answer, ticket)
        return Response(answer)

    @staticmethod
    def _page(request: Request) -> StepPage:
        status, size = request.field("progress.status"), request.field("page[size]")
        after = request.field("page[after]")
        limit = _MAX_PAGE if size is None else page_number(size, "page[size]", default=_MAX_PAGE, maximum=_MAX_PAGE)
        return StepPage(
            status=parse_status(status) if status is not None else None,
            after_rev=page_number(after, "page[after]", default=0, maximum=2**31) if after else None,
            offset=page_number(request.field("page[offset]"), "page[offset]", default=0, maximum=2**31),
            # The C client reads the first element and refuses more than 2 MiB: a device gets the oldest one.
            limit=1 if request.caller.is_device and size is None else limit,
        )

    async def post(self, request: Request) -> Response:
        """POST /trails/{id}/steps."""
        limit = self._parts.policy.max_state_bytes
        body = await request.json_object(limit + _ENVELOPE_BYTES)
        step = await self._trails.post(
            request.caller,
            request.params["id"],
            rev=_revision_number(body.get("rev")),
            message=text_field(body, "commit-msg", max_chars=64 * 1024),
            state=self._state_member(body, limit),
            meta=_object_member(body, "meta"),
            autolink=autolink(request),
        )
        return Response(encoding.step(step))

    @staticmethod
    def _state_member(body: dict[str, Value], limit: int) -> CheckedState:
        state = check(_object_member(body, "state"))
        if len(state.raw) > limit:
            raise Malformed(f"The state is larger than {limit} bytes")
        return state

    async def step(self, request: Request) -> Response:
        """GET /trails/{id}/steps/{rev}."""
        step = await self._trails.step(request.caller, request.params["id"], self._rev(request))
        fields = request.field("fields")
        return Response(encoding.step(step, parse_fields(fields) if fields else WHOLE))

    async def state(self, request: Request) -> Response:
        """GET .../state."""
        step = await self._trails.step(request.caller, request.params["id"], self._rev(request))
        return Response(step.state)

    async def meta(self, request: Request) -> Response:
        """GET .../meta."""
        step = await self._trails.step(request.caller, request.params["id"], self._rev(request))
        return Response(step.meta.encode())

    async def put_state(self, request: Request) -> Response:
        """PUT .../state: only while no device has taken the step."""
        limit = self._parts.policy.max_state_bytes
        state = parse_body(await request.body(limit), max_bytes=limit)
        await self._trails.set_state(
            request.caller, request.params["id"], self._rev(request), state, autolink=autolink(request)
        )
        return Response(state.raw)

    async def put_meta(self, request: Request) -> Response:
        """PUT .../meta."""
        meta = await request.json_object(_ENVELOPE_BYTES)
        return canonical(await self._trails.set_meta(request.caller, request.params["id"], self._rev(request), meta))

    async def progress(self, request: Request) -> Response:
        """PUT .../progress."""
        body = await request.json_object()
        stored = await self._trails.report(request.caller, request.params["id"], self._rev(request), body)
        return canonical(stored)

    async def cancel(self, request: Request) -> Response:
        """PUT .../cancel."""
        trail_id, rev = request.params["id"], self._rev(request)
        return canonical(await self._trails.by_owner(request.caller, trail_id, rev, "cancel"))

    async def wontgo(self, request: Request) -> Response:
        """PUT .../wontgo."""
        trail_id, rev = request.params["id"], self._rev(request)
        return canonical(await self._trails.by_owner(request.caller, trail_id, rev, "wontgo"))

    # -- objects of steps --------------------------------------------------------------------------------------------

    def _issuer(self, request: Request) -> str:
        return f"{self._base_url(request)}/trails"

    async def objects(self, request: Request) -> Response:
        """GET .../objects."""
        base, issuer = self._base_url(request), self._issuer(request)
        records = await self._objects.of_step(request.caller, request.params["id"], self._rev(request))
        # A device that reads its step downloads; only the owner may upload again.
        upload = not request.caller.is_device
        accesses = (self._objects.access(request.caller, record, issuer, upload=upload) for record in records)
        return Response(
            jsontext.canonical_array(encoding.object_access(access, base, canonical=True) for access in accesses)
        )

    async def _access(self, request: Request) -> Any:
        record = await self._objects.one_of_step(
            request.caller, request.params["id"], self._rev(request), request.params["sha"]
        )
        upload = not request.caller.is_device
        return self._objects.access(request.caller, record, self._issuer(request), upload=upload)

    async def object(self, request: Request) -> Response:
        """GET .../objects/{sha}."""
        return access_response(await self._access(request), self._base_url(request), canonical=True)

    async def blob(self, request: Request) -> Response:
        """GET .../objects/{sha}/blob."""
        access = await self._access(request)
        return Response(status=302, headers=(("Location", f"{self._base_url(request)}/local-s3/{access.get}"),))

    async def add_object(self, request: Request) -> Response:
        """POST .../objects."""
        wanted = parse_request(await request.json_object())
        record, there = await self._objects.register_for_step(
            request.caller, request.params["id"], self._rev(request), wanted, autolink=autolink(request)
        )
        access = self._objects.access(request.caller, record, self._issuer(request))
        return access_response(access, self._base_url(request), canonical=True, status=409 if there else 200)


def _revision_number(value: Value) -> int:
    """`rev` of a post. Missing means 0, which exists already on every trail."""
    if value is None:
        return 0
    if isinstance(value, Decimal) and value == value.to_integral_value():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Malformed("'rev' must be an integer; -1 asks for the next one")
    return value


def _object_member(body: dict[str, Value], name: str) -> dict[str, Value]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Malformed(f"{name!r} must be a JSON object")
    return value


def _sort_key(value: object) -> tuple[float, str]:
    return (float(value), "") if isinstance(value, int | float) else (0.0, str(value))


def _matches(row: dict[str, object], wanted: dict[str, Value]) -> bool:
    """A summary filter: known fields, by equality or with `$in`, `$nin`, `$eq`, `$ne`; anything else is refused."""
    for name, condition in wanted.items():
        if name not in row:
            raise Malformed(f"filter: there is no field {name[:60]!r}")
        value = row[name]
        text = str(value) if not isinstance(value, str) else value
        if isinstance(condition, dict):
            words = core_canonical.dumps(condition).decode()
            if not parse_status(words).accepts(text):
                return False
        elif text != (condition if isinstance(condition, str) else str(condition)):
            return False
    return True
