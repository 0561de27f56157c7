"""Rollouts and their devices over real HTTP: windows, "not now", and devices that join later."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, DeviceCaller, claimed_device

BOLD = {"budget": 1.0, "evidence": 1000.0, "canary": 1000}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with running_hub(str(tmp_path_factory.mktemp("hub") / "data"), arguments=["--no-rate-limits"]) as running:
        yield running


@pytest.fixture(scope="module")
def user(hub: HubProcess) -> Iterator[Caller]:
    with httpx.Client(base_url=hub.url, timeout=60) as client:
        yield Caller(client).login("user1", "user1")


def device_of(user: Caller, **labels: str) -> DeviceCaller:
    """A claimed device with a trail and labels."""
    device = claimed_device(user).start_trail()
    user.patch(f"/fleets/devices/{device.id}/labels", labels).raise_for_status()
    return device


def rollout_of(user: Caller, name: str, **spec: Any) -> None:
    """A rollout to the devices with the label `test=<name>`, of a release of its own."""
    release = {"state": {"#spec": SPEC, "app/version.json": {"of": name}}, "fragment": "app", "name": name}
    user.post("/fleets/releases", release).raise_for_status()
    body = {"release": name, "selector": f"test={name}", "name": name, "spec": {"policy": BOLD, **spec}}
    user.post("/fleets/rollouts", body).raise_for_status()


def members(user: Caller, name: str) -> dict[str, Any]:
    """The rollout's devices, by id."""
    return {row["device"]: row for row in user.get(f"/fleets/rollouts/{name}/devices").json()}


def until(found: Callable[[], Any], wanted: Any, *, seconds: float = 120.0) -> None:
    """Ask again and again until the answer is the wanted one."""
    deadline_s = time.monotonic() + seconds
    while (said := found()) != wanted:
        assert time.monotonic() < deadline_s, f"still {said!r}, not {wanted!r}"


def states(user: Caller, name: str) -> dict[str, str]:
    """What state each device of the rollout is in."""
    return {device_id: row["state"] for device_id, row in members(user, name).items()}


def take(device: DeviceCaller, status: str = "DONE", **more: Any) -> int:
    """The device asks for its step, as a poll does, and reports about it; returns the revision."""
    (step,) = device.get(f"/trails/{device.id}/steps").json()
    body = {"status": status, **more}
    device.put(f"/trails/{device.id}/steps/{step['rev']}/progress", body).raise_for_status()
    return int(step["rev"])


def hours_from_now(hours: float) -> str:
    """That time of day, UTC."""
    return f"{datetime.now(UTC) + timedelta(hours=hours):%H:%M}"


def test_a_device_waits_until_its_own_window_opens(user: Caller) -> None:
    here, far = device_of(user, test="window"), device_of(user, test="window", timezone="Asia/Tokyo")
    window = {"start": hours_from_now(-2), "end": hours_from_now(2), "zone": "device"}
    rollout_of(user, "window", window=window)
    until(lambda: states(user, "window"), {here.id: "offered", far.id: "waiting"})
    assert take(here) == 1
    until(lambda: states(user, "window"), {here.id: "updated", far.id: "waiting"})
    assert far.get(f"/trails/{far.id}/steps").json() == []
    waits = members(user, "window")[far.id]
    assert waits["reason"] == "its window is closed"
    assert waits["deadline"]
    # Tokyo has no summer time: the window opens 24 - 9 hours after it opened here.
    opens = datetime.now(UTC) + timedelta(hours=13)
    assert abs(datetime.fromisoformat(waits["not-before"]) - opens) < timedelta(minutes=10)


def test_a_device_says_not_now_in_its_progress_and_takes_it_later(user: Caller) -> None:
    device = device_of(user, test="later")
    rollout_of(user, "later")
    until(lambda: states(user, "later"), {device.id: "offered"})
    asked = {"for-s": 3600, "reason": "a patient is connected"}
    rev = take(device, "QUEUED", **{"not-now": asked})
    until(lambda: states(user, "later"), {device.id: "deferred"})
    assert "a patient is connected" in members(user, "later")[device.id]["reason"]
    assert members(user, "later")[device.id]["deadline"]
    device.put(f"/trails/{device.id}/steps/{rev}/progress", {"status": "DONE"}).raise_for_status()
    until(lambda: states(user, "later"), {device.id: "updated"})
    until(lambda: user.get("/fleets/rollouts/later").json()["state"], "settled")


def test_an_app_on_a_device_says_not_now_in_its_metadata(user: Caller) -> None:
    busy, idle = device_of(user, test="app"), device_of(user, test="app")
    busy.patch(f"/devices/{busy.id}/device-meta", {"fleet.not-now": int(time.time()) + 3600}).raise_for_status()
    rollout_of(user, "app")
    until(lambda: states(user, "app"), {busy.id: "deferred", idle.id: "offered"})
    assert busy.get(f"/trails/{busy.id}/steps").json() == []
    assert "fleet.not-now" in members(user, "app")[busy.id]["reason"]


def test_who_defers_too_often_has_declined(user: Caller) -> None:
    device = device_of(user, test="never")
    rollout_of(user, "never", **{"max-deferrals": 0})
    until(lambda: states(user, "never"), {device.id: "offered"})
    take(device, "QUEUED", **{"not-now": {"for-s": 60, "reason": "no"}})
    until(lambda: states(user, "never"), {device.id: "declined"})


def test_a_device_that_joins_later_is_picked_up(user: Caller) -> None:
    first = device_of(user, test="join")
    rollout_of(user, "join")
    until(lambda: states(user, "join"), {first.id: "offered"})
    take(first)
    until(lambda: user.get("/fleets/rollouts/join").json()["state"], "settled")
    joiner = device_of(user, test="join")
    until(lambda: states(user, "join"), {first.id: "updated", joiner.id: "offered"})
    assert user.get("/fleets/rollouts/join").json()["state"] == "running"
    take(joiner)
    until(lambda: user.get("/fleets/rollouts/join").json()["state"], "settled")
    assert joiner.get(f"/trails/{joiner.id}/steps/1/state").json()["app/version.json"] == {"of": "join"}
    user.delete(f"/devices/{joiner.id}").raise_for_status()
    leaver = device_of(user, test="join")
    until(lambda: states(user, "join").get(leaver.id), "offered")
    user.patch(f"/fleets/devices/{leaver.id}/labels", {"test": None}).raise_for_status()
    assert take(leaver) == 1
    until(lambda: states(user, "join")[leaver.id], "updated")
