"""How often one address or one name may fail, and how often one address may register: token buckets in memory.

Each replica counts for itself, so N replicas allow N times the rate: the limits stop guessing, they do not meter.
"""

from __future__ import annotations

from collections import OrderedDict

from brickless.hub.domain.errors import RateLimited
from brickless.hub.services.ports import Clock

_MAX_KEYS = 50_000


class Limiter:
    """Buckets by key: `per_minute` tokens, refilled evenly. The oldest keys are forgotten beyond _MAX_KEYS."""

    def __init__(self, clock: Clock, per_minute: int, what: str, *, enabled: bool = True) -> None:
        self._clock = clock
        self._per_minute = per_minute
        self._what = what
        self._enabled = enabled
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def _level(self, key: str) -> tuple[float, float]:
        now_s = self._clock.monotonic_s()
        level, since_s = self._buckets.get(key, (float(self._per_minute), now_s))
        return min(float(self._per_minute), level + (now_s - since_s) * self._per_minute / 60), now_s

    def check(self, *keys: str) -> None:
        """Raise RateLimited when one of the keys has used up its tokens."""
        if not self._enabled:
            return
        for key in keys:
            level, _ = self._level(key)
            if level < 1:
                retry_after_s = int((1 - level) * 60 / self._per_minute) + 1
                raise RateLimited(f"Too many {self._what}; try again later", retry_after_s=retry_after_s)

    def spend(self, *keys: str) -> None:
        """Take a token from each key."""
        if not self._enabled:
            return
        for key in keys:
            level, now_s = self._level(key)
            self._buckets[key] = (max(0.0, level - 1), now_s)
            self._buckets.move_to_end(key)
        while len(self._buckets) > _MAX_KEYS:
            self._buckets.popitem(last=False)
