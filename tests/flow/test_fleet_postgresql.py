"""Fleets on PostgreSQL: the same answers as in memory, and two replicas of which the second takes over at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from brickless.hub.adapters.database import SqlDatabase
from brickless.testkit.fleet_memory import MemoryDatabase
from brickless.testkit.fleet_questions import answers, fill
from brickless.testkit.hub import HubProcess
from brickless.testkit.hub_client import SPEC, Caller, DeviceCaller, claimed_device
from brickless.testkit.postgres import Cluster, cluster

pytestmark = pytest.mark.needs("postgresql")
BOLD = {"budget": 1.0, "evidence": 1000.0, "canary": 1000}


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Cluster]:
    with cluster() as running:
        yield running


def test_postgresql_answers_as_memory_does(postgresql: Cluster) -> None:
    async def there() -> list[tuple[str, Any]]:
        db = SqlDatabase(postgresql.url("questions"))
        await db.start()
        try:
            await fill(db)
            return await answers(db)
        finally:
            await db.stop()

    async def here() -> list[tuple[str, Any]]:
        db = MemoryDatabase()
        await fill(db)
        return await answers(db)

    for (name, ours), (_, theirs) in zip(asyncio.run(here()), asyncio.run(there()), strict=True):
        assert ours == theirs, name


def until(user: Caller, states: dict[str, int], wanted: str = "running", *, seconds: float) -> dict[str, Any]:
    """The rollout once it is in the wanted state, and so many devices are in these."""
    deadline_s = time.monotonic() + seconds
    while True:
        found: dict[str, Any] = user.get("/fleets/rollouts/r").json()
        if all(found["counts"][state] == count for state, count in states.items()) and found["state"] == wanted:
            return found
        assert time.monotonic() < deadline_s, found


def report(devices: list[DeviceCaller], status: str) -> None:
    for device in devices:
        device.call("PUT", f"/trails/{device.id}/steps/1/progress", {"status": status}).raise_for_status()


def test_a_replica_takes_over_where_the_other_was_killed(tmp_path: Path, postgresql: Cluster) -> None:
    arguments = ["--database-url", postgresql.url("fleet"), "--no-rate-limits"]
    first, second = (HubProcess(str(tmp_path / "data"), arguments=arguments) for _ in range(2))
    first.start()
    try:
        second.start()
        with httpx.Client(base_url=second.url, timeout=30) as client:
            user = Caller(client).login("user1", "user1")
            devices = [claimed_device(user).start_trail() for _ in range(6)]
            state = {"#spec": SPEC, "app/version.json": {"version": 2}}
            user.post("/fleets/releases", {"state": state, "name": "v2", "fragment": "app"}).raise_for_status()
            draft = {"release": "v2", "selector": "*", "name": "r", "spec": {"policy": BOLD}}
            user.post("/fleets/rollouts", draft).raise_for_status()
            until(user, {"offered": 6}, seconds=60)
            report(devices, "INPROGRESS")
            first.kill()
            # The lease of whoever drove runs out; nothing is lost meanwhile, and nothing is given out twice.
            report(devices[:3], "DONE")
            report(devices[3:], "ERROR")
            found = until(user, {"updated": 3, "failed": 3}, "settled", seconds=120)
            assert found["evidence"] == {"updated": 3, "failed": 3, "silent": 0}
            for device in devices:
                assert user.get(f"/trails/{device.id}/summary").json()["revision"] == 1
    finally:
        first.kill()
        second.kill()
