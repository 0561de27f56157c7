"""Use cases of trails and steps (contract section 3): a device's revisions, and what becomes of each."""

from __future__ import annotations

import json
from typing import NamedTuple

from brickless.core import canonical
from brickless.hub.domain import prn
from brickless.hub.domain import progress as progresses
from brickless.hub.domain.errors import Conflict, Forbidden, Malformed, NotFound, Unprocessable
from brickless.hub.domain.filters import Projection, StatusFilter
from brickless.hub.domain.jsontext import Value
from brickless.hub.domain.objects import storage_id
from brickless.hub.domain.state import CheckedState
from brickless.hub.domain.values import Identity, Step, Summary, Trail
from brickless.hub.services import audit
from brickless.hub.services.parts import Parts
from brickless.hub.services.ports import Session
from brickless.hub.services.possession import require_objects

MAX_REV = 2**31 - 2
_MAX_COMMIT_MSG_CHARS = 64 * 1024


class StepPage(NamedTuple):
    """What a step list asks for. `status` None means the default of section 3.7."""

    status: StatusFilter | None = None
    projection: Projection = Projection(None, frozenset())
    after_rev: int | None = None
    offset: int = 0
    limit: int | None = None


class Trails:
    """Trails and steps."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    # -- who ---------------------------------------------------------------------------------------------------------

    async def _trail(self, session: Session, trail_id: str) -> Trail:
        prn.require_id(trail_id)
        trail = await session.trails.get(trail_id)
        if trail is None:
            raise NotFound("There is no such trail")
        return trail

    async def readable(self, session: Session, caller: Identity, trail_id: str) -> Trail:
        """The trail when the caller may read it. Raises Malformed, NotFound or Forbidden."""
        trail = await self._trail(session, trail_id)
        if trail.public:
            return trail
        allowed = caller.prn == trail.device if caller.is_device else caller.is_person and caller.prn == trail.owner
        if not allowed:
            raise Forbidden("This trail is private")
        return trail

    async def _owned(self, session: Session, caller: Identity, trail_id: str) -> Trail:
        trail = await self._trail(session, trail_id)
        if not caller.is_person or caller.prn != trail.owner:
            raise Forbidden("Only the owner of the device may do this")
        return trail

    # -- trails ------------------------------------------------------------------------------------------------------

    async def create(self, caller: Identity, state: CheckedState, *, autolink: bool) -> Trail:
        """The trail of the calling device with its factory revision, both or neither.

        Raises Forbidden for who is no claimed device, Conflict for a second trail, Unprocessable for a bad state.
        """
        device_id = prn.device_id(caller.prn)
        if not caller.is_device or device_id is None:
            raise Forbidden("Only a device creates its trail")
        if not caller.owner:
            raise Forbidden("The device is not claimed yet")
        now_ms = self._parts.clock.now_ms()
        audit.named(id=device_id)
        async with self._parts.db.write() as session:
            device = await session.devices.get(device_id)
            if device is None or device.owner != caller.owner:
                raise Forbidden("The device is gone or changed hands; log in again")
            await require_objects(self._parts, session, caller.owner, state, autolink=autolink)
            used = self._used(caller.owner, state)
            trail = Trail(device_id, caller.owner, device.public, state.raw, used, now_ms, now_ms)
            if not await session.trails.add(trail):
                raise Conflict("The device has a trail already")
            step = self._step(trail, 0, state, committer="", message="Factory State (rev 0)", meta={}, used=used)
            await session.trails.add_step(step, state.objects)
        self._parts.changed(trail.owner, device_id)
        return trail

    @staticmethod
    def _used(owner: str, state: CheckedState) -> str:
        return json.dumps([storage_id(owner, sha) for sha in state.objects] or None, separators=(",", ":"))

    def _step(
        self,
        trail: Trail,
        rev: int,
        state: CheckedState,
        *,
        committer: str,
        message: str,
        meta: dict[str, Value],
        used: str,
    ) -> Step:
        now_ms = self._parts.clock.now_ms()
        status = progresses.NEW if rev else progresses.DONE
        return Step(
            trail_id=trail.id,
            rev=rev,
            owner=trail.owner,
            committer=committer,
            commit_msg=message,
            state=state.raw,
            state_sha=state.sha,
            meta=canonical.dumps(meta).decode(),
            used_objects=used,
            status=status,
            progress=canonical.dumps(progresses.fresh(status)).decode(),
            progress_ms=0 if rev else now_ms,
            step_ms=now_ms,
            created_ms=now_ms,
            modified_ms=now_ms,
        )

    async def of(self, caller: Identity) -> list[Trail]:
        """The caller's trails: a device has none or one, a person those of all devices."""
        async with self._parts.db.read() as session:
            if caller.is_device:
                trail = await session.trails.get(prn.device_id(caller.prn) or "")
                return [trail] if trail is not None else []
            if not caller.is_person:
                raise Forbidden("Only devices and people have trails")
            return await session.trails.of(caller.prn)

    async def get(self, caller: Identity, trail_id: str) -> Trail:
        """One trail."""
        async with self._parts.db.read() as session:
            return await self.readable(session, caller, trail_id)

    async def summaries(self, caller: Identity, trail_id: str | None = None) -> list[Summary]:
        """One row a device of the caller, or one row."""
        if not caller.is_person:
            raise Forbidden("Only people read summaries")
        if trail_id is not None:
            prn.require_id(trail_id)
        async with self._parts.db.read() as session:
            found = await session.trails.summaries(caller.prn, trail_id)
        if trail_id is not None and not found:
            raise NotFound("There is no such trail")
        return found

    async def newest_rev(self, caller: Identity, trail_id: str) -> int:
        """The highest revision of a readable trail."""
        async with self._parts.db.read() as session:
            await self.readable(session, caller, trail_id)
            rev = await session.trails.newest_rev(trail_id)
        if rev is None:
            raise NotFound("The trail has no step")
        return rev

    async def trail_of_nicks(self, caller: Identity, user_nick: str, device_nick: str) -> str:
        """The trail id behind `/<user>/<device>`, for whoever may read it; NotFound for everybody else."""
        async with self._parts.db.read() as session:
            account = await session.accounts.by_nick(user_nick)
            device = await session.devices.by_nick(account.prn, device_nick) if account is not None else None
            if device is None or not (device.public or caller.prn in {device.owner, device.prn}):
                raise NotFound("There is no such device")
        return device.id

    # -- steps -------------------------------------------------------------------------------------------------------

    async def post(
        self,
        caller: Identity,
        trail_id: str,
        *,
        rev: int,
        message: str,
        state: CheckedState,
        meta: dict[str, Value],
        autolink: bool,
    ) -> Step:
        """A new revision; -1 asks for the next free number, which is given inside the transaction.

        Raises Conflict for a number that is taken, Unprocessable for a gap or a bad state, Forbidden for strangers. A
        device posts to its own trail only: one compromised device must not reach its siblings (section 11.3).
        """
        if len(message) > _MAX_COMMIT_MSG_CHARS:
            raise Malformed(f"The commit message is longer than {_MAX_COMMIT_MSG_CHARS} characters")
        async with self._parts.db.write() as session:
            trail = await self._trail(session, trail_id)
            if caller.prn != (trail.device if caller.is_device else trail.owner):
                raise Forbidden("Only the owner and the device itself post revisions")
            rev = await self._allocate(session, trail_id, rev)
            audit.named(rev=rev)
            await require_objects(self._parts, session, trail.owner, state, autolink=autolink)
            used = self._used(trail.owner, state)
            step = self._step(trail, rev, state, committer=caller.prn, message=message, meta=meta, used=used)
            if not await session.trails.add_step(step, state.objects):
                raise Conflict(f"Revision {rev} exists already")
            await session.trails.touch(trail_id, step.created_ms)
        self._parts.changed(trail.owner, trail_id)
        return step

    @staticmethod
    async def _allocate(session: Session, trail_id: str, rev: int) -> int:
        newest = await session.trails.newest_rev(trail_id)
        if newest is None:
            raise NotFound("The trail has no step")
        if rev == -1:
            rev = newest + 1
        if not 0 <= rev <= MAX_REV:
            raise Malformed(f"A revision is a number from 0 to {MAX_REV}, or -1 for the next one")
        if rev <= newest:
            raise Conflict(f"Revision {rev} exists already; the newest is {newest}")
        if rev != newest + 1:
            raise Unprocessable(f"Revision {rev - 1} does not exist; the newest is {newest}")
        return rev

    async def steps(self, caller: Identity, trail_id: str, page: StepPage) -> list[Step]:
        """Steps by ascending revision. Default: what is NEW on public trails and for devices, else what is not DONE."""
        async with self._parts.db.read() as session:
            trail = await self.readable(session, caller, trail_id)
            status, limit = page.status, page.limit
            if status is None:
                new_only = trail.public or caller.is_device
                status = StatusFilter(new_only, frozenset({progresses.NEW if new_only else progresses.DONE}))
                limit = 1 if caller.is_device else limit
            return await session.trails.steps(
                trail_id, status, after_rev=page.after_rev, offset=page.offset, limit=limit
            )

    async def step(self, caller: Identity, trail_id: str, rev: int) -> Step:
        """One step of a readable trail."""
        async with self._parts.db.read() as session:
            await self.readable(session, caller, trail_id)
            return await self._existing(session, trail_id, rev)

    @staticmethod
    async def _existing(session: Session, trail_id: str, rev: int) -> Step:
        step = await session.trails.step(trail_id, rev) if 0 <= rev <= MAX_REV else None
        if step is None:
            raise NotFound("There is no such revision")
        return step

    async def set_state(
        self, caller: Identity, trail_id: str, rev: int, state: CheckedState, *, autolink: bool
    ) -> None:
        """Replace the state of a step that no device has taken yet. Raises Conflict later than that."""
        now_ms = self._parts.clock.now_ms()
        async with self._parts.db.write() as session:
            trail = await self._owned(session, caller, trail_id)
            step = await self._existing(session, trail_id, rev)
            if step.status != progresses.NEW:
                raise Conflict(f"Only a NEW step can be edited; revision {rev} is {step.status}")
            await require_objects(self._parts, session, trail.owner, state, autolink=autolink)
            await session.trails.set_state(
                trail_id, rev, state=state.raw, sha=state.sha, used=self._used(trail.owner, state),
                objects=state.objects, modified_ms=now_ms,
            )  # fmt: skip
            await session.trails.touch(trail_id, now_ms)
        self._parts.changed(trail.owner, trail_id)

    async def set_meta(self, caller: Identity, trail_id: str, rev: int, meta: dict[str, Value]) -> dict[str, Value]:
        """Replace the step's meta map."""
        async with self._parts.db.write() as session:
            trail = await self._owned(session, caller, trail_id)
            text = canonical.dumps(meta).decode()
            if not await session.trails.set_meta(trail_id, rev, text, self._parts.clock.now_ms()):
                raise NotFound("There is no such revision")
        self._parts.changed(trail.owner, trail_id)
        return meta

    async def report(self, caller: Identity, trail_id: str, rev: int, body: dict[str, Value]) -> dict[str, Value]:
        """A device's progress on one of its own steps: replaces what was known. Answers what is stored."""
        if not caller.is_device:
            raise Forbidden("Only a device reports progress")
        prn.require_id(trail_id)
        if caller.prn != prn.device(trail_id):
            raise Malformed("A device reports progress on its own steps only")
        stored = progresses.normalise(body)
        status, now_ms = str(stored["status"]), self._parts.clock.now_ms()
        async with self._parts.db.write() as session:
            trail = await self._trail(session, trail_id)
            text = canonical.dumps(stored).decode()
            done = 0 <= rev <= MAX_REV and await session.trails.set_progress(
                trail_id, rev, status=status, progress=text, progress_ms=now_ms, modified_ms=now_ms
            )
            if not done:
                raise Malformed("There is no such revision on this device's trail")
            await session.trails.touch(trail_id, now_ms, insync=status in progresses.REACHED)
        self._parts.changed(trail.owner, trail_id)
        return stored

    async def by_owner(self, caller: Identity, trail_id: str, rev: int, action: str) -> dict[str, Value]:
        """An owner's `cancel` (of a NEW step) or `wontgo` (of one INPROGRESS)."""
        now_ms = self._parts.clock.now_ms()
        async with self._parts.db.write() as session:
            trail = await self._owned(session, caller, trail_id)
            step = await self._existing(session, trail_id, rev)
            try:
                stored = progresses.by_owner(action, step.status)
            except Conflict as error:
                raise Malformed(error.message) from error
            await session.trails.set_progress(
                trail_id, rev, status=str(stored["status"]), progress=canonical.dumps(stored).decode(),
                progress_ms=None, modified_ms=now_ms, source="owner",
            )  # fmt: skip
            await session.trails.touch(trail_id, now_ms)
        self._parts.changed(trail.owner, trail_id)
        return stored
