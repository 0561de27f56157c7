"""What each device's state becomes with a release in it, worked out once for all devices of the same state."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from brickless.core.canonical import JsonValue
from brickless.hub.domain import fleet_release
from brickless.hub.domain.errors import Refusal
from brickless.hub.domain.fleet import Release
from brickless.hub.domain.fleet_release import Fit
from brickless.hub.services.parts import Parts
from brickless.hub.services.ports import Session
from brickless.hub.services.possession import require_objects

_MAX_KEPT = 256


class Place(NamedTuple):
    """A revision of a trail and its state's hash."""

    trail_id: str
    rev: int
    sha: str


class Undo(NamedTuple):
    """A release whose parts a device has and must not keep, and the revision that its former parts are in."""

    release: Release
    former: Place


def _texts(undo: tuple[Undo, ...]) -> list[str]:
    return [text for one in undo for text in (one.release.id, one.former.sha)]


async def _entries(session: Session, place: Place, undo: tuple[Undo, ...] = ()) -> dict[str, JsonValue]:
    """The entries of a revision, with the former parts of `undo` in place of theirs."""
    entries = fleet_release.entries_of(await session.fleet_trails.state(place.trail_id, place.rev))
    for one in undo:
        former = fleet_release.entries_of(await session.fleet_trails.state(one.former.trail_id, one.former.rev))
        entries = fleet_release.taken_back(entries, former, one.release)
    return entries


class Fitter:
    """Merged and checked states by what they were made from; a want of objects is not remembered, it may be met."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._known: OrderedDict[tuple[str, ...], Fit] = OrderedDict()

    async def fit(
        self, session: Session, owner: str, release: Release, base: Place, undo: tuple[Undo, ...] = ()
    ) -> Fit:
        """A device's own state, without the parts of `undo`, with the release in it."""
        key = (owner, "on", release.id, base.sha, *_texts(undo))
        if (known := self._get(key)) is not None:
            return known
        entries = await _entries(session, base, undo)
        try:
            entries = fleet_release.applied(entries, release)
        except Refusal as error:
            return self._keep(key, Fit(None, error.message))
        return await self._checked(session, owner, key, fleet_release.fit(entries, max_bytes=self._max_bytes))

    async def back(
        self, session: Session, owner: str, release: Release, base: Place, former: Place, undo: tuple[Undo, ...] = ()
    ) -> Fit:
        """A device's own state with its former parts, without those of `undo`, where the release's are."""
        key = (owner, "off", release.id, base.sha, former.sha, *_texts(undo))
        if (known := self._get(key)) is not None:
            return known
        own, before = await _entries(session, base), await _entries(session, former, undo)
        entries = fleet_release.taken_back(own, before, release)
        return await self._checked(session, owner, key, fleet_release.fit(entries, max_bytes=self._max_bytes))

    async def same(self, session: Session, owner: str, base: Place) -> Fit:
        """A device's own state as it is."""
        key = (owner, "same", base.sha)
        if (known := self._get(key)) is not None:
            return known
        entries = await _entries(session, base)
        return await self._checked(session, owner, key, fleet_release.fit(entries, max_bytes=self._max_bytes))

    async def has(self, session: Session, release: Release, base: Place) -> bool:
        """Whether a device's own state has exactly the release's parts."""
        key = ("has", release.id, base.sha)
        if (known := self._get(key)) is not None:
            return not known.reason
        own = await _entries(session, base)
        return not self._keep(key, Fit(None, "" if fleet_release.has(own, release) else "no")).reason

    @property
    def _max_bytes(self) -> int:
        return self._parts.policy.max_state_bytes

    async def _checked(self, session: Session, owner: str, key: tuple[str, ...], fit: Fit) -> Fit:
        if fit.state is None:
            return self._keep(key, fit)
        try:
            await require_objects(self._parts, session, owner, fit.state, autolink=False)
        except Refusal as error:
            return Fit(None, error.message)
        return self._keep(key, fit)

    def _get(self, key: tuple[str, ...]) -> Fit | None:
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
        return found

    def _keep(self, key: tuple[str, ...], fit: Fit) -> Fit:
        self._known[key] = fit
        if len(self._known) > _MAX_KEPT:
            self._known.popitem(last=False)
        return fit
