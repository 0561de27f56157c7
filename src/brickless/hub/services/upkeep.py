"""What is no longer needed goes, what is needed is looked after (contract section 4.7). Nothing in use is ever removed.

The order is what makes that true while the hub serves: devices first, then records that no step names, then bytes that
no record stands for. Bytes are removed inside a write transaction that has just found no record, and only when they are
old enough that no upload can be about to record them. Records go while nobody else holds one: a lock on the rows alone
would not do, because PostgreSQL does not look again at a condition once it waited for a row that did not change.
"""

from __future__ import annotations

from typing import NamedTuple

from brickless.hub.services.parts import Parts

_DAY_MS = 24 * 3600 * 1000
UNCLAIMED_MS = 5 * _DAY_MS
GARBAGE_MS = 2 * _DAY_MS
EVENTS_MS = 7 * _DAY_MS
#: An upload names its bytes and then records them; nothing takes an hour between the two.
_GRACE_S = 3600
_BATCH = 50


class Collected(NamedTuple):
    """What one run removed."""

    devices: int
    records: int
    blobs: int
    freed_bytes: int


class Upkeep:
    """Garbage collection and checks."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def collect(
        self, *, unclaimed_ms: int = UNCLAIMED_MS, garbage_ms: int = GARBAGE_MS, grace_s: int = _GRACE_S
    ) -> Collected:
        """Remove devices that nobody claimed, what deleted devices left, and objects that no revision names."""
        now_ms = self._parts.clock.now_ms()
        async with self._parts.db.write() as session:
            devices = await session.devices.expire(
                unclaimed_before_ms=now_ms - unclaimed_ms, deleted_before_ms=now_ms - garbage_ms
            )
        async with self._parts.db.write() as session:
            await session.events.forget(now_ms - EVENTS_MS)
            await session.webhooks.forget(now_ms - EVENTS_MS)
        async with self._parts.db.write() as session:
            # Whoever is about to name an object ends first: then the step counts. Whoever comes later finds no record.
            await session.objects.hold_all()
            records = await session.objects.forget_unused(now_ms - garbage_ms)
        blobs, freed_bytes = await self._collect_blobs(grace_s)
        return Collected(devices, records, blobs, freed_bytes)

    async def _collect_blobs(self, grace_s: int) -> tuple[int, int]:
        removed, freed_bytes = 0, 0
        batch: list[str] = []
        async for sha in self._parts.blobs.names(older_than_s=grace_s):
            batch.append(sha)
            if len(batch) == _BATCH:
                count, size_bytes = await self._remove(batch, grace_s)
                removed, freed_bytes, batch = removed + count, freed_bytes + size_bytes, []
        count, size_bytes = await self._remove(batch, grace_s)
        return removed + count, freed_bytes + size_bytes

    async def _remove(self, shas: list[str], grace_s: int) -> tuple[int, int]:
        removed, freed_bytes = 0, 0
        async with self._parts.db.write() as session:
            # Whoever links or records one of these waits, and looks again whether its bytes are there.
            await session.objects.hold_all()
            used = await session.objects.possessed(shas)
            for sha in shas:
                if sha not in used:
                    freed = await self._parts.blobs.remove(sha, older_than_s=grace_s)
                    freed_bytes, removed = freed_bytes + (freed or 0), removed + (freed is not None)
        return removed, freed_bytes

    async def check(self) -> list[str]:
        """Read every object that a record stands for; the faults as sentences, none when all is well."""
        async with self._parts.db.read() as session:
            needed = await session.objects.all_possessed()
        faults = []
        for sha, size_bytes in sorted(needed.items()):
            fault = await self._parts.blobs.fault(sha, size_bytes)
            if fault:
                faults.append(f"object {sha}: {fault}")
        return faults
