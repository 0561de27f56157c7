"""The stream of events: in order, only one's own, resumed where it ended, and the same from every replica."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest

from brickless.hub.domain.events import KINDS
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

    place = "/events/"

    def __init__(self, hub: HubProcess, caller: Caller, query: str = "", last: str = "") -> None:
        headers = {"Authorization": f"Bearer {caller.token}", **({"Last-Event-ID": last} if last else {})}
        self.client = httpx.Client(base_url=hub.url, timeout=60)
        self._answer = self.client.stream("GET", f"{self.place}{query}", headers=headers)
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


def described(user: Caller, name: str) -> Any:
    """A validator for one of the OpenAPI document's schemas."""
    document = user.client.get("/swagger/doc.json").json()
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)


def test_every_kind_of_event_is_as_the_document_says(hub: HubProcess, user: Caller) -> None:
    device = claimed_device(user).start_trail()
    with Stream(hub, user) as stream:
        claimed_device(user)
        post_revision(user, device.id, {"#spec": SPEC})
        user.put(f"/trails/{device.id}/steps/1/cancel").raise_for_status()
        user.patch(f"/devices/{device.id}/user-meta", {"a": 1}).raise_for_status()
        user.patch(f"/fleets/devices/{device.id}/labels", {"told": "yes"}).raise_for_status()
        user.patch(f"/devices/{device.id}", {"nick": f"told-{device.id[-6:]}"}).raise_for_status()
        release = {"state": {"#spec": SPEC, "app/a.json": {"told": device.id}}, "name": f"told-{device.id}"}
        user.post("/fleets/releases", release).raise_for_status()
        user.post("/fleets/rollouts", {"release": release["name"], "selector": "told=yes"}).raise_for_status()
        post_revision(user, device.id, {"#spec": SPEC})
        user.delete(f"/devices/{device.id}").raise_for_status()
        validator, kinds = described(user, "Event"), set()
        for _, kind, data in stream:
            validator.validate(data)
            kinds.add(kind)
            if kind == "device.removed":
                break
    assert kinds == set(KINDS) - {"webhook.ping"}
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**data, "type": "io.brickless.step.posted"})


def test_a_rollouts_steps_and_what_it_withdraws_are_told(hub: HubProcess, user: Caller) -> None:
    device = claimed_device(user).start_trail()
    user.patch(f"/fleets/devices/{device.id}/labels", {"only": device.id}).raise_for_status()
    release = {"state": {"#spec": SPEC, "app/a.json": {"only": device.id}}, "fragment": "app"}
    release_id = user.post("/fleets/releases", release).json()["id"]
    with Stream(hub, user) as stream:
        rollout = user.post("/fleets/rollouts", {"release": release_id, "selector": f"only={device.id}"}).json()
        told = next((kind, data["data"]) for _, kind, data in stream if kind.startswith("step."))
        assert (told[0], told[1]["rev"]) == ("step.posted", 1)
        user.post(f"/fleets/rollouts/{rollout['id']}/abort").raise_for_status()
        told = next((kind, data["data"]) for _, kind, data in stream if kind.startswith("step."))
        assert (told[0], told[1]["rev"], told[1]["status"]) == ("step.progress", 1, "CANCEL")


class Lines(Stream):
    """An open stream of a device's log lines."""

    place = "/logs/live"


def test_lines_are_pushed_and_a_tail_goes_on_where_it_ended(hub: HubProcess, user: Caller, stranger: Caller) -> None:
    device, other = claimed_device(user).start_trail(), claimed_device(user).start_trail()
    device.post("/logs/", [{"msg": "before"}]).raise_for_status()
    with Lines(hub, user, f"?dev={device.id}") as tail:
        other.post("/logs/", [{"msg": "of another device"}]).raise_for_status()
        device.post("/logs/", [{"msg": "one", "lvl": "WARN"}, {"msg": "two"}]).raise_for_status()
        found = take(tail, 2)
    assert [(kind, line["msg"], line["dev"]) for _, kind, line in found] == [
        ("log", text, f"prn:::devices:/{device.id}") for text in ("one", "two")
    ]
    for _, _, line in found:
        described(user, "LogLine").validate(line)
    device.post("/logs/", [{"msg": "three"}]).raise_for_status()
    with Lines(hub, user, f"?dev={device.id}", last=found[0][0]) as tail:
        assert [line["msg"] for _, _, line in take(tail, 2)] == ["two", "three"]
    assert stranger.get(f"/logs/live?dev={device.id}").status_code == 404
    assert user.get("/logs/live").status_code == 400
    assert user.get(f"/logs/live?dev={device.id}&after=x").status_code == 400


def test_a_former_members_tail_ends(hub: HubProcess, user: Caller, stranger: Caller) -> None:
    nick = f"logs-{hub.url[-5:]}"
    user.post("/orgs/", {"nick": nick}).raise_for_status()
    offer = user.post(f"/orgs/{nick}/invitations", {"email": "x@example.com", "role": "viewer"}).json()
    stranger.post("/orgs/accept", {"token": offer["token"]}).raise_for_status()
    guest = Caller(stranger.client, stranger.post(f"/orgs/{nick}/token").json()["token"])
    device = claimed_device(Caller(user.client, user.post(f"/orgs/{nick}/token").json()["token"])).start_trail()
    with Lines(hub, guest, f"?dev={device.id}") as tail:
        device.post("/logs/", [{"msg": "still a member"}]).raise_for_status()
        assert len(take(tail, 1)) == 1
        user.put(f"/orgs/{nick}/members/user2", {"role": "device-installer"}).raise_for_status()
        device.post("/logs/", [{"msg": "not for installers"}]).raise_for_status()
        assert list(tail) == []


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
