"""Two hubs over one PostgreSQL and one folder: what one writes, the other's remembered answers and dashboards know."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, DeviceCaller, claimed_device, post_revision, sha256
from brickless.testkit.postgres import Cluster, cluster

pytestmark = pytest.mark.needs("postgresql")


@pytest.fixture
def postgresql() -> Iterator[Cluster]:
    with cluster() as running:
        yield running


@pytest.fixture
def hubs(tmp_path: Path, postgresql: Cluster) -> Iterator[tuple[HubProcess, HubProcess]]:
    arguments = ["--database-url", postgresql.url("hub"), "--no-rate-limits"]
    # Both at once, on an empty database and without keys: one migrates and makes the keys, the other waits for it.
    data = str(tmp_path / "data")
    first, second = HubProcess(data, arguments=arguments), HubProcess(data, arguments=arguments)
    starting = [threading.Thread(target=hub.start) for hub in (first, second)]
    for thread in starting:
        thread.start()
    for thread in starting:
        thread.join()
    try:
        yield first, second
    finally:
        first.kill()
        second.kill()


def until(condition: object, wanted: object, *, seconds: float = 5.0) -> None:
    """Ask again and again until the answer is the wanted one."""
    deadline_s = time.monotonic() + seconds
    assert callable(condition)
    while (found := condition()) != wanted:
        assert time.monotonic() < deadline_s, f"still {found!r}, not {wanted!r}"


def test_a_token_and_an_upload_work_everywhere(hubs: tuple[HubProcess, HubProcess]) -> None:
    with httpx.Client(base_url=hubs[0].url) as here, httpx.Client(base_url=hubs[1].url) as there:
        user = Caller(here).login("user1", "user1")
        sha = user.upload(b"from the first replica")
        other = Caller(there, user.token)
        assert there.get(other.get(f"/objects/{sha}").json()["signed-geturl"]).content == b"from the first replica"


def test_remembered_polls_hear_of_other_replicas(hubs: tuple[HubProcess, HubProcess]) -> None:
    with httpx.Client(base_url=hubs[0].url) as here, httpx.Client(base_url=hubs[1].url) as there:
        user = Caller(here).login("user1", "user1")
        device = claimed_device(user).start_trail()
        polling = Caller(there, device.token)
        steps, meta = f"/trails/{device.id}/steps", f"/devices/{device.id}/user-meta"
        for _ in range(3):
            assert polling.get(steps).json() == []
            assert polling.get(meta).json() == {}
        post_revision(user, device.id, {"#spec": SPEC})
        until(lambda: [step["rev"] for step in polling.get(steps).json()], [1])
        device.put(f"/trails/{device.id}/steps/1/progress", {"status": "DONE"})
        until(lambda: polling.get(steps).json(), [])
        user.patch(meta, {"a": 1})
        until(lambda: polling.get(meta).json(), {"a": 1})
        user.delete(f"/devices/{device.id}")
        until(lambda: polling.get(steps).status_code, 404)


def test_a_broken_connection_to_the_database_leaves_nothing_stale(
    hubs: tuple[HubProcess, HubProcess], postgresql: Cluster
) -> None:
    with httpx.Client(base_url=hubs[0].url) as here, httpx.Client(base_url=hubs[1].url) as there:
        user = Caller(here).login("user1", "user1")
        device = claimed_device(user).start_trail()
        polling = Caller(there, device.token)
        steps = f"/trails/{device.id}/steps"
        assert polling.get(steps).json() == []
        assert polling.get(steps).json() == []
        postgresql.sever("hub")
        until(lambda: user.get("/devices/").status_code, 200)
        post_revision(user, device.id, {"#spec": SPEC})
        until(lambda: [step["rev"] for step in polling.get(steps).json()], [1], seconds=15)


def test_a_dashboard_hears_of_other_replicas(hubs: tuple[HubProcess, HubProcess]) -> None:
    with httpx.Client(base_url=hubs[0].url) as here, httpx.Client(base_url=hubs[1].url, timeout=30) as browser:
        user = Caller(here).login("user1", "user1")
        device = claimed_device(user).start_trail()
        form = browser.get("/").text.split('name="form" value="')[1].split('"')[0]
        browser.post("/dash-ui/sign-in", data={"form": form, "name": "user1", "password": "user1"})
        with browser.stream("GET", "/dash-ui/events") as stream:
            lines = stream.iter_lines()
            assert next(lines) == "retry: 3000"
            post_revision(user, device.id, {"#spec": SPEC})
            told = next(json.loads(line[6:]) for line in lines if line.startswith("data: "))
            assert told == {"kind": "step.posted", "subject": device.id, "text": ""}


def followed(client: httpx.Client, user: Caller, path: str, last: str = "") -> Iterator[tuple[str, Any]]:
    """`(id, data)` of a stream of server-sent events."""
    headers = {"Authorization": f"Bearer {user.token}", **({"Last-Event-ID": last} if last else {})}
    place = ""
    with client.stream("GET", path, headers=headers) as stream:
        for line in stream.iter_lines():
            if line.startswith("id: "):
                place = line[4:]
            elif line.startswith("data: "):
                yield place, json.loads(line[6:])


def test_a_stream_goes_on_at_another_replica(hubs: tuple[HubProcess, HubProcess]) -> None:
    with httpx.Client(base_url=hubs[0].url) as here, httpx.Client(base_url=hubs[1].url, timeout=30) as there:
        user = Caller(here).login("user1", "user1")
        device = claimed_device(user).start_trail()
        with contextlib.closing(followed(here, user, "/events/?after=0-0")) as events:
            place, first = next(events)
            assert (first["type"], first["subject"]) == ("io.brickless.device.created", device.id)
        revisions = [post_revision(user, device.id, {"#spec": SPEC})["rev"] for _ in range(3)]
        with contextlib.closing(followed(there, user, "/events/?types=step.posted", place)) as events:
            told = [next(events) for _ in range(4)]
            assert [data["data"]["rev"] for _, data in told] == [0, *revisions]
            rev = post_revision(user, device.id, {"#spec": SPEC})["rev"]
            place, data = next(events)
            assert data["data"]["rev"] == rev
        rev = post_revision(Caller(there, user.token), device.id, {"#spec": SPEC})["rev"]
        with contextlib.closing(followed(here, user, "/events/", place)) as events:
            assert next(events)[1]["data"]["rev"] == rev


def test_lines_of_logs_reach_whoever_follows_at_another_replica(hubs: tuple[HubProcess, HubProcess]) -> None:
    with httpx.Client(base_url=hubs[0].url) as here, httpx.Client(base_url=hubs[1].url, timeout=30) as there:
        user = Caller(here).login("user1", "user1")
        device = claimed_device(user).start_trail()
        device.post("/logs/", [{"msg": "one"}, {"msg": "two"}]).raise_for_status()
        path = f"/logs/live?dev={device.id}"
        with contextlib.closing(followed(there, user, f"{path}&after=0")) as tail:
            told = [next(tail) for _ in range(2)]
            assert [line["msg"] for _, line in told] == ["one", "two"]
            device.post("/logs/", [{"msg": "three"}]).raise_for_status()
            assert next(tail)[1]["msg"] == "three"
        with contextlib.closing(followed(here, user, path, told[0][0])) as tail:
            assert [next(tail)[1]["msg"] for _ in range(2)] == ["two", "three"]


def test_revisions_from_both_replicas_get_distinct_numbers(hubs: tuple[HubProcess, HubProcess]) -> None:
    with httpx.Client(base_url=hubs[0].url) as client:
        user = Caller(client).login("user1", "user1")
        device: DeviceCaller = claimed_device(user).start_trail()
        revisions: list[int] = []

        def post(url: str) -> None:
            with httpx.Client(base_url=url) as other:
                revisions.append(post_revision(Caller(other, user.token), device.id, {"#spec": SPEC})["rev"])

        threads = [threading.Thread(target=post, args=(hubs[number % 2].url,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(revisions) == list(range(1, 13))


def test_a_replica_that_starts_leaves_the_uploads_of_the_other_alone(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    with running_hub(data) as first, httpx.Client(base_url=first.url, timeout=30) as client:
        user = Caller(client).login("user1", "user1")
        content = b"x" * 100_000
        body = {"objectname": "slow", "size": str(len(content)), "sha256sum": sha256(content)}
        url = user.post("/objects/", body).json()["signed-puturl"]

        def slowly() -> Iterator[bytes]:
            yield content[:50_000]
            until(lambda: len(list(Path(data, "objects", "incoming").iterdir())), 1)
            with running_hub(data, demo_accounts=False):
                yield content[50_000:]

        assert client.put(url, content=slowly()).status_code == 200
