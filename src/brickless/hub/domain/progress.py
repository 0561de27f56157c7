"""Progress of a step: what devices report and what an owner may set (contract section 3.8). Pure."""

from __future__ import annotations

from decimal import Decimal

from brickless.core import canonical
from brickless.hub.domain.errors import Conflict, Malformed
from brickless.hub.domain.jsontext import Value
from brickless.hub.domain.times import rfc3339

NEW = "NEW"
DONE = "DONE"
DOWNLOADING = "DOWNLOADING"
INPROGRESS = "INPROGRESS"
CANCEL = "CANCEL"
WONTGO = "WONTGO"
#: The device runs the revision.
REACHED = frozenset({"DONE", "UPDATED"})
FINAL = frozenset({"DONE", "UPDATED", "WONTGO", "ERROR", "CANCEL", "CANCELED", "CANCELLED"})
#: What a polling device is still to act on.
ACTIONABLE = frozenset({"NEW", "QUEUED", "DOWNLOADING", "INPROGRESS", "TESTING"})

MAX_LOGS_CHARS = 64 * 1024
_MAX_TEXT_CHARS = 16 * 1024
_MAX_STATUS_CHARS = 64
_MAX_LOGGED = 200
_MAX_LOGGED_CHARS = 256
_LOGGED_DOWNLOAD_STEP = 10

_EMPTY_COUNTERS: dict[str, Value] = {"current_time": 0, "start_time": 0, "total_downloaded": 0, "total_size": 0}


def fresh(status: str) -> dict[str, Value]:
    """The progress of a step that no device has touched yet."""
    return {
        "downloads": {"objects": None, "total": dict(_EMPTY_COUNTERS)},
        "log": "",
        "progress": 0,
        "status": status,
        "status-msg": "",
    }


def _integer(body: dict[str, Value], name: str) -> int:
    value = body.get(name)
    if value is None:
        return 0
    if isinstance(value, Decimal) and value == value.to_integral_value():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
        raise Malformed(f"progress: {name!r} must be an integer")
    return value


def _text(body: dict[str, Value], name: str, max_chars: int) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"progress: {name!r} must be a string")
    return value[:max_chars]


def _counters(value: Value) -> dict[str, Value]:
    if not isinstance(value, dict):
        return dict(_EMPTY_COUNTERS)
    known: dict[str, Value] = {name: _integer(value, name) for name in _EMPTY_COUNTERS}
    known.update({key: item for key, item in value.items() if key not in known})
    return known


def _downloads(value: Value) -> dict[str, Value]:
    downloads = value if isinstance(value, dict) else {}
    objects = downloads.get("objects")
    return {
        "objects": [_counters(item) for item in objects] if isinstance(objects, list) else None,
        "total": _counters(downloads.get("total")),
    }


def normalise(body: dict[str, Value]) -> dict[str, Value]:
    """A device's report as it is stored: known fields typed and bounded, unknown ones kept.

    Raises Malformed for a status that is missing or absurdly long and for fields of the wrong type.
    """
    status = _text(body, "status", _MAX_STATUS_CHARS + 1)
    if not status or len(status) > _MAX_STATUS_CHARS:
        raise Malformed(f"progress: 'status' must have 1 to {_MAX_STATUS_CHARS} characters")
    result: dict[str, Value] = dict(body)
    result.update(
        {
            "downloads": _downloads(body.get("downloads")),
            "log": _text(body, "log", MAX_LOGS_CHARS),
            "progress": _integer(body, "progress"),
            "status": status,
            "status-msg": _text(body, "status-msg", _MAX_TEXT_CHARS),
        }
    )
    if "retries" in body:
        result["retries"] = _integer(body, "retries")
    if "logs" in body:
        result["logs"] = _text(body, "logs", MAX_LOGS_CHARS)
    return result


def _entry(progress: dict[str, Value], *, source: str, now_ms: int) -> dict[str, Value]:
    entry: dict[str, Value] = {
        "time": rfc3339(now_ms), "source": source, "status": progress.get("status", ""),
        "progress": progress.get("progress", 0), "status-msg": str(progress.get("status-msg", ""))[:_MAX_LOGGED_CHARS],
    }  # fmt: skip
    if "retries" in progress:
        entry["retries"] = progress["retries"]
    downloads = progress.get("downloads")
    total = downloads.get("total") if isinstance(downloads, dict) else None
    if isinstance(total, dict) and total.get("total_size"):
        entry["downloaded"], entry["total-size"] = total.get("total_downloaded", 0), total["total_size"]
    return entry


def _says_nothing_new(last: dict[str, Value], entry: dict[str, Value]) -> bool:
    if any(last.get(name) != entry.get(name) for name in ("source", "status", "status-msg", "retries")):
        return False
    was, now = last.get("progress"), entry["progress"]
    if isinstance(was, int) and isinstance(now, int) and entry["status"] == DOWNLOADING:
        return abs(now - was) < _LOGGED_DOWNLOAD_STEP
    return was == now


def logged(log: str, progress: dict[str, Value], *, source: str, now_ms: int) -> str:
    """The history with another report: who said it (`device` or `owner`), when, what. The newest 200 are kept.

    What repeats the report before it is left out, and so are steps of a download of less than ten per cent.
    """
    entries = canonical.loads(log)
    if not isinstance(entries, list):
        raise TypeError("a history of progress is a list")
    entry = _entry(progress, source=source, now_ms=now_ms)
    last = entries[-1] if entries else None
    if isinstance(last, dict) and _says_nothing_new(last, entry):
        return log
    return canonical.dumps([*entries, entry][-_MAX_LOGGED:]).decode()


def by_owner(action: str, current: str) -> dict[str, Value]:
    """The progress that an owner's `cancel` or `wontgo` sets. Raises Conflict when the step has gone too far."""
    needed, status, message = {
        "cancel": (NEW, CANCEL, "Cancel as requested by owner"),
        "wontgo": (INPROGRESS, WONTGO, "Mark as WONTGO as requested by owner"),
    }[action]
    if current != needed:
        raise Conflict(f"Only a step with status {needed} allows this; the status is {current}")
    return {**fresh(status), "progress": 100, "status-msg": message}
