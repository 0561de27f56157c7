"""Use cases of rollouts: look ahead, begin, watch, pause, resume, abort, finish, roll back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from brickless.hub.domain import fleet_labels, fleet_phases, fleet_release, prn
from brickless.hub.domain.errors import Conflict, Forbidden, Malformed, NotFound, TooLarge, Unprocessable
from brickless.hub.domain.fleet import ACTIVE, Member, MemberState, Release, Rollout, RolloutState, Spec
from brickless.hub.domain.rollout_rule import Evidence
from brickless.hub.domain.values import Identity
from brickless.hub.services import audit
from brickless.hub.services.fleet_driver import halted
from brickless.hub.services.fleet_fitting import Fitter, Place
from brickless.hub.services.fleet_ports import Head, Labelled
from brickless.hub.services.fleet_sync import new_members
from brickless.hub.services.fleets import check_name
from brickless.hub.services.parts import Parts
from brickless.hub.services.ports import Session

_MAX_OPEN = 200
_MAX_REASON_CHARS = 400
#: Distinct states that a look ahead merges; the rest are checked when their turn comes.
_MAX_CHECKED = 200
MAX_PAGE = 1000


class RolloutDraft(NamedTuple):
    """What an operator asks for. `release` is a name or an id."""

    release: str
    selector: str
    name: str = ""
    spec: Spec = Spec()


class Overview(NamedTuple):
    """A rollout with its release's name and how many devices are in which state."""

    rollout: Rollout
    release_name: str
    counts: dict[MemberState, int]


class MemberRow(NamedTuple):
    """A member with its device's name, or with its rollout's name where the device is known."""

    member: Member
    name: str


class Preview(NamedTuple):
    """What a rollout would do: how many devices, how many of them in which phase, which would refuse it, and why."""

    matched: int
    phases: tuple[int, ...]
    unfit: dict[str, int]
    unchecked: int
    rivals: tuple[str, ...]


class Rollouts:
    """Rollouts of an account."""

    def __init__(self, parts: Parts, wake: Callable[[], None]) -> None:
        self._parts = parts
        self._wake = wake

    @staticmethod
    def _person(caller: Identity) -> str:
        if not caller.is_person:
            raise Forbidden("Only people manage fleets")
        return caller.prn

    # -- looking -----------------------------------------------------------------------------------------------------

    async def all(self, caller: Identity, *, offset: int = 0, limit: int = 50) -> list[Overview]:
        """The account's rollouts, newest first."""
        async with self._parts.db.read() as session:
            found = await session.fleets.rollouts(self._person(caller), offset=offset, limit=limit)
            return await self._overviews(session, found)

    @staticmethod
    async def _overviews(session: Session, rollouts: list[Rollout]) -> list[Overview]:
        counts = await session.members.counts(one.id for one in rollouts)
        names: dict[str, str] = {}
        for one in rollouts:
            if one.release_id not in names:
                release = await session.fleets.release(one.owner, one.release_id)
                names[one.release_id] = release.name if release is not None else one.release_id[:12]
        return [Overview(one, names[one.release_id], counts.get(one.id, {})) for one in rollouts]

    async def get(self, caller: Identity, name: str) -> Overview:
        """One rollout by id or name."""
        async with self._parts.db.read() as session:
            rollout = await self._own(session, caller, name)
            return (await self._overviews(session, [rollout]))[0]

    async def _own(self, session: Session, caller: Identity, name: str) -> Rollout:
        owner = self._person(caller)
        found = await session.fleets.rollout(name) if prn.is_id(name) else await session.fleets.named(owner, name)
        if found is None or found.owner != owner:
            raise NotFound("There is no such rollout in this account")
        return found

    async def members(
        self, caller: Identity, name: str, *, state: MemberState | None = None, after: str = "", limit: int = 100
    ) -> list[MemberRow]:
        """Devices of a rollout by device id, those behind `after`."""
        async with self._parts.db.read() as session:
            rollout = await self._own(session, caller, name)
            found = await session.members.page(rollout.id, state=state, after=after, limit=min(limit, MAX_PAGE))
        return [MemberRow(member, nick) for member, nick in found]

    async def of_device(self, caller: Identity, device_id: str) -> list[MemberRow]:
        """A device in all its rollouts, the last change first."""
        prn.require_id(device_id)
        async with self._parts.db.read() as session:
            device = await session.devices.get(device_id)
            if device is None or device.owner != self._person(caller):
                raise NotFound("There is no such device in this account")
            rows = []
            for member in await session.members.of_device(device_id):
                rollout = await session.fleets.rollout(member.rollout_id)
                if rollout is not None and rollout.owner == device.owner:
                    rows.append(MemberRow(member, rollout.name))
        return rows

    # -- looking ahead -----------------------------------------------------------------------------------------------

    async def preview(self, caller: Identity, draft: RolloutDraft) -> Preview:
        """What a rollout would do, without doing it. Raises what `create` raises for the same draft."""
        async with self._parts.db.read() as session:
            release = await self._release(session, caller, draft)
            return await self._look_ahead(session, caller.prn, release, draft)

    async def _release(self, session: Session, caller: Identity, draft: RolloutDraft) -> Release:
        fleet_labels.parse(draft.selector)
        release = await session.fleets.release(self._person(caller), draft.release)
        if release is None:
            raise NotFound("There is no such release in this account")
        return release

    async def _look_ahead(self, session: Session, owner: str, release: Release, draft: RolloutDraft) -> Preview:
        selector = fleet_labels.parse(draft.selector)
        matched = [one for one in await session.fleets.labelled(owner) if selector.matches(one.labels)]
        chosen = {one.device_id: one.labels for one in matched}
        waves = Counter(fleet_phases.waves(draft.spec.phases, "0" * 24, chosen).values())
        heads = await session.fleet_trails.heads(chosen)
        unfit, unchecked = await self._unfit(session, owner, release, matched, heads)
        rivals = await self._rivals(session, owner, release)
        phases = tuple(waves[number] for number in range(len(draft.spec.phases) + 1))
        return Preview(len(matched), phases, dict(unfit), unchecked, rivals)

    async def _unfit(
        self, session: Session, owner: str, release: Release, matched: list[Labelled], heads: dict[str, Head]
    ) -> tuple[Counter[str], int]:
        """How many devices would refuse the release, by reason; and how many were not asked for."""
        unfit: Counter[str] = Counter()
        by_state: dict[str, list[str]] = {}
        hashes = await session.fleet_trails.hashes((one.device_id, one.done_rev) for one in heads.values())
        for device in matched:
            head = heads.get(device.device_id)
            if head is None:
                unfit["the device has no trail"] += 1
            elif release.types and device.labels.get("type", "") not in release.types:
                unfit[f"its type is {device.labels.get('type', '')!r}, not {' or '.join(release.types)}"] += 1
            else:
                by_state.setdefault(hashes[device.device_id, head.done_rev], []).append(device.device_id)
        fitter, unchecked = Fitter(self._parts), 0
        for number, (sha, devices) in enumerate(by_state.items()):
            if number >= _MAX_CHECKED:
                unchecked += len(devices)
                continue
            place = Place(devices[0], heads[devices[0]].done_rev, sha)
            fit = await fitter.fit(session, owner, release, place)
            if fit.state is None:
                unfit[fit.reason] += len(devices)
        return unfit, unchecked

    @staticmethod
    async def _rivals(session: Session, owner: str, release: Release) -> tuple[str, ...]:
        """Rollouts under way that touch the same parts."""
        names = []
        for rollout in await session.fleets.open_rollouts(owner):
            theirs = await session.fleets.release(owner, rollout.release_id)
            if rollout.state in ACTIVE and theirs is not None and fleet_release.overlap(theirs, release):
                names.append(rollout.name)
        return tuple(names)

    # -- doing -------------------------------------------------------------------------------------------------------

    async def create(self, caller: Identity, draft: RolloutDraft) -> Overview:
        """Begin a rollout.

        Raises Conflict for a name that is taken, Unprocessable when every device that the selector matches now would
        refuse the release.
        """
        now_ms = self._parts.clock.now_ms()
        if draft.name:
            check_name(draft.name, "rollout")
        async with self._parts.db.read() as session:
            release = await self._release(session, caller, draft)
            ahead = await self._look_ahead(session, caller.prn, release, draft)
            if len(await session.fleets.open_rollouts(caller.prn)) >= _MAX_OPEN:
                raise TooLarge(f"An account has at most {_MAX_OPEN} rollouts under way")
        if ahead.matched and sum(ahead.unfit.values()) == ahead.matched:
            raise Unprocessable(f"Every device would refuse this release: {'; '.join(sorted(ahead.unfit)[:3])}")
        rollout = self._new(caller, release, draft, now_ms)
        audit.named(rollout=rollout.id, name=rollout.name, release=release.name)
        async with self._parts.db.write() as session:
            devices = await session.fleets.labelled(caller.prn)
            members = new_members(rollout, devices, now_ms)
            rollout = replace(rollout, members=len(members))
            if not await session.fleets.add_rollout(rollout):
                raise Conflict(f"There is another rollout of the name {rollout.name}")
            await session.members.add(members)
        self._changed(rollout)
        return await self.get(caller, rollout.id)

    def _new(self, caller: Identity, release: Release, draft: RolloutDraft, now_ms: int) -> Rollout:
        record_id = self._parts.entropy.record_id()
        return Rollout(
            id=record_id,
            owner=caller.prn,
            name=draft.name or f"{release.name[:48]}-{record_id[-6:]}",
            release_id=release.id,
            selector=str(fleet_labels.parse(draft.selector)),
            spec=draft.spec,
            state=RolloutState.RUNNING,
            reason="it has just begun",
            wave=0,
            wave_since_ms=0,
            assigned=0,
            frontier=0,
            evidence=Evidence(),
            members=0,
            synced_ms=now_ms,
            created_ms=now_ms,
            modified_ms=now_ms,
            ends_ms=now_ms + draft.spec.life_s * 1000,
            creator=caller.login,
        )

    def _changed(self, rollout: Rollout, *devices: str) -> None:
        self._parts.changed(rollout.owner, *sorted(devices))
        self._parts.events.device_changed(rollout.owner, f"rollout:{rollout.id}")
        self._wake()

    async def pause(self, caller: Identity, name: str, reason: str = "") -> Overview:
        """Give the release to no more devices until `resume`; those under way go on."""
        text = reason or "paused by an operator"
        return await self._to(caller, name, {RolloutState.RUNNING, RolloutState.SETTLED}, RolloutState.PAUSED, text)

    async def resume(self, caller: Identity, name: str, reason: str = "") -> Overview:
        """Go on after a pause."""
        text = reason or "resumed by an operator"
        return await self._to(caller, name, {RolloutState.PAUSED}, RolloutState.RUNNING, text)

    async def abort(self, caller: Identity, name: str, reason: str = "") -> Overview:
        """Stop at once, for good: no device is given the release any more, and steps that none has touched go."""
        return await self._halt(caller, name, RolloutState.ABORTED, reason or "aborted by an operator")

    async def finish(self, caller: Identity, name: str, reason: str = "") -> Overview:
        """End it: nobody joins any more. Raises Conflict while devices are waiting: that would be an abort."""
        async with self._parts.db.read() as session:
            rollout = await self._own(session, caller, name)
            if await session.members.open_in(rollout.id):
                raise Conflict("Devices of this rollout are not in a final state yet; abort it to stop it")
        return await self._halt(caller, name, RolloutState.FINISHED, reason or "finished by an operator")

    async def roll_back(self, caller: Identity, name: str, reason: str = "") -> Overview:
        """Stop, and give every device that took the release its own former parts back."""
        everything = frozenset(RolloutState) - {RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK}
        return await self._halt(caller, name, RolloutState.ROLLING_BACK, reason or "an operator rolls back", everything)

    async def _to(
        self, caller: Identity, name: str, allowed: set[RolloutState], state: RolloutState, reason: str
    ) -> Overview:
        async with self._parts.db.write() as session:
            rollout = await self._held(session, caller, name, reason)
            if rollout.state not in allowed:
                raise Conflict(f"The rollout is {rollout.state.value}")
            now_ms = self._parts.clock.now_ms()
            after = replace(rollout, state=state, reason=reason, modified_ms=now_ms)
            await session.fleets.save(after)
        self._changed(rollout)
        return await self.get(caller, rollout.id)

    async def _held(self, session: Session, caller: Identity, name: str, reason: str) -> Rollout:
        """The rollout, held until the transaction ends."""
        if len(reason) > _MAX_REASON_CHARS:
            raise Malformed(f"A reason has at most {_MAX_REASON_CHARS} characters")
        found = await self._own(session, caller, name)
        held = await session.fleets.rollout(found.id)
        if held is None:
            raise NotFound("There is no such rollout in this account")
        return held

    async def _halt(
        self,
        caller: Identity,
        name: str,
        state: RolloutState,
        reason: str,
        allowed: frozenset[RolloutState] = ACTIVE,
    ) -> Overview:
        async with self._parts.db.write() as session:
            rollout = await self._held(session, caller, name, reason)
            if rollout.state not in allowed:
                raise Conflict(f"The rollout is {rollout.state.value}")
            now_ms = self._parts.clock.now_ms()
            rollout, devices = await halted(session, rollout, state, reason, now_ms)
            await session.fleets.save(replace(rollout, closed=False))
        self._changed(rollout, *devices)
        return await self.get(caller, rollout.id)
