"""Labels, releases and rollouts through the application: real database, real driver, devices that answer by hand."""

from __future__ import annotations

import hashlib
from typing import Any

SPEC = "pantavisor-service-system@1"
#: Everything may fail: for tests that are not about the rule.
BOLD = {"budget": 1.0, "evidence": 1000.0, "canary": 1000}


async def upload(here: Any, user: str, data: bytes) -> str:
    sha = hashlib.sha256(data).hexdigest()
    body = {"objectname": "x", "size": str(len(data)), "sha256sum": sha}
    response = await here.call("POST", "/objects/", body, token=user)
    if response.status_code == 200:
        assert (await here.client.put(response.json()["signed-puturl"], content=data)).status_code == 200
    return sha


def web(sha: str, version: str = "1") -> dict[str, Any]:
    run = {
        "#spec": "service-manifest-run@1", "config": "lxc.container.conf", "name": "web",
        "root-volume": "root.squashfs", "type": "lxc",
    }  # fmt: skip
    return {
        "web/run.json": run,
        "web/lxc.container.conf": sha,
        "web/root.squashfs": sha,
        "_config/web/etc/version.json": {"version": version},
    }


class Fleet:
    """Devices with labels, and the calls that tests make again and again."""

    def __init__(self, here: Any, user: str) -> None:
        self.here, self.user = here, user
        self.devices: list[tuple[str, str]] = []

    async def grow(self, count: int, **labels: str) -> None:
        for _ in range(count):
            device_id, token = await self.here.device(self.user)
            if labels:
                await self.call("PATCH", f"/fleets/devices/{device_id}/labels", labels)
            self.devices.append((device_id, token))

    async def call(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        response = await self.here.call(method, path, body, token=self.user)
        assert response.status_code == status, response.text
        return response.json()

    async def release(self, version: str = "1", fragment: str = "web,_config/web", **more: Any) -> Any:
        sha = await upload(self.here, self.user, f"root {version}".encode())
        state = {"#spec": SPEC, **web(sha, version)}
        body = {"state": state, "fragment": fragment, "name": f"web-{version}", **more}
        return await self.call("POST", "/fleets/releases", body)

    async def roll_out(self, name: str, release: str, selector: str = "*", **spec: Any) -> Any:
        """Begin a rollout that stops at nothing, unless `spec` says so."""
        body = {"release": release, "selector": selector, "name": name, "spec": {"policy": BOLD, **spec}}
        return await self.call("POST", "/fleets/rollouts", body)

    async def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.here.hub.fleet_driver.wake()
            await self.here.hub.fleet_driver.tick()

    async def report(self, device: tuple[str, str], status: str, **more: Any) -> int:
        """The device's report about its newest step; returns its number."""
        rev = (await self.call("GET", f"/trails/{device[0]}/summary"))["revision"]
        path = f"/trails/{device[0]}/steps/{rev}/progress"
        response = await self.here.call("PUT", path, {"status": status, **more}, token=device[1])
        assert response.status_code == 200
        return int(rev)

    async def state(self, device: tuple[str, str]) -> Any:
        rev = (await self.call("GET", f"/trails/{device[0]}/summary"))["revision"]
        return await self.call("GET", f"/trails/{device[0]}/steps/{rev}/state")

    async def members(self, rollout: str) -> dict[str, Any]:
        rows = await self.call("GET", f"/fleets/rollouts/{rollout}/devices")
        return {row["device"]: row for row in rows}


async def fleet_of(here: Any, count: int, **labels: str) -> Fleet:
    fleet = Fleet(here, await here.login("user1", "user1"))
    await fleet.grow(count, **labels)
    return fleet


def test_a_rollout_brings_a_release_to_every_device_and_back(in_hub: Any) -> None:
    async def scenario(here: Any) -> None:
        fleet = await fleet_of(here, 3, site="lab")
        release = await fleet.release()
        assert release["fragment"] == "web,_config/web"
        await fleet.roll_out("r1", "web-1", "site=lab")
        await fleet.tick()
        assert {one["state"] for one in (await fleet.members("r1")).values()} == {"offered"}
        for device in fleet.devices:
            await fleet.report(device, "INPROGRESS")
        await fleet.tick()
        assert {one["state"] for one in (await fleet.members("r1")).values()} == {"updating"}
        for device in fleet.devices:
            await fleet.report(device, "DONE")
            assert (await fleet.state(device))["_config/web/etc/version.json"] == {"version": "1"}
        await fleet.tick(2)
        rollout = await fleet.call("GET", "/fleets/rollouts/r1")
        assert (rollout["state"], rollout["counts"]["updated"], rollout["evidence"]["updated"]) == ("settled", 3, 3)
        await fleet.call("POST", "/fleets/rollouts/r1/rollback", {"reason": "a test"})
        await fleet.tick(2)
        assert {one["state"] for one in (await fleet.members("r1")).values()} == {"going-back"}
        for device in fleet.devices:
            assert await fleet.state(device) == {"#spec": SPEC}
            await fleet.report(device, "DONE")
        await fleet.tick(3)
        rollout = await fleet.call("GET", "/fleets/rollouts/r1")
        assert (rollout["state"], rollout["counts"]["gone-back"], rollout["closed"]) == ("rolled-back", 3, True)

    in_hub(scenario)
