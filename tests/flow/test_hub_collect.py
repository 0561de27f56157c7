"""Garbage collection against use: what a revision names is never removed, whoever was first; on every storage.

One half stops a poster between its look at the records and its revision, and collects there. The other lets posters and
collections run against each other with no grace at all, where only the order of the locks keeps what is in use.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from brickless.core import canonical
from brickless.hub.app import Hub, Settings, running
from brickless.hub.domain.policy import Policy
from brickless.hub.domain.state import CheckedState
from brickless.hub.services.possession import require_objects
from brickless.hub.services.upkeep import Collected
from brickless.testkit import s3
from brickless.testkit.hub_client import SPEC, sha256
from brickless.testkit.postgres import Cluster, cluster

POSTERS, ROUNDS, CONTENTS = 4, 8, 4
OWNER = "prn:pantahub.com:auth:/user1"


class Storage(NamedTuple):
    database_url: str | None
    objects_url: str | None
    cluster: Cluster | None


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


@pytest.fixture(scope="module")
def bucket_server() -> Iterator[s3.Server]:
    with s3.server() as made:
        yield made


@pytest.fixture(
    params=[
        "sqlite folder",
        pytest.param("sqlite s3", marks=pytest.mark.needs("s3")),
        pytest.param("postgresql folder", marks=pytest.mark.needs("postgresql")),
        pytest.param("postgresql s3", marks=pytest.mark.needs("postgresql", "s3")),
    ]
)
def storage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Storage:
    kind, objects = request.param.split()
    name = f"{request.node.originalname.replace('_', '')[-20:]}{objects}"
    found: Cluster | None = request.getfixturevalue("postgresql") if kind == "postgresql" else None
    for variable, value in s3.ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)
    bucket = request.getfixturevalue("bucket_server").url(f"{kind}{name}") if objects == "s3" else None
    return Storage(found.url(name) if found else None, bucket, found)


Scenario = Callable[[Hub], Awaitable[None]]


@pytest.fixture
def in_hub(tmp_path: Path, storage: Storage) -> Callable[[Scenario], None]:
    async def body(scenario: Scenario) -> None:
        settings = Settings(
            str(tmp_path / "data"), database_url=storage.database_url, objects_url=storage.objects_url,
            demo_accounts=True, policy=Policy(rate_limits=False),
        )  # fmt: skip
        async with running(settings) as hub:
            await scenario(hub)

    return lambda scenario: asyncio.run(body(scenario))


async def at_once(hub: Hub) -> Collected:
    """A collection for which nothing is too young."""
    return await hub.upkeep.collect(unclaimed_ms=10**12, garbage_ms=-1000, grace_s=-1)


class Poster:
    """Somebody with a device, over the hub's whole application."""

    def __init__(self, hub: Hub) -> None:
        transport = httpx.ASGITransport(hub.application)
        headers = {"User-Agent": "test"}
        self.client = httpx.AsyncClient(transport=transport, base_url="http://hub.test", headers=headers)
        self.device_id = ""

    async def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return await self.client.request(method, path, content=None if body is None else json.dumps(body).encode())

    async def login(self, name: str, password: str) -> None:
        self.client.headers.pop("Authorization", None)
        answer = await self.call("POST", "/auth/login", {"username": name, "password": password})
        self.client.headers["Authorization"] = f"Bearer {answer.json()['token']}"

    async def begin(self) -> None:
        """A claimed device with its trail."""
        await self.login("user1", "user1")
        record = (await self.call("POST", "/devices/", {"secret": "a secret"})).json()
        self.device_id = record["id"]
        await self.login(record["prn"], "a secret")
        (await self.call("POST", "/trails/", {"#spec": SPEC})).raise_for_status()
        await self.login("user1", "user1")

    async def upload(self, data: bytes) -> str:
        """As clients do; a 503 is sent again, as they do."""
        sha = sha256(data)
        body = {"objectname": "x", "size": str(len(data)), "sha256sum": sha}
        while True:
            announced = await self.call("POST", "/objects/", body)
            if announced.status_code == 409:
                return sha
            announced.raise_for_status()
            put = await self.client.put(announced.json()["signed-puturl"], content=data)
            if put.status_code == 200:
                return sha
            # The record went, or the bytes: the collection was first, and says so.
            assert put.status_code in {403, 503}, put.text

    async def post(self, shas: list[str]) -> int | None:
        """The new revision; None when an object is gone already."""
        state = {"#spec": SPEC, **{f"a/{number}": sha for number, sha in enumerate(shas)}}
        answer = await self.call("POST", f"/trails/{self.device_id}/steps", {"rev": -1, "state": state})
        if answer.status_code == 422:
            return None
        answer.raise_for_status()
        rev: int = answer.json()["rev"]
        return rev

    async def whole(self, sha: str) -> bool:
        """Whether the object downloads, and is what its name says."""
        answer = await self.call("GET", f"/objects/{sha}")
        if answer.status_code != 200:
            return False
        got = await self.client.get(answer.json()["signed-geturl"])
        return got.status_code == 200 and sha256(got.content) == sha


async def waits(hub: Hub, collection: asyncio.Task[Collected]) -> None:
    """Until the collection waits for whoever writes, or ended."""
    # SQLite: it asks for its turn at its first step.
    await asyncio.sleep(0)
    while not hub.database.is_sqlite and not collection.done():
        for engine in hub.database.engines:
            async with AsyncEngine(engine).connect() as connection:
                if await connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
                    return
        await asyncio.sleep(0.01)


def checked(shas: list[str]) -> CheckedState:
    raw = canonical.dumps({"#spec": SPEC, **{f"a/{number}": sha for number, sha in enumerate(shas)}})
    return CheckedState(raw, sha256(raw), tuple(shas))


def test_a_collection_between_the_look_and_the_revision_waits(in_hub: Callable[[Scenario], None]) -> None:
    async def scenario(hub: Hub) -> None:
        poster = Poster(hub)
        await poster.begin()
        shas = [await poster.upload(b"named in time"), await poster.upload(b"never named")]
        device = poster.device_id
        async with hub.database.write() as session:
            trail = await session.trails.get(device)
            assert trail is not None
            state = checked(shas[:1])
            await require_objects(hub.parts, session, OWNER, state, autolink=False)
            collection = asyncio.create_task(at_once(hub))
            await waits(hub, collection)
            step = hub.trails._step(trail, 1, state, committer="", message="", meta={}, used="null")
            assert await session.trails.add_step(step, state.objects)
        assert (await collection)[1:3] == (1, 1)
        assert await poster.whole(shas[0])
        assert not await poster.whole(shas[1])
        assert await hub.upkeep.check() == []

    in_hub(scenario)


def test_an_object_that_is_announced_again_stays(in_hub: Callable[[Scenario], None]) -> None:
    async def scenario(hub: Hub) -> None:
        poster = Poster(hub)
        await poster.begin()
        sha, unwanted = await poster.upload(b"announced again"), await poster.upload(b"not announced again")
        hour_ms = 3600 * 1000
        async with hub.database.write() as session:
            for record in (await session.objects.many(OWNER, [sha, unwanted])).values():
                await session.objects.put(replace(record, modified_ms=record.modified_ms - 72 * hour_ms))
        assert await poster.upload(b"announced again") == sha
        found = await hub.upkeep.collect(garbage_ms=48 * hour_ms, grace_s=-1)
        assert found[1:3] == (1, 1)
        assert await poster.post([sha]) == 1
        assert await poster.whole(sha)

    in_hub(scenario)


class Race:
    """Posters, and collections that they set off between their uploads and their revisions."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.acknowledged: list[tuple[Poster, list[str]]] = []
        self.collections: list[asyncio.Task[Collected]] = []

    async def post(self, number: int) -> None:
        poster, chance = Poster(self.hub), random.Random(number)
        await poster.begin()
        for _ in range(ROUNDS):
            shas = [await poster.upload(b"content %d" % chance.randrange(CONTENTS)) for _ in range(2)]
            if chance.random() < 0.4:
                self.collections.append(asyncio.create_task(at_once(self.hub)))
            if await poster.post(shas) is not None:
                self.acknowledged.append((poster, shas))
            if chance.random() < 0.3:  # what it named is garbage now, unless another device names it too
                (await poster.call("DELETE", f"/devices/{poster.device_id}")).raise_for_status()
                self.acknowledged = [entry for entry in self.acknowledged if entry[0] is not poster]
                poster = Poster(self.hub)
                await poster.begin()


def test_posters_and_collections_against_each_other(in_hub: Callable[[Scenario], None]) -> None:
    async def scenario(hub: Hub) -> None:
        race = Race(hub)
        await asyncio.gather(*(race.post(number) for number in range(POSTERS)))
        found = [*await asyncio.gather(*race.collections), await at_once(hub)]
        devices, records, blobs, _ = map(sum, zip(*found, strict=True))
        assert race.acknowledged
        assert min(devices, records, blobs) > 0
        for poster, shas in race.acknowledged:
            for sha in shas:
                assert await poster.whole(sha), sha
        assert await hub.upkeep.check() == []

    in_hub(scenario)
