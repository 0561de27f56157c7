"""Local time from the machine's time zone database."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from brickless.hub.domain.fleet_window import Offset, utc


@lru_cache(maxsize=1024)
def offset_of(name: str) -> Offset | None:
    """Seconds that a zone is ahead of UTC, as a function of the moment in milliseconds; None for an unknown zone."""
    if name == "UTC":
        return utc
    try:
        zone = ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # A name from a label: one that is too long, is a folder, or leads out of the database is unknown, too.
        return None

    def offset(now_ms: int) -> int:
        there = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(zone).utcoffset()
        return 0 if there is None else int(there.total_seconds())

    return offset
