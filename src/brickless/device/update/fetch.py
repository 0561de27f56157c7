"""One attempt at fetching what a revision lacks: objects that break off are taken up again, and the bytes are counted.

A break that brought bytes is no strike: a large object over a bad link comes in many pieces. An object that brings
nothing three times, or is wrong three times, ends the attempt; whether another follows is decided by `core.update`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from brickless.core.errors import HostileInputError
from brickless.core.progress import Downloads as Totals
from brickless.device.config import Config
from brickless.device.link.http import HubUnreachableError
from brickless.device.link.hub import Hub, HubRefusedError
from brickless.device.link.wire import ObjectInfo
from brickless.device.update.download import Downloads, End, Outcome
from brickless.store.objects import ObjectStore

#: How often the bytes are reported.
HEARTBEAT_S = 5.0
_STRIKES = 3


class Look(NamedTuple):
    """What a look at the attempt shows; at most one of `whole`, `failed`, `disk_error` and `totals` is set."""

    whole: bool = False
    failed: bool = False
    broken: bool = False
    reason: str = ""
    disk_error: OSError | None = None
    totals: Totals | None = None


class Fetching:
    """The attempt. `due_s` is when `look` should be called even if no thread wakes the caller."""

    def __init__(
        self,
        infos: Mapping[str, ObjectInfo],
        objects: ObjectStore,
        hub: Hub,
        config: Config,
        wake: Callable[[], None],
    ) -> None:
        self._infos = dict(infos)
        self._objects = objects
        self._hub = hub
        self._config = config
        self._downloads = Downloads(objects, hub.transport, check=hub.check_scheme, wake=wake)
        self._strikes: dict[str, int] = {}
        self._again_at_s: dict[str, float] = {}
        self._left = set(self._infos)
        self._beat_s = 0.0
        self._began_s = int(time.time())

    def start(self, now_s: float) -> None:
        """Begins."""
        self._downloads.start(self._infos.values(), self._max_count)
        self._beat_s = now_s + HEARTBEAT_S

    @property
    def _max_count(self) -> int:
        return self._config.integer("PH_UPDATER_TRANSFER_MAX_COUNT")

    @property
    def due_s(self) -> float:
        """When there is something to do, on the monotonic clock."""
        return min(self._beat_s, *self._again_at_s.values()) if self._again_at_s else self._beat_s

    def hurry(self) -> None:
        """Ends the pauses."""
        self._again_at_s = dict.fromkeys(self._again_at_s, 0.0)

    def stop(self) -> None:
        """Ends the threads; what came stays."""
        self._downloads.stop()

    def look(self, now_s: float) -> Look:
        """What has happened since the last look. Raises HubUnreachableError when a new address cannot be asked for."""
        reason = ""
        for outcome in self._downloads.ended():
            found = self._ended(outcome, now_s)
            if found.failed or found.disk_error is not None:
                return found
            reason = found.reason or reason
        if not self._left:
            return Look(whole=True)
        found = self._take_up(now_s)
        if found.failed:
            return found
        if now_s < self._beat_s:
            return Look(reason=reason)
        self._beat_s = now_s + HEARTBEAT_S
        total = sum(info.size_bytes for info in self._infos.values())
        return Look(
            reason=reason, totals=Totals(total, self._downloads.received_bytes, self._began_s, int(time.time()))
        )

    def _ended(self, outcome: Outcome, now_s: float) -> Look:
        sha = outcome.info.sha
        if outcome.end is End.WHOLE:
            self._left.discard(sha)
            return Look()
        if outcome.disk_error is not None:
            return Look(reason=outcome.reason, disk_error=outcome.disk_error)
        if not outcome.gained_bytes:
            self._strikes[sha] = self._strikes.get(sha, 0) + 1
        strikes = self._strikes.get(sha, 0)
        if strikes >= _STRIKES:
            return Look(failed=True, broken=outcome.end is End.BROKEN, reason=outcome.reason)
        self._again_at_s[sha] = now_s + self._config.seconds("PH_UPDATER_INTERVAL") * strikes
        return Look(reason=outcome.reason)

    def _take_up(self, now_s: float) -> Look:
        """Objects whose pause is over get a new address, for the old one may have expired, and are fetched on."""
        for sha in [sha for sha, at_s in self._again_at_s.items() if at_s <= now_s]:
            try:
                self._infos[sha] = self._hub.object_info(sha)
            except HubUnreachableError:
                self._again_at_s[sha] = now_s + self._config.seconds("PH_UPDATER_INTERVAL")
                raise
            except (HubRefusedError, HostileInputError) as error:
                return Look(failed=True, reason=str(error))
            del self._again_at_s[sha]
            self._downloads.start([self._infos[sha]], self._max_count)
        return Look()
