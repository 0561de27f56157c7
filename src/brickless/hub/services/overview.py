"""Use cases of the dashboard's lists: searching and counting devices."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from brickless.hub.domain import fleet_labels, jsontext
from brickless.hub.domain.events import Event
from brickless.hub.domain.fleet_lists import ContainerCount, Listed, Page, Search, mood
from brickless.hub.domain.values import Identity
from brickless.hub.services.parts import Parts
from brickless.hub.services.ports import Session

_ONLINE_MS = 15 * 60 * 1000
_TOP_VERSIONS = 12
_NEWS = 12
_SENTENCES = {
    "device.created": "belongs to this account now",
    "device.changed": "was changed",
    "device.removed": "was removed",
    "step.posted": "gets revision {rev} {commit-msg}",
    "step.progress": "revision {rev}: {status}",
    "rollout.changed": "{state} {reason}",
    "release.created": "is a new release",
}


class News(NamedTuple):
    """An event as a sentence: `name` is what it is about, and `place` the page of it, if there is one."""

    time_ms: int
    name: str
    place: str
    text: str


class Fleet(NamedTuple):
    """An account at a glance."""

    devices: int
    online: int
    moods: dict[str, int]
    statuses: dict[str, int]
    versions: list[ContainerCount]
    news: list[News]


class Overviews:
    """Fleets at a glance."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def search(self, caller: Identity, search: Search) -> Page:
        """One page of the account's devices by nick. Raises Malformed for a bad selector."""
        selector = fleet_labels.parse(search.labels)
        async with self._parts.db.read() as session:
            page = await session.overview.page(caller.account, search, selector)
        return page._replace(devices=[self._now(device) for device in page.devices])

    def _now(self, device: Listed) -> Listed:
        seen = self._parts.presence.last(device.id)
        return device if seen is None else device._replace(seen_ms=seen[0])

    async def fleet(self, caller: Identity) -> Fleet:
        """Everything at a glance."""
        since_ms = self._parts.clock.now_ms() - _ONLINE_MS
        async with self._parts.db.read() as session:
            statuses = await session.overview.statuses(caller.account)
            online = await session.overview.seen_since(caller.account, since_ms)
            versions = await session.overview.versions(caller.account, limit=_TOP_VERSIONS)
            news = await session.events.latest(caller.account, limit=_NEWS)
            told = [await self._told(session, event) for event in news]
        moods = dict.fromkeys(("good", "busy", "bad", "still"), 0)
        for status, count in statuses.items():
            moods[mood(status)] += count
        return Fleet(sum(statuses.values()), online, moods, statuses, versions, told)

    @staticmethod
    async def _told(session: Session, event: Event) -> News:
        data = jsontext.load_stored(event.data)
        text = _SENTENCES.get(event.kind, event.kind).format_map(defaultdict(str, {**data, "kind": event.kind}))
        if not event.kind.startswith(("device.", "step.")):
            return News(event.time_ms, str(data.get("name") or event.subject), "", text)
        device = await session.devices.get(event.subject)
        if device is None:
            return News(event.time_ms, str(data.get("nick") or event.subject), "", text)
        return News(event.time_ms, device.nick, f"/dash-ui/devices/{device.id}", text)
