"""How many bytes of objects an account sent and received, by month: counted in memory, written in batches.

A crash loses at most the last interval. What counts is what was asked for: a download that its client breaks off counts
whole, one that nobody starts does not.
"""

from __future__ import annotations

from datetime import UTC, datetime

from brickless.hub.services.ports import Clock, Database
from brickless.hub.services.ports_apps import Moved


class Traffic:
    """Bytes that passed."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._unsaved: dict[tuple[str, str], Moved] = {}

    def month(self) -> str:
        """The month now, in UTC, such as 2026-11."""
        return datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).strftime("%Y-%m")

    def count(self, owner: str, *, sent_bytes: int = 0, received_bytes: int = 0) -> None:
        """Bytes that went out of the account's objects, or came into them."""
        key = (owner, self.month())
        was = self._unsaved.get(key, Moved(0, 0))
        self._unsaved[key] = Moved(was.sent_bytes + sent_bytes, was.received_bytes + received_bytes)

    def unsaved(self, owner: str) -> Moved:
        """What is not in the database yet of this month."""
        return self._unsaved.get((owner, self.month()), Moved(0, 0))

    async def save(self) -> int:
        """Write what is not written yet; returns for how many accounts. What fails to be written is kept for later."""
        batch, self._unsaved = self._unsaved, {}
        if not batch:
            return 0
        try:
            async with self._db.write() as session:
                for (owner, month), moved in sorted(batch.items()):
                    await session.traffic.add(owner, month, moved)
        except BaseException:
            for (owner, month), moved in batch.items():
                newer = self._unsaved.get((owner, month), Moved(0, 0))
                self._unsaved[owner, month] = Moved(
                    newer.sent_bytes + moved.sent_bytes, newer.received_bytes + moved.received_bytes
                )
            raise
        return len(batch)
