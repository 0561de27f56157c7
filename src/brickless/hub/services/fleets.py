"""Use cases of labels, device types and releases. Whoever acts for an organisation has its name as `caller.prn`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from brickless.core import canonical
from brickless.core.errors import HostileInputError
from brickless.core.state import SPEC_KEY, SYSTEM_SPEC, check_entries
from brickless.hub.domain import fleet_labels, fleet_release, prn
from brickless.hub.domain.errors import Conflict, Forbidden, Malformed, NotFound, TooLarge, Unprocessable
from brickless.hub.domain.fleet import DeviceType, Release
from brickless.hub.domain.fleet_release import Content
from brickless.hub.domain.jsontext import Value
from brickless.hub.domain.state import CheckedState, objects_by_path
from brickless.hub.domain.values import Device, Identity
from brickless.hub.services import audit
from brickless.hub.services.fleet_ports import Labelled
from brickless.hub.services.parts import Parts
from brickless.hub.services.ports import Session
from brickless.hub.services.possession import require_objects
from brickless.hub.services.trails import Trails

#: Names of releases, rollouts and device types. An id of 24 or 64 hex digits is no name, so that each is found by both.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._+ -]{0,62}[A-Za-z0-9])?\Z")
_ID = re.compile(r"[0-9a-f]{24}\Z|[0-9a-f]{64}\Z")
_MAX_NOTE_CHARS = 4096
_MAX_TYPES = 1000
_MAX_RELEASE_TYPES = 64


class ReleaseDraft(NamedTuple):
    """What a release is to be made of: a device's revision (the newest that it reached when `rev` is None), or a state.

    `device` is an id or a nick. `fragment` selects parts as in `#web,_config/web`; empty takes everything.
    """

    device: str = ""
    rev: int | None = None
    state: dict[str, Value] | None = None
    fragment: str = ""
    name: str = ""
    note: str = ""
    types: tuple[str, ...] = ()
    allow_unsigned: bool = False


def check_name(name: str, what: str) -> str:
    """The name, when it is one. Raises Malformed."""
    if not _NAME.match(name) or _ID.match(name):
        raise Malformed(
            f"{name[:80]!r} is no name for a {what}: 1 to 64 letters, digits, '.', '_', '+', '-' and spaces, and no id"
        )
    return name


class Fleets:
    """Labels, device types and releases of an account."""

    def __init__(self, parts: Parts, trails: Trails) -> None:
        self._parts = parts
        self._trails = trails

    @staticmethod
    def _person(caller: Identity) -> str:
        if not caller.is_person:
            raise Forbidden("Only people manage fleets")
        return caller.prn

    # -- labels ------------------------------------------------------------------------------------------------------

    async def devices(
        self, caller: Identity, selector: str = "", *, after: str = "", limit: int = 100
    ) -> list[Labelled]:
        """The account's devices that a selector matches, by nick, those behind the nick `after`."""
        owner, wanted = self._person(caller), fleet_labels.parse(selector)
        found: list[Labelled] = []
        async with self._parts.db.read() as session:
            everyone = wanted.text == "*"
            page = await session.fleets.labelled(owner, after=after, limit=limit if everyone else None)
        for device in page:
            if wanted.matches(device.labels):
                found.append(device)
            if len(found) == limit:
                break
        return found

    async def labels(self, caller: Identity, device: str) -> dict[str, str]:
        """The labels of one device, by id or nick."""
        async with self._parts.db.read() as session:
            found = await self._device(session, caller, device)
            return (await session.fleets.labels([found.id])).get(found.id, {})

    async def _device(self, session: Session, caller: Identity, name: str) -> Device:
        owner = self._person(caller)
        if prn.is_id(name):
            device = await session.devices.get(name)
        else:
            device = await session.devices.by_nick(owner, name)
        if device is None or device.owner != owner:
            raise NotFound("There is no such device in this account")
        return device

    async def set_labels(self, caller: Identity, device: str, changes: Mapping[str, str | None]) -> dict[str, str]:
        """Set labels of one device; None removes one. Answers all of its labels."""
        async with self._parts.db.write() as session:
            found = await self._device(session, caller, device)
            before = (await session.fleets.labels([found.id])).get(found.id, {})
            after = _changed(before, changes)
            if after != before:
                await session.fleets.put_labels({found.id: after}, self._parts.clock.now_ms())
        if after != before:
            self._parts.changed(found.owner, found.id)
        return after

    async def set_labels_of(self, caller: Identity, selector: str, changes: Mapping[str, str | None]) -> list[str]:
        """Set labels of every device that a selector matches; answers the ids of those that changed."""
        owner, wanted = self._person(caller), fleet_labels.parse(selector)
        async with self._parts.db.write() as session:
            matched = [one for one in await session.fleets.labelled(owner) if wanted.matches(one.labels)]
            after = {one.device_id: _changed(one.labels, changes) for one in matched}
            changed = {one.device_id: after[one.device_id] for one in matched if after[one.device_id] != one.labels}
            audit.named(selector=wanted.text, devices=len(changed))
            await session.fleets.put_labels(changed, self._parts.clock.now_ms())
        self._parts.changed(owner, *changed)
        return sorted(changed)

    # -- device types ------------------------------------------------------------------------------------------------

    async def types(self, caller: Identity) -> list[DeviceType]:
        """The account's device types."""
        async with self._parts.db.read() as session:
            return await session.fleets.types(self._person(caller))

    async def put_type(self, caller: Identity, name: str, description: str) -> DeviceType:
        """Make or change a device type."""
        owner, now_ms = self._person(caller), self._parts.clock.now_ms()
        check_name(name, "device type")
        if len(description) > _MAX_NOTE_CHARS:
            raise Malformed(f"A description has at most {_MAX_NOTE_CHARS} characters")
        async with self._parts.db.write() as session:
            known = {one.name: one for one in await session.fleets.types(owner)}
            if name not in known and len(known) >= _MAX_TYPES:
                raise TooLarge(f"An account has at most {_MAX_TYPES} device types")
            created_ms = known[name].created_ms if name in known else now_ms
            value = DeviceType(owner, name, description, created_ms, now_ms)
            await session.fleets.put_type(value)
        return value

    async def delete_type(self, caller: Identity, name: str) -> None:
        """Forget a device type; labels and releases that name it stay."""
        async with self._parts.db.write() as session:
            if not await session.fleets.remove_type(self._person(caller), name):
                raise NotFound("There is no such device type")

    # -- releases ----------------------------------------------------------------------------------------------------

    async def releases(self, caller: Identity, *, offset: int = 0, limit: int = 50) -> list[Release]:
        """The account's releases, newest first."""
        async with self._parts.db.read() as session:
            return await session.fleets.releases(self._person(caller), offset=offset, limit=limit)

    async def release(self, caller: Identity, name: str) -> Release:
        """One release by name or id."""
        async with self._parts.db.read() as session:
            found = await session.fleets.release(self._person(caller), name)
        if found is None:
            raise NotFound("There is no such release in this account")
        return found

    async def create_release(self, caller: Identity, draft: ReleaseDraft) -> Release:
        """Make a release. The same content under the same name is the same release, and not made twice.

        Raises Malformed, NotFound for the source, Conflict for a name that other content has, and Unprocessable for
        what devices would refuse: bad paths, missing objects, signatures that would not hold.
        """
        owner = self._person(caller)
        if draft.name:
            check_name(draft.name, "release")
        if len(draft.note) > _MAX_NOTE_CHARS:
            raise Malformed(f"A note has at most {_MAX_NOTE_CHARS} characters")
        types = tuple(sorted({check_name(one, "device type") for one in draft.types}))
        if len(types) > _MAX_RELEASE_TYPES:
            raise Malformed(f"A release is for at most {_MAX_RELEASE_TYPES} device types")
        state, source = await self._source(caller, draft)
        content = fleet_release.cut(state, draft.fragment, allow_unsigned=draft.allow_unsigned)
        checked = _checked(content, self._parts.policy.max_state_bytes)
        record_id = fleet_release.content_id(content, types)
        async with self._parts.db.write() as session:
            known = await session.fleets.release(owner, record_id)
            if known is not None:
                if draft.name and draft.name != known.name:
                    raise Conflict(f"The release {known.name} has this content already")
                return known
            await require_objects(self._parts, session, owner, checked, autolink=True)
            records = await session.objects.many(owner, checked.objects)
            release = Release(
                id=record_id,
                owner=owner,
                name=draft.name or record_id[:12],
                note=draft.note,
                include=content.include,
                remove=content.remove,
                types=types,
                state=checked.raw,
                size_bytes=sum(record.size_bytes for record in records.values()),
                source=source,
                creator=caller.login,
                created_ms=self._parts.clock.now_ms(),
            )
            audit.named(release=release.id, name=release.name)
            if not await session.fleets.add_release(release, checked.objects):
                raise Conflict(f"There is another release of the name {release.name}")
        return release

    async def _source(self, caller: Identity, draft: ReleaseDraft) -> tuple[dict[str, Value], str]:
        if (draft.state is None) == (not draft.device):
            raise Malformed("A release is made from a device's revision or from a state: one of the two")
        if draft.state is not None:
            return draft.state, "a state that was handed in"
        async with self._parts.db.read() as session:
            device_id = draft.device
            if not prn.is_id(device_id):
                named = await session.devices.by_nick(caller.prn, device_id)
                if named is None:
                    raise NotFound("There is no such device in this account")
                device_id = named.id
            await self._trails.readable(session, caller, device_id)
            head = (await session.fleet_trails.heads([device_id])).get(device_id)
            if head is None:
                raise NotFound("The device has no revision yet")
            rev = head.done_rev if draft.rev is None else draft.rev
            if not 0 <= rev <= head.newest_rev:
                raise NotFound(f"The device has no revision {rev}; its newest is {head.newest_rev}")
            raw = await session.fleet_trails.state(device_id, rev)
        return fleet_release.entries_of(raw), f"revision {rev} of device {device_id}"

    async def delete_release(self, caller: Identity, name: str) -> None:
        """Forget a release. Raises Conflict while a rollout names it: its history would lose its meaning."""
        release = await self.release(caller, name)
        async with self._parts.db.write() as session:
            if await session.fleets.release_in_use(release.owner, release.id):
                raise Conflict("A rollout brings this release")
            await session.fleets.remove_release(release.owner, release.id)


def _changed(before: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    merged = {**before, **changes}
    after = {key: value for key, value in merged.items() if value is not None}
    fleet_labels.check_labels(after)
    return after


def _checked(content: Content, max_bytes: int) -> CheckedState:
    """The parts as far as they can be checked by themselves; each device's whole state is checked with them in it."""
    raw = fleet_release.packed(content)
    if len(raw) > max_bytes:
        raise TooLarge(f"The release has {len(raw)} bytes; a state may have {max_bytes}")
    if content.entries:
        try:
            check_entries({SPEC_KEY: SYSTEM_SPEC, **content.entries})
        except HostileInputError as error:
            raise Unprocessable(f"A device would refuse this release: {error}") from error
    elif not content.remove:
        raise Unprocessable("The release is empty")
    return CheckedState(raw, canonical.sha256_hex(raw), tuple(sorted(set(objects_by_path(raw).values()))))
