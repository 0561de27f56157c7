"""/callbacks and /cron (contract section 6.7), for programs of the reference's operators.

There they maintain an index of public steps; here that index is the records themselves, changed in the transaction that
changes them. So the callbacks answer what the index holds now, and there is never anything pending for cron.
"""

from __future__ import annotations

from brickless.hub.domain import prn
from brickless.hub.domain.errors import Malformed, NotFound, NotModified
from brickless.hub.domain.filters import EVERY_STATUS
from brickless.hub.domain.state import objects_by_path
from brickless.hub.domain.values import Step, Trail
from brickless.hub.http import encoding
from brickless.hub.http.messages import Request, Response, ok
from brickless.hub.http.operations import OperationRoutes
from brickless.hub.http.router import Route, Service
from brickless.hub.services.parts import Parts

_MAX_STEPS = 10_000


class InternalRoutes:
    """Handlers for who knows the operator's secret."""

    def __init__(self, parts: Parts, operations: OperationRoutes) -> None:
        self._parts = parts
        self._refused = operations.refused

    def services(self) -> tuple[Service, ...]:
        """The routes."""
        callbacks = (
            Route("PUT", "devices/{id}", self.device, summary="What is public of a device, for the operator"),
            Route("PUT", "steps/{id}", self.step, summary="What is public of a revision, for the operator"),
        )
        cron = (
            Route("PUT", "public/devices", self.nothing, summary="Devices that wait for the index: none"),
            Route("PUT", "public/steps", self.nothing, summary="Revisions that wait for the index: none"),
        )
        methods = ("PUT",)
        return (
            Service("/callbacks/", callbacks, bearer=False, methods=methods),
            Service("/cron/", cron, bearer=False, methods=methods),
        )

    async def nothing(self, request: Request) -> Response:
        """PUT /cron/public/…"""
        return self._refused(request) or ok([])

    async def device(self, request: Request) -> Response:
        """PUT /callbacks/devices/{id}."""
        refused = self._refused(request)
        if refused is not None:
            return refused
        device_id = prn.require_id(request.params["id"])
        known_ms = self._known(request)
        async with self._parts.db.read() as session:
            device = await session.devices.get(device_id)
            if device is None:
                raise NotFound("There is no such device")
            if known_ms is not None and device.modified_ms > known_ms:
                raise NotModified
            found = await session.trails.steps(device_id, EVERY_STATUS, after_rev=None, offset=0, limit=_MAX_STEPS)
        ids = [f"{device_id}-{step.rev}" for step in found]
        public, private = (ids, []) if device.public else ([], ids)
        return ok({"device_id": device_id, "steps_marked_as_public": public, "steps_marked_as_non_public": private})

    async def step(self, request: Request) -> Response:
        """PUT /callbacks/steps/{id}."""
        refused = self._refused(request)
        if refused is not None:
            return refused
        trail_id, _, rev = request.params["id"].rpartition("-")
        if not rev.isascii() or not rev.isdigit() or len(rev) > 9:
            raise Malformed("A step is named <device id>-<revision>")
        known_ms = self._known(request)
        async with self._parts.db.read() as session:
            trail = await session.trails.get(prn.require_id(trail_id))
            step = await session.trails.step(trail_id, int(rev))
        if trail is None or step is None:
            raise NotFound("There is no such step")
        if known_ms is not None and step.modified_ms > known_ms:
            raise NotModified
        return ok(_public_step(trail, step))

    @staticmethod
    def _known(request: Request) -> int | None:
        text = request.field("timemodified")
        if not text:
            return None
        try:
            return encoding.parse_rfc3339(text)
        except (ValueError, OverflowError) as error:
            raise Malformed("'timemodified' must be a time such as 2026-01-31T12:00:00Z") from error


def _public_step(trail: Trail, step: Step) -> dict[str, object]:
    modified = encoding.rfc3339(step.modified_ms)
    return {
        "step_id": f"{step.trail_id}-{step.rev}",
        "owner": trail.owner,
        "device_id": step.trail_id,
        "object_sha": sorted(set(objects_by_path(step.state).values())),
        "public": trail.public,
        "garbage": False,
        "timemodified": modified,
        "created_at": encoding.rfc3339(step.created_ms),
        "updated_at": modified,
    }
