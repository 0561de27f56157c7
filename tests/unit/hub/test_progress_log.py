"""The history of a revision's progress: what it keeps of what was reported."""

from __future__ import annotations

import json
from typing import Any

from brickless.hub.domain.progress import logged


def said(status: str, progress: int, **more: Any) -> dict[str, Any]:
    return {"status": status, "progress": progress, "status-msg": "", **more}


def history(*reports: dict[str, Any], source: str = "device") -> list[dict[str, Any]]:
    log = "[]"
    for number, report in enumerate(reports):
        log = logged(log, report, source=source, now_ms=1000 * number)
    found: list[dict[str, Any]] = json.loads(log)
    return found


def test_each_status_is_kept_with_its_time() -> None:
    found = history(said("QUEUED", 0), said("INPROGRESS", 50, retries=2), said("DONE", 100))
    assert [(entry["status"], entry["progress"], entry["time"]) for entry in found] == [
        ("QUEUED", 0, "1970-01-01T00:00:00Z"), ("INPROGRESS", 50, "1970-01-01T00:00:01Z"),
        ("DONE", 100, "1970-01-01T00:00:02Z"),
    ]  # fmt: skip
    assert [entry.get("retries") for entry in found] == [None, 2, None]


def test_what_repeats_and_small_steps_of_a_download_are_left_out() -> None:
    total = {"total": {"total_size": 200, "total_downloaded": 20}}
    steps = [said("DOWNLOADING", percent, downloads=total) for percent in range(101)]
    found = history(
        *steps, said("INPROGRESS", 100), said("INPROGRESS", 100), said("INPROGRESS", 100, **{"status-msg": "x"})
    )
    assert [entry["progress"] for entry in found if entry["status"] == "DOWNLOADING"] == list(range(0, 101, 10))
    assert (found[0]["downloaded"], found[0]["total-size"]) == (20, 200)
    assert [entry["status-msg"] for entry in found if entry["status"] == "INPROGRESS"] == ["", "x"]


def test_it_is_bounded() -> None:
    found = history(*(said("TESTING", 0, **{"status-msg": f"{number} " + "x" * 10_000}) for number in range(300)))
    assert (len(found), found[-1]["status-msg"][:4], len(found[-1]["status-msg"])) == (200, "299 ", 256)


def test_who_said_it_counts() -> None:
    log = logged("[]", said("NEW", 0), source="device", now_ms=0)
    assert len(json.loads(logged(log, said("NEW", 0), source="owner", now_ms=0))) == 2
