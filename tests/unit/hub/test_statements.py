"""How many SQL statements a request needs: none for an idle poll, and never more for a larger fleet."""

from __future__ import annotations

import hashlib
from typing import Any

# A recorded change: count the head, append the entry, move the head. An event: one row.
AUDIT, EVENT = 3, 1
SPEC = "pantavisor-service-system@1"
POLL = 'progress.status={"$in":["NEW","DOWNLOADING","INPROGRESS","TESTING","QUEUED"]}'


def test_idle_polls_need_no_statement_and_writes_are_seen_at_once(in_hub: Any) -> None:
    async def scenario(here: Any) -> None:
        user = await here.login("user1", "user1")
        device_id, device = await here.device(user)
        steps, meta = f"/trails/{device_id}/steps?{POLL}", f"/devices/{device_id}/user-meta"
        for path, empty in ((steps, []), (meta, {})):
            assert (await here.call("GET", path, token=device)).json() == empty
            assert (await here.call("GET", path, token=device)).json() == empty
            assert here.count() == 0, here.statements
        await here.call("POST", f"/trails/{device_id}/steps", {"rev": -1, "state": {"#spec": SPEC}}, token=user)
        (step,) = (await here.call("GET", steps, token=device)).json()
        assert step["rev"] == 1
        report = {"status": "DONE"}
        await here.call("PUT", f"/trails/{device_id}/steps/1/progress", report, token=device)
        assert (await here.call("GET", steps, token=device)).json() == []
        await here.call("PATCH", meta, {"a": 1}, token=user)
        assert (await here.call("GET", meta, token=device)).json() == {"a": 1}
        await here.call("DELETE", f"/devices/{device_id}", token=user)
        assert (await here.call("GET", steps, token=device)).status_code == 404
        assert (await here.call("GET", meta, token=device)).status_code == 404

    in_hub(scenario)


def test_another_devices_poll_is_not_answered_from_memory(in_hub: Any) -> None:
    async def scenario(here: Any) -> None:
        user = await here.login("user1", "user1")
        device_id, device = await here.device(user)
        _, sibling = await here.device(user)
        for path in (f"/trails/{device_id}/steps", f"/devices/{device_id}/user-meta"):
            assert (await here.call("GET", path, token=device)).status_code == 200
            assert (await here.call("GET", path, token=sibling)).status_code in {400, 403}

    in_hub(scenario)


def test_equal_device_meta_is_not_written_again(in_hub: Any) -> None:
    async def scenario(here: Any) -> None:
        user = await here.login("user1", "user1")
        device_id, device = await here.device(user)
        path = f"/devices/{device_id}/device-meta"
        await here.call("PUT", path, {"b": 1, "a": {"y": 1, "x": 2}}, token=device)
        await here.call("PUT", path, {"a": {"x": 2, "y": 1}, "b": 1}, token=device)
        assert not [statement for statement in here.statements if statement.startswith("UPDATE")]

    in_hub(scenario)


async def under_way(here: Any, user: str, name: str, count: int) -> list[tuple[str, str]]:
    """Devices that were given the release of a rollout of this name."""
    devices = [await here.device(user) for _ in range(count)]
    for device_id, _ in devices:
        await here.call("PATCH", f"/fleets/devices/{device_id}/labels", {"ring": name}, token=user)
    release = {"state": {"#spec": SPEC, "app/version.json": {"of": name}}, "fragment": "app", "name": name}
    assert (await here.call("POST", "/fleets/releases", release, token=user)).status_code == 200
    policy = {"budget": 1.0, "evidence": 1000.0, "canary": 1000}
    rollout = {"release": name, "selector": f"ring={name}", "name": name, "spec": {"policy": policy}}
    assert (await here.call("POST", "/fleets/rollouts", rollout, token=user)).status_code == 200
    await here.hub.fleet_driver.tick()
    return devices


async def report(here: Any, device: tuple[str, str], status: str) -> int:
    """How many statements a device's report about its first step needs."""
    path = f"/trails/{device[0]}/steps/1/progress"
    assert (await here.call("PUT", path, {"status": status}, token=device[1])).status_code == 200
    found: int = here.count()
    return found


def test_a_report_needs_no_more_statements_for_a_rollout(in_hub: Any) -> None:
    async def scenario(here: Any) -> None:
        user = await here.login("user1", "user1")
        alone = await here.device(user)
        await here.call("POST", f"/trails/{alone[0]}/steps", {"rev": -1, "state": {"#spec": SPEC}}, token=user)
        plain = await report(here, alone, "DONE")
        for name, count in (("few", 1), ("many", 8)):
            devices = await under_way(here, user, name, count)
            assert {await report(here, device, "DONE") for device in devices} == {plain}
        assert plain <= 6 + EVENT, here.statements

    in_hub(scenario)


def test_a_look_of_the_driver_needs_no_more_statements_for_more_news(in_hub: Any) -> None:
    async def scenario(here: Any) -> None:
        user = await here.login("user1", "user1")
        counts = []
        for name, count in (("few", 2), ("many", 12)):
            for device in await under_way(here, user, name, count):
                await report(here, device, "DONE")
            here.hub.fleet_driver.wake()
            here.statements.clear()
            await here.hub.fleet_driver.tick()
            counts.append(here.count())
            rollout = (await here.call("GET", f"/fleets/rollouts/{name}", token=user)).json()
            assert rollout["counts"]["updated"] == count
            assert rollout["state"] == "settled"
        # The second look has the first rollout, too, which is settled by then: a few reads.
        assert counts[1] <= counts[0] + 12, counts

    in_hub(scenario)


def test_statements_do_not_grow_with_the_fleet(in_hub: Any) -> None:
    async def scenario(here: Any) -> None:
        user = await here.login("user1", "user1")
        device_id, device = await here.device(user)
        objects = []
        for number in range(30):
            data = f"object {number}".encode()
            sha = hashlib.sha256(data).hexdigest()
            body = {"objectname": str(number), "size": str(len(data)), "sha256sum": sha}
            access = (await here.call("POST", "/objects/", body, token=user)).json()
            assert here.count() <= 4 + AUDIT, here.statements
            await here.client.put(access["signed-puturl"], content=data)
            objects.append(sha)
        small = {"#spec": SPEC, "a": objects[0]}
        large = {"#spec": SPEC, **{f"f{number}": sha for number, sha in enumerate(objects)}}
        posted = [await statements_of_post(here, user, device_id, state) for state in (small, large)]
        assert posted[0] == posted[1] <= 8 + AUDIT + EVENT

        counts: dict[tuple[str, str], list[int]] = {}
        for _ in range(2):
            for path, token in reads(device_id, user, device):
                answer = await here.call("GET", path, token=token)
                assert answer.status_code == 200, path
                counts.setdefault((path, token), []).append(here.count())
            for _ in range(5):
                await here.device(user)
        for (path, _), (few, many) in counts.items():
            assert many <= few <= 4, (path, few, many)

    in_hub(scenario)


async def statements_of_post(here: Any, user: str, device_id: str, state: dict[str, str]) -> int:
    answer = await here.call("POST", f"/trails/{device_id}/steps", {"rev": -1, "state": state}, token=user)
    assert answer.status_code == 200, answer.text
    found: int = here.count()
    return found


def reads(device_id: str, user: str, device: str) -> list[tuple[str, str]]:
    trail = f"/trails/{device_id}"
    return [
        ("/devices/", user), (f"/devices/{device_id}", user), ("/trails/", user), ("/trails/summary", user),
        (f"{trail}/steps", user), (f"{trail}/steps/2", user), (f"{trail}/steps/2/objects", user),
        (f"{trail}/steps/2/objects", device), (f"{trail}/.pvrremote", user), ("/objects/", user), ("/logs/", user),
        ("/devices/", device), ("/objects/", device),
    ]  # fmt: skip
