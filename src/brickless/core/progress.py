"""Where an update stands: the status names, the progress document and its messages (contract device.md 4.1-4.3)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from brickless.core import canonical
from brickless.core.canonical import JsonValue
from brickless.core.errors import HostileInputError

MAX_PROGRESS_BYTES = 64 * 1024
MAX_LOGS_BYTES = 4096


class Status(StrEnum):
    """A step's status, as the hub stores it."""

    NEW = "NEW"
    SYNCING = "SYNCING"
    QUEUED = "QUEUED"
    DOWNLOADING = "DOWNLOADING"
    INPROGRESS = "INPROGRESS"
    TESTING = "TESTING"
    UPDATED = "UPDATED"
    DONE = "DONE"
    WONTGO = "WONTGO"
    ERROR = "ERROR"
    CANCEL = "CANCEL"
    CANCELLED = "CANCELLED"


FINAL: frozenset[Status] = frozenset(
    {Status.UPDATED, Status.DONE, Status.WONTGO, Status.ERROR, Status.CANCEL, Status.CANCELLED}
)
PERCENT: dict[Status, int] = {
    Status.NEW: 0,
    Status.SYNCING: 0,
    Status.QUEUED: 5,
    Status.DOWNLOADING: 25,
    Status.INPROGRESS: 50,
    Status.TESTING: 75,
} | dict.fromkeys(FINAL, 100)


class Message:
    """The messages that users and tests of the field know by heart; `%d` is filled by `Message.X % (...)`."""

    NEW_LOCAL = "Update not yet installed"
    NEW_READY = "Update ready to be run"
    QUEUED = "Retried %d of %d"
    QUEUED_METADATA = "Downloading update metadata, retry %d of %d"
    DOWNLOADING = "Downloading update artifacts, retry %d of %d"
    TRYING = "Trying new revision"
    TRANSITIONING = "Transitioning to new revision without rebooting"
    REBOOTING = "Rebooting"
    TESTING_REBOOT = "Awaiting to set rollback point if update is stable"
    TESTING_NONREBOOT = "Awaiting to see if update is stable"
    TESTING_STABLE = "Waiting for all containers to become stable"
    UPDATED = "Update finished, revision not set as rollback point"
    DONE = "Update finished, revision set as rollback point"
    FACTORY = "Factory revision"
    MAX_RETRIES = "Max update processing retries reached"
    MAX_DOWNLOADS = "Max download update retries reached"
    NO_STATE = "State JSON not found"
    BAD_STATE = "State JSON has bad format"
    NO_SPACE = "Space required %d B, available %d B"
    NOT_COVERED = "State not fully covered by signatures"
    BAD_SIGNATURE = "Signature validation failed"
    UNKNOWN = "Unknown error"
    INTERNAL = "Internal error"
    BAD_OBJECT = "Object validation went wrong"
    HUB_UNREACHABLE = "Hub not reachable"
    HUB_UNSTABLE = "Hub communication not stable"
    GOAL_NOT_REACHED = "Status goal not reached"
    CONTAINER_FAILED = "A container could not be started"
    UNEXPECTED_ROLLBACK = "Unexpected rollback"
    CANCELLED = "Cancel as requested by owner"
    # Defined by the reference and never sent by it; we send the first when a newer step takes an update's place.
    STALE = "Stale revision"
    ABORTED = "Update aborted"


class Downloads(NamedTuple):
    """The totals of a download in bytes, and its times in seconds since the epoch."""

    total_bytes: int
    downloaded_bytes: int
    start_time_s: int
    current_time_s: int

    def to_value(self) -> dict[str, JsonValue]:
        """Return the member `downloads` of the progress document."""
        return {
            "total": {
                "object_name": "total",
                "object_id": "none",
                "total_size": self.total_bytes,
                "total_downloaded": self.downloaded_bytes,
                "start_time": self.start_time_s,
                "current_time": self.current_time_s,
            }
        }


class Progress(NamedTuple):
    """A progress document. `logs` holds JSON lines of the update's errors, at most 4096 bytes."""

    status: Status
    message: str = ""
    percent: int = 0
    retries: int = 0
    downloads: Downloads | None = None
    logs: str = ""

    @classmethod
    def of(cls, status: Status, message: str, *, retries: int = 0, logs: str = "") -> Progress:
        """Make the document of a status, with the percentage that belongs to it."""
        return cls(status, message, PERCENT[status], retries, None, logs)

    def to_json(self) -> bytes:
        """Return the document as the device stores and sends it."""
        value: dict[str, JsonValue] = {
            "status": self.status.value,
            "status-msg": self.message,
            "progress": self.percent,
            "retries": self.retries,
        }
        if self.downloads is not None:
            value["downloads"] = self.downloads.to_value()
        if self.logs:
            value["logs"] = _tail(self.logs)
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")

    @property
    def is_final(self) -> bool:
        """Tell whether nothing follows."""
        return self.status in FINAL


def parse_progress(data: bytes) -> Progress:
    """Read a progress document; members that we do not know are passed over.

    Raises `HostileInputError` when it is no such document.
    """
    value = canonical.loads(data, max_bytes=MAX_PROGRESS_BYTES)
    if not isinstance(value, dict):
        raise HostileInputError("the progress is no JSON object")
    try:
        status = Status(_text(value, "status"))
    except ValueError as error:
        raise HostileInputError(f"the progress has the unknown status {_text(value, 'status')[:40]!r}") from error
    return Progress(
        status,
        _text(value, "status-msg"),
        _count(value, "progress", default=PERCENT[status]),
        _count(value, "retries", default=0),
        _downloads(value.get("downloads")),
        _text(value, "logs"),
    )


def _downloads(value: JsonValue) -> Downloads | None:
    total = value.get("total") if isinstance(value, dict) else None
    if not isinstance(total, dict):
        return None
    sizes = (_count(total, "total_size", default=0), _count(total, "total_downloaded", default=0))
    times = (_count(total, "start_time", default=0), _count(total, "current_time", default=0))
    return Downloads(*sizes, *times)


def _text(value: Mapping[str, JsonValue], key: str) -> str:
    text = value.get(key, "")
    if not isinstance(text, str):
        raise HostileInputError(f"the progress member {key!r} is no string")
    return text


def _count(value: Mapping[str, JsonValue], key: str, *, default: int) -> int:
    number = value.get(key, default)
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise HostileInputError(f"the progress member {key!r} is no number from 0 up")
    return number


def _tail(logs: str) -> str:
    """Keep whole lines from the end: the last error is the one that explains."""
    data = logs.encode("utf-8", "replace")
    if len(data) <= MAX_LOGS_BYTES:
        return logs
    return data[-MAX_LOGS_BYTES:].partition(b"\n")[2].decode("utf-8", "replace")
