"""Fleets, releases and rollouts as the wire shows them: struct JSON, times as RFC 3339, names with dashes."""

from __future__ import annotations

from brickless.hub.domain import fleet_release, fleet_spec
from brickless.hub.domain.fleet import NEVER_MS, DeviceType, MemberState, Release
from brickless.hub.http.encoding import rfc3339
from brickless.hub.services.fleet_ports import Labelled
from brickless.hub.services.rollouts import MemberRow, Overview, Preview


def labelled(value: Labelled) -> dict[str, object]:
    """A device with its labels."""
    return {"device": value.device_id, "nick": value.nick, "labels": dict(sorted(value.labels.items()))}


def device_type(value: DeviceType) -> dict[str, object]:
    """A device type."""
    return {
        "name": value.name,
        "description": value.description,
        "time-created": rfc3339(value.created_ms),
        "time-modified": rfc3339(value.modified_ms),
    }


def release(value: Release, *, state: bool = False) -> dict[str, object]:
    """A release; its entries only when it is looked at by itself."""
    members: dict[str, object] = {
        "id": value.id,
        "name": value.name,
        "note": value.note,
        "fragment": value.fragment,
        "types": list(value.types),
        "size": value.size_bytes,
        "source": value.source,
        "creator": value.creator,
        "time-created": rfc3339(value.created_ms),
    }
    if state:
        members["state"] = fleet_release.entries_of(value.state)
    return members


def rollout(value: Overview) -> dict[str, object]:
    """A rollout with its counts; every state is there, so that sums need no defaults."""
    one = value.rollout
    return {
        "id": one.id,
        "name": one.name,
        "release": value.release_name,
        "release-id": one.release_id,
        "selector": one.selector,
        "state": one.state.value,
        "reason": one.reason,
        "phase": one.wave,
        "devices": one.members,
        "counts": {state.value: value.counts.get(state, 0) for state in MemberState},
        "evidence": {
            "updated": one.evidence.updated,
            "failed": one.evidence.failed,
            "silent": one.evidence.silent,
        },
        "closed": one.closed,
        "creator": one.creator,
        "time-created": rfc3339(one.created_ms),
        "time-modified": rfc3339(one.modified_ms),
        "time-ends": rfc3339(one.ends_ms),
        "spec": fleet_spec.value_of(one.spec),
    }


def member(value: MemberRow, name: str) -> dict[str, object]:
    """One device of a rollout; `name` says what the row's name is the name of."""
    one = value.member
    members: dict[str, object] = {
        "device": one.device_id,
        "rollout": one.rollout_id,
        name: value.name,
        "state": one.state.value,
        "reason": one.reason,
        "phase": one.wave,
        "revision": one.rev,
        "former-revision": one.base_rev,
        "deferrals": one.deferrals,
        "time-changed": rfc3339(one.changed_ms),
    }
    if one.deadline_ms < NEVER_MS:
        members["deadline"] = rfc3339(one.deadline_ms)
    if one.state is MemberState.WAITING and 0 < one.not_before_ms < NEVER_MS:
        members["not-before"] = rfc3339(one.not_before_ms)
    return members


def preview(value: Preview) -> dict[str, object]:
    """What a rollout would do."""
    return {
        "devices": value.matched,
        "phases": list(value.phases),
        "unfit": dict(sorted(value.unfit.items())),
        "unchecked": value.unchecked,
        "rivals": list(value.rivals),
    }
