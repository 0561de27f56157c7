"""Use cases of the change feed and of an account's overview (contract sections 6.3 and 6.5)."""

from __future__ import annotations

from typing import NamedTuple

from brickless.hub.domain.errors import Malformed
from brickless.hub.domain.plans import Limits
from brickless.hub.domain.values import Device, Identity, Step, Summary, Trail
from brickless.hub.services.parts import Parts
from brickless.hub.services.subscriptions import limits_of

MAX_PAGE = 250
_TOP = 5


class Overview(NamedTuple):
    """An account in figures, and the devices that did something last."""

    devices: int
    objects_bytes: int
    top: list[Summary]
    plan: str
    limits: Limits
    #: Of this month, as far as this replica and the database know.
    sent_bytes: int


class Changes:
    """What changed after or before a moment, ascending."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @staticmethod
    def _person(caller: Identity) -> None:
        if not caller.is_person:
            raise Malformed("Only people follow changes")

    async def devices(
        self, caller: Identity, *, after_ms: int | None, before_ms: int | None, limit: int
    ) -> list[Device]:
        """Devices by when they were modified."""
        self._person(caller)
        async with self._parts.db.read() as session:
            return await session.devices.changed(caller.prn, after_ms=after_ms, before_ms=before_ms, limit=limit)

    async def trails(self, caller: Identity, *, after_ms: int | None, before_ms: int | None, limit: int) -> list[Trail]:
        """Trails by when they were touched."""
        self._person(caller)
        async with self._parts.db.read() as session:
            return await session.trails.changed(caller.prn, after_ms=after_ms, before_ms=before_ms, limit=limit)

    async def steps(self, caller: Identity, *, after_ms: int | None, before_ms: int | None, limit: int) -> list[Step]:
        """Steps by when they were modified."""
        self._person(caller)
        async with self._parts.db.read() as session:
            return await session.trails.changed_steps(caller.prn, after_ms=after_ms, before_ms=before_ms, limit=limit)

    async def overview(self, caller: Identity) -> Overview:
        """Figures for the caller's account."""
        async with self._parts.db.read() as session:
            ids = await session.devices.ids_of(caller.account)
            used = await session.objects.usage_bytes(caller.account)
            rows = await session.trails.summaries(caller.account, None)
            plan, limits = await limits_of(self._parts, session, caller.account)
            traffic = self._parts.traffic
            saved = await session.traffic.of(caller.account, traffic.month())
        rows.sort(key=lambda row: max(row.trail_touched_ms, row.device.modified_ms), reverse=True)
        sent_bytes = saved.sent_bytes + traffic.unsaved(caller.account).sent_bytes
        return Overview(len(ids), used, rows[:_TOP], plan, limits, sent_bytes)
