"""The stream of events: in order, only one's own, resumed where it ended, and the same from every replica."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, claimed_device, post_revision


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, hub_database: list[str]) -> Iterator[HubProcess]:
    data_dir = str(tmp_path_factory.mktemp("hub") / "data")
    with running_hub(data_dir, arguments=["--no-rate-limits", *hub_database]) as running:
        yield running


@pytest.fixture
def user(hub: HubProcess) -> Iterator[Caller]:
    with httpx.Client(base_url=hub.url, timeout=60) as client:
        yield Caller(client).login("user1", "user1")


@pytest.fixture
def stranger(hub: HubProcess) -> Iterator[Caller]:
    with httpx.Client(base_url=hub.url, timeout=60) as client:
        yield Caller(client).login("user2", "user2")


class Stream:
    """An open stream: `(id, kind, data)` one after the other."""

    def __init__(self, hub: HubProcess, caller: Caller, query: str = "", last: str = "") -> None:
        headers = {"Authorization": f"Bearer {caller.token}", **({"Last-Event-ID": last} if last else {})}
        self.client = httpx.Client(base_url=hub.url, timeout=60)
        self._answer = self.client.stream("GET", f"/events/{query}", headers=headers)
        self._lines = self._answer.__enter__().iter_lines()
        self.start = next(line for line in self._lines if line.startswith("id: "))[4:]

    def __iter__(self) -> Iterator[tuple[str, str, Any]]:
        place = kind = ""
        for line in self._lines:
            if line.startswith("id: "):
                place = line[4:]
            elif line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: "):
                yield place, kind, json.loads(line[6:])

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._answer.__exit__(None, None, None)
        self.client.close()


def take(stream: Stream, count: int) -> list[tuple[str, str, Any]]:
    found = []
    for event in stream:
        found.append(event)
        if len(found) == count:
            break
    return found


def test_a_devices_life_is_told_in_order(hub: HubProcess, user: Caller) -> None:
    with Stream(hub, user) as stream:
        device = claimed_device(user).start_trail()
        post_revision(user, device.id, {"#spec": SPEC})
        device.put(f"/trails/{device.id}/steps/1/progress", {"status": "DONE", "progress": 100, "status-msg": "ok"})
        user.patch(f"/devices/{device.id}/user-meta", {"a": 1}).raise_for_status()
        user.delete(f"/devices/{device.id}").raise_for_status()
        found = take(stream, 6)
    kinds = [kind for _, kind, _ in found]
    assert kinds == [
        "device.created",
        "step.posted",
        "step.posted",
        "step.progress",
        "device.changed",
        "device.removed",
    ]
    assert {data["subject"] for _, _, data in found} == {device.id}
    assert found[3][2]["type"] == "io.brickless.step.progress"
    assert found[3][2]["data"]["progress"]["status-msg"] == "ok"


def test_a_stream_goes_on_where_it_ended(hub: HubProcess, user: Caller) -> None:
    with Stream(hub, user) as stream:
        device = claimed_device(user).start_trail()
        first = take(stream, 2)
    post_revision(user, device.id, {"#spec": SPEC})
    user.patch(f"/devices/{device.id}/user-meta", {"a": 1}).raise_for_status()
    with Stream(hub, user, last=first[-1][0]) as stream:
        assert [kind for _, kind, _ in take(stream, 2)] == ["step.posted", "device.changed"]
    with Stream(hub, user, query=f"?after={first[0][0]}&types=device.*") as stream:
        assert [kind for _, kind, _ in take(stream, 1)] == ["device.changed"]


def test_only_ones_own(hub: HubProcess, user: Caller, stranger: Caller) -> None:
    with Stream(hub, user) as stream:
        claimed_device(stranger).start_trail()
        mine = claimed_device(user)
        assert [data["subject"] for _, _, data in take(stream, 1)] == [mine.id]


def test_a_former_members_stream_ends(hub: HubProcess, user: Caller, stranger: Caller) -> None:
    nick = f"org-{hub.url[-5:]}"
    user.post("/orgs/", {"nick": nick}).raise_for_status()
    offer = user.post(f"/orgs/{nick}/invitations", {"email": "x@example.com", "role": "viewer"}).json()
    stranger.post("/orgs/accept", {"token": offer["token"]}).raise_for_status()
    guest = Caller(stranger.client, stranger.post(f"/orgs/{nick}/token").json()["token"])
    owner = Caller(user.client, user.post(f"/orgs/{nick}/token").json()["token"])
    with Stream(hub, guest) as stream:
        claimed_device(owner)
        assert len(take(stream, 1)) == 1
        owner.delete(f"/orgs/{nick}/members/user2").raise_for_status()
        claimed_device(owner)
        assert list(stream) == []


def test_events_of_transactions_that_overlap_are_all_told(hub: HubProcess, user: Caller) -> None:
    devices = [claimed_device(user).start_trail() for _ in range(4)]
    rounds = 6

    def post(device_id: str) -> None:
        with httpx.Client(base_url=hub.url, timeout=60) as client:
            for _ in range(rounds):
                post_revision(Caller(client, user.token), device_id, {"#spec": SPEC})

    with Stream(hub, user, query="?types=step.posted") as stream:
        threads = [threading.Thread(target=post, args=(device.id,)) for device in devices]
        for thread in threads:
            thread.start()
        found = take(stream, rounds * len(devices))
        for thread in threads:
            thread.join()
    seen = [(data["subject"], data["data"]["rev"]) for _, _, data in found]
    assert sorted(seen) == sorted((device.id, rev) for device in devices for rev in range(1, rounds + 1))
    for device in devices:
        assert [rev for subject, rev in seen if subject == device.id] == list(range(1, rounds + 1))


@pytest.mark.parametrize("query", ["?after=x", "?after=1-2-3", "?types=nonsense", "?types=device."])
def test_bad_questions(user: Caller, query: str) -> None:
    assert user.get(f"/events/{query}").status_code == 400


def test_devices_follow_nothing(user: Caller) -> None:
    assert claimed_device(user).get("/events/").status_code == 403
