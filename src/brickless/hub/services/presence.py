"""Who called last, and from where: kept in memory, written in batches, so that a poll costs no statement.

A crash loses at most the last interval of "last seen" times; nothing else depends on them.
"""

from __future__ import annotations

from brickless.hub.services.ports import Clock, Database


class Presence:
    """Last-seen times of devices."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._unsaved: dict[str, tuple[int, str]] = {}

    def seen(self, device_id: str, address: str) -> None:
        """The device has just called."""
        self._unsaved[device_id] = (self._clock.now_ms(), address)

    def last(self, device_id: str) -> tuple[int, str] | None:
        """When and from where the device called last, when that is not in the database yet."""
        return self._unsaved.get(device_id)

    def unsaved(self) -> int:
        """How many devices called since the last save."""
        return len(self._unsaved)

    async def save(self) -> int:
        """Write what is not written yet; returns for how many devices. What fails to be written is kept for later."""
        batch, self._unsaved = self._unsaved, {}
        if not batch:
            return 0
        try:
            async with self._db.write() as session:
                await session.devices.touch((key, *value) for key, value in batch.items())
        except BaseException:
            self._unsaved = {**batch, **self._unsaved}
            raise
        return len(batch)
