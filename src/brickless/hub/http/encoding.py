"""Records as the wire shows them. The order of keys matters: the C client searches them as text (section 8.2)."""

from __future__ import annotations

from brickless.hub.domain import jsontext, ownership, times
from brickless.hub.domain.filters import WHOLE, Projection
from brickless.hub.domain.jsontext import Raw, struct_from_stored
from brickless.hub.domain.objects import storage_id
from brickless.hub.domain.values import Account, JoinToken, LogEntry, Step, StoredObject, Summary, Trail
from brickless.hub.services.devices import Shown
from brickless.hub.services.objects import Access

rfc3339, parse_rfc3339 = times.rfc3339, times.parse_rfc3339
ZERO_TIME = "0001-01-01T00:00:00Z"
_EPOCH = "1970-01-01T00:00:00Z"


def account(value: Account) -> Raw:
    """An account without its secrets."""
    return jsontext.struct(
        {
            "type": value.type,
            "email": value.email,
            "nick": value.nick,
            "prn": value.prn,
            "time-created": rfc3339(value.created_ms),
            "time-modified": rfc3339(value.modified_ms),
        }
    )


def device(shown: Shown) -> Raw:
    """A device (section 2.1)."""
    value = shown.device
    members: dict[str, object] = {"id": value.id, "prn": value.prn, "nick": value.nick, "owner": value.owner}
    if shown.owner_nick:
        members["owner-nick"] = shown.owner_nick
    if shown.secret:
        members["secret"] = shown.secret
    members["time-created"] = rfc3339(value.created_ms)
    members["time-modified"] = rfc3339(value.modified_ms)
    if shown.challenge:
        members["challenge"] = shown.challenge
    members["public"] = value.public
    members["user-meta"] = struct_from_stored(value.user_meta) if shown.metas else {}
    members["device-meta"] = struct_from_stored(value.device_meta) if shown.metas else {}
    members["garbage"] = value.garbage
    members["mark_public_processed"] = False
    if value.ovmode:
        members["ownership_unverified"] = ownership.is_unverified(value.ovmode)
        members["ovmode"] = ownership.shown(value.ovmode)
    return jsontext.struct(members)


def join_token(value: JoinToken, text: str = "") -> Raw:
    """A join token; its text is shown at creation only."""
    members: dict[str, object] = {
        "id": value.id,
        "prn": f"prn:::devices-tokens:/{value.id}",
        "nick": value.nick,
        "owner": value.owner,
    }
    if text:
        members["token"] = text
    members["default-user-meta"] = struct_from_stored(value.default_user_meta)
    members["disabled"] = value.disabled
    if value.ovmode:
        members["ovmode"] = ownership.shown(value.ovmode, root=True)
    members["time-created"] = rfc3339(value.created_ms)
    members["time-modified"] = rfc3339(value.modified_ms)
    return jsontext.struct(members)


def trail(value: Trail) -> Raw:
    """A trail (section 3.1), canonical."""
    return jsontext.canonical_object(
        (
            ("device", value.device),
            ("factory-state", Raw(value.factory_state)),
            ("id", value.id),
            ("last-insync", rfc3339(value.last_insync_ms)),
            ("last-touched", rfc3339(value.last_touched_ms)),
            ("owner", value.owner),
            ("used_objects", Raw(value.used_objects.encode())),
        )
    )


# What a projection leaves of a member that it takes away: the zero value of its type.
_ZERO: dict[str, object] = {
    "commit-msg": "", "committer": "", "device": "", "meta": None, "progress": Raw(
        b'{"downloads":{"objects":null,"total":{"current_time":0,"start_time":0,"total_downloaded":0,"total_size":0}},'
        b'"log":"","progress":0,"status":"","status-msg":""}'
    ),
    "rev": 0, "state": None, "state-sha": "", "trail-id": "", "used_objects": None,
}  # fmt: skip


def step(value: Step, projection: Projection = WHOLE) -> Raw:
    """A step (section 3.1), canonical."""
    members: dict[str, object] = {
        "commit-msg": value.commit_msg,
        "committer": value.committer,
        "device": f"prn:::devices:/{value.trail_id}",
        "garbage": False,
        "id": f"{value.trail_id}-{value.rev}",
        "mark_public_processed": False,
        "meta": Raw(value.meta.encode()),
        "owner": value.owner,
        "progress": Raw(value.progress.encode()),
        "progress-time": rfc3339(value.progress_ms),
        "rev": value.rev,
        "state": Raw(value.state),
        "state-sha": value.state_sha,
        "step-time": rfc3339(value.step_ms),
        "time-created": rfc3339(value.created_ms),
        "time-modified": rfc3339(value.modified_ms),
        "trail-id": value.trail_id,
        "used_objects": Raw(value.used_objects.encode()),
    }
    if value.progress_log != "[]":
        members["progress-log"] = Raw(value.progress_log.encode())
    if projection is not WHOLE:
        members = {key: item if projection.keeps(key) else _ZERO.get(key, item) for key, item in members.items()}
    return jsontext.canonical_object(members.items())


def _object_members(value: StoredObject) -> dict[str, object]:
    return {
        "id": value.sha,
        "storage-id": storage_id(value.owner, value.sha),
        "owner": value.owner,
        "objectname": value.name,
        "sha256sum": value.sha,
        "size": str(value.size_bytes),
        "sizeint": value.size_bytes,
        "mime-type": value.mime_type,
        "time-created": rfc3339(value.created_ms),
        "time-modified": rfc3339(value.modified_ms),
    }


def stored_object(value: StoredObject) -> Raw:
    """An object without URLs."""
    return jsontext.struct(_object_members(value))


def object_access(access: Access, base_url: str, *, canonical: bool) -> Raw:
    """An object with its signed URLs; `expire-time` is the constant that clients know."""
    members = _object_members(access.record)
    members["signed-puturl"] = f"{base_url}/local-s3/{access.put}" if access.put else ""
    members["signed-geturl"] = f"{base_url}/local-s3/{access.get}"
    members["now"] = str(access.now_s)
    members["expire-time"] = "15"
    return jsontext.canonical_object(members.items()) if canonical else jsontext.struct(members)


def log_entry(value: LogEntry) -> dict[str, object]:
    """A log line; empty and zero fields are left out."""
    members: dict[str, object] = {
        "id": f"{value.id:024x}",
        "dev": value.device,
        "own": value.owner,
        "time-created": rfc3339(value.created_ms),
        "tsec": value.tsec,
        "tnano": value.tnano,
        "rev": value.rev,
        "plat": value.plat,
        "src": value.src,
        "lvl": value.lvl,
        "msg": value.msg,
    }
    return {key: item for key, item in members.items() if item not in ("", 0)}


def summary(value: Summary, seen: tuple[int, str] | None) -> dict[str, object]:
    """One row of a fleet list (section 3.11); `seen` is when and from where the device called since that was stored."""
    meta = jsontext.load_stored(value.device.user_meta)
    reported = value.reported
    progress = jsontext.load_stored(reported.progress) if reported is not None else {}
    seen_ms, address = seen or (value.device.last_seen_ms, value.device.real_ip)

    def fleet(name: str) -> str:
        text = meta.get(f"fleet-{name}", meta.get(f"fleet.{name}", ""))
        return text if isinstance(text, str) else ""

    return {
        "deviceid": value.device.id,
        "device": value.device.prn,
        "device-nick": value.device.nick,
        "revision": value.newest_rev,
        "progress-revision": reported.rev if reported is not None else 0,
        "progress": progress.get("progress", 0),
        "public": value.device.public,
        "state-sha": value.newest_sha,
        "status-msg": progress.get("status-msg", ""),
        "status": progress.get("status", ""),
        "timestamp": rfc3339(max(value.trail_touched_ms, value.device.modified_ms, seen_ms)),
        "step-time": rfc3339(value.newest_step_ms),
        "progress-time": rfc3339(reported.progress_ms) if reported is not None else _EPOCH,
        "trail-touched-time": rfc3339(value.trail_touched_ms),
        "real-ip": address,
        "fleet-group": fleet("group"),
        "fleet-model": fleet("model"),
        "fleet-location": fleet("location"),
        "fleet-rev": fleet("rev"),
    }
