"""Reports: the latest wins, until it is acknowledged, across restarts; a final one is acknowledged once."""

from __future__ import annotations

from pathlib import Path

import pytest

from brickless.core.progress import Message, Progress, Status
from brickless.device.link.http import HubUnreachableError
from brickless.device.link.hub import HubRefusedError
from brickless.device.link.reports import Reports
from brickless.store.trails import Storage

QUEUED = Progress.of(Status.QUEUED, "Retried 1 of 10")
DONE = Progress.of(Status.DONE, Message.DONE)


class Hub:
    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.error: Exception | None = None

    def put_progress(self, rev: str, data: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.got.append((rev, data))


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    made = Storage(str(tmp_path))
    made.prepare()
    made.write_state("1", b"{}")
    return made


def send(reports: Reports, hub: Hub) -> None:
    reports.send(hub)  # type: ignore[arg-type]  # the fake has what is used


def test_the_latest_wins(storage: Storage) -> None:
    reports, hub = Reports(storage, lambda _: None), Hub()
    reports.put("1", QUEUED)
    reports.put("1", DONE)
    send(reports, hub)
    assert hub.got == [("1", DONE.to_json())]
    assert not reports.owed


def test_until_it_is_acknowledged(storage: Storage) -> None:
    reports, hub = Reports(storage, lambda _: None), Hub()
    reports.put("1", DONE)
    hub.error = HubUnreachableError("away")
    with pytest.raises(HubUnreachableError):
        send(reports, hub)
    hub.error = None
    reports = Reports(storage, lambda _: None)
    assert reports.owed == {"1"}
    send(reports, hub)
    assert len(hub.got) == 1
    assert not Reports(storage, lambda _: None).owed, "acknowledged for good"


def test_a_hub_that_does_not_know_the_step_is_not_asked_for_ever(storage: Storage) -> None:
    said: list[str] = []
    reports, hub = Reports(storage, said.append), Hub()
    reports.put("1", DONE)
    hub.error = HubRefusedError("The hub answered 400", 400)
    send(reports, hub)
    assert not reports.owed
    assert "was refused" in said[0]


def test_a_hub_in_trouble_is_asked_again(storage: Storage) -> None:
    reports, hub = Reports(storage, lambda _: None), Hub()
    reports.put("1", DONE)
    hub.error = HubRefusedError("The hub answered 500", 500)
    with pytest.raises(HubRefusedError):
        send(reports, hub)
    assert reports.owed == {"1"}


def test_bytes_on_the_way_are_sent_and_not_kept(storage: Storage) -> None:
    reports, hub = Reports(storage, lambda _: None), Hub()
    reports.put("1", QUEUED)
    reports.put("1", QUEUED._replace(message="half way"), persist=False)
    assert reports.of("1") == QUEUED
    send(reports, hub)
    assert b"half way" in hub.got[0][1]


def test_what_the_supervisor_writes_is_noticed_once(storage: Storage) -> None:
    reports, hub = Reports(storage, lambda _: None), Hub()
    storage.write_progress("1", DONE.to_json())
    reports.look_at("1")
    send(reports, hub)
    reports.look_at("1")
    assert not reports.owed


def test_a_final_report_that_is_asked_for_is_given_again(storage: Storage) -> None:
    reports, hub = Reports(storage, lambda _: None), Hub()
    reports.put("1", DONE)
    send(reports, hub)
    reports.again("1")
    send(reports, hub)
    assert len(hub.got) == 2


def test_a_disk_that_refuses_does_not_keep_the_hub_from_being_told(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    reports, hub = Reports(storage, said.append), Hub()
    monkeypatch.setattr(Storage, "write_progress", full)
    reports.put("1", DONE)
    send(reports, hub)
    assert hub.got == [("1", DONE.to_json())]
    assert "cannot be kept" in said[0]
