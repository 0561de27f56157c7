"""The objects of a hub in a real S3 server: streams, ranges, refusals, outages, garbage, and no shared folder."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from brickless.core.errors import UserError
from brickless.hub.adapters.s3_blobs import S3Blobs, parse_bucket
from brickless.hub.domain.errors import Malformed
from brickless.linux.process import run
from brickless.testkit import s3
from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, claimed_device, post_revision, sha256
from brickless.testkit.postgres import cluster

pytestmark = pytest.mark.needs("s3")
SRC = str(Path(__file__).parents[2] / "src")


@pytest.fixture(scope="module")
def server() -> Iterator[s3.Server]:
    with s3.server() as running:
        yield running


@pytest.fixture
def hub(tmp_path: Path, server: s3.Server) -> Iterator[HubProcess]:
    arguments = ["--no-rate-limits", "--objects-url", server.url("objects")]
    with running_hub(str(tmp_path / "data"), arguments=arguments, environment=s3.ENVIRONMENT) as running:
        yield running


@pytest.fixture
def user(hub: HubProcess) -> Iterator[Caller]:
    with httpx.Client(base_url=hub.url, timeout=60) as client:
        yield Caller(client).login("user1", "user1")


@pytest.fixture
def blobs(server: s3.Server, monkeypatch: pytest.MonkeyPatch) -> S3Blobs:
    for name, value in s3.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return S3Blobs(parse_bucket(server.url("unit")))


def published(server: s3.Server, bucket: str) -> list[str]:
    return sorted(path.name for path in Path(server.path(bucket), "hub", "objects").glob("*"))


async def chunks(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("size", [0, 1, 8 * 1024 * 1024, 8 * 1024 * 1024 + 1, 20_000_000])
def test_bytes_of_every_size_come_back(blobs: S3Blobs, size: int) -> None:
    data = random.Random(size).randbytes(size)
    sha = sha256(data)

    async def scenario() -> None:
        assert not await blobs.has(sha)
        await blobs.put(sha, size, chunks(data))
        assert await blobs.size_bytes(sha) == size
        assert b"".join([chunk async for chunk in blobs.read(sha, 0, size)]) == data
        middle = b"".join([chunk async for chunk in blobs.read(sha, size // 3, size // 3)])
        assert middle == data[size // 3 : size // 3 + size // 3]
        assert await blobs.fault(sha, size) == ""
        assert sha in [name async for name in blobs.names(older_than_s=0)]
        assert sha not in [name async for name in blobs.names(older_than_s=3600)]
        assert await blobs.remove(sha, older_than_s=3600) is None
        assert await blobs.remove(sha, older_than_s=0) == size
        assert await blobs.remove(sha, older_than_s=0) is None

    asyncio.run(scenario())


@pytest.mark.parametrize("size", [10, 20_000_000])
@pytest.mark.parametrize("fault", ["short", "long", "other"])
def test_nothing_wrong_gets_a_name(blobs: S3Blobs, server: s3.Server, size: int, fault: str) -> None:
    data = random.Random(1).randbytes(size)
    sent = {"short": data[:-1], "long": data + b"x", "other": data[:-1] + bytes([data[-1] ^ 1])}[fault]
    with pytest.raises(Malformed):
        asyncio.run(blobs.put(sha256(data), size, chunks(sent)))
    assert published(server, "unit") == []


def test_an_upload_that_ends_in_the_middle_leaves_no_name(hub: HubProcess, user: Caller, server: s3.Server) -> None:
    before = published(server, "objects")
    data = random.randbytes(20_000_000)
    body = {"objectname": "x", "size": str(len(data)), "sha256sum": sha256(data)}
    url = user.post("/objects/", body).json()["signed-puturl"]
    assert httpx.put(url, content=data[:-1] + b"\0", timeout=60).status_code == 400
    assert published(server, "objects") == before
    assert user.client.get(user.get(f"/objects/{sha256(data)}").json()["signed-geturl"]).status_code == 404
    assert httpx.put(url, content=data, timeout=60).status_code == 200
    get = user.get(f"/objects/{sha256(data)}").json()["signed-geturl"]
    part = user.client.get(get, headers={"Range": "bytes=9000000-9000099"})
    assert (part.status_code, part.content) == (206, data[9_000_000:9_000_100])
    assert user.client.get(get).content == data


def test_an_outage_of_the_bucket_is_a_503_and_passes(tmp_path: Path) -> None:
    with s3.server() as own:
        arguments = ["--no-rate-limits", "--objects-url", own.url("outage")]
        with (
            running_hub(str(tmp_path / "data"), arguments=arguments, environment=s3.ENVIRONMENT) as hub,
            httpx.Client(base_url=hub.url, timeout=120) as client,
        ):
            user = Caller(client).login("user1", "user1")
            sha = user.upload(b"before")
            url = user.post("/objects/", {"objectname": "x", "size": "5", "sha256sum": sha256(b"while")}).json()
            own.kill()
            answer = client.put(url["signed-puturl"], content=b"while")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert client.get("/readyz").status_code == 503
            own.start()
            assert client.put(url["signed-puturl"], content=b"while").status_code == 200
            assert client.get(user.get(f"/objects/{sha}").json()["signed-geturl"]).content == b"before"
            assert client.get("/readyz").status_code == 200


def hub_command(hub: HubProcess, *arguments: str) -> tuple[int, str, str]:
    argv = [sys.executable, "-m", "brickless.hub", "--data", hub.data_dir, *hub.arguments, *arguments]
    environment = {"PYTHONPATH": SRC, **s3.ENVIRONMENT}
    done = run(argv, purpose="a hub command", timeout_s=120, env=environment, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_garbage_goes_from_the_bucket_and_nothing_in_use_does(hub: HubProcess, user: Caller, server: s3.Server) -> None:
    device = claimed_device(user).start_trail()
    used, unused = user.upload(b"in use"), user.upload(b"not in use")
    post_revision(user, device.id, {"#spec": SPEC, "a": used})
    code, out, error = hub_command(hub, "admin", "gc", "--older-than-minutes", "0")
    assert code == 0, error
    assert json.loads(out)["blobs"] >= 1
    assert used in published(server, "objects")
    assert unused not in published(server, "objects")
    assert hub_command(hub, "admin", "check")[:2] == (0, "every object is whole\n")
    os.unlink(os.path.join(server.path("objects"), "hub", "objects", used))
    assert hub_command(hub, "admin", "check")[:2] == (1, f"object {used}: its bytes are missing\n")


def test_a_backup_says_where_the_objects_stay(tmp_path: Path, hub: HubProcess, user: Caller) -> None:
    sha = user.upload(b"stays in the bucket")
    backup, restored = str(tmp_path / "backup.tar"), str(tmp_path / "restored")
    code, out, error = hub_command(hub, "admin", "backup", backup)
    assert (code, out) == (0, f"0 objects in {backup}\n")
    assert "s3://objects/hub" in error
    again = HubProcess(restored, demo_accounts=False, arguments=hub.arguments, environment=s3.ENVIRONMENT)
    assert hub_command(again, "admin", "restore", backup)[0] == 0
    again.start()
    try:
        with httpx.Client(base_url=again.url) as client:
            same = Caller(client, user.token)
            assert client.get(same.get(f"/objects/{sha}").json()["signed-geturl"]).content == b"stays in the bucket"
    finally:
        again.kill()


@pytest.mark.needs("postgresql")
def test_replicas_need_no_shared_folder(tmp_path: Path, server: s3.Server) -> None:
    """PostgreSQL, a bucket, and a read-only copy of the keys for each: two data folders, one hub."""
    maker = HubProcess(str(tmp_path / "maker"), demo_accounts=False).start()
    maker.stop()
    keys = [str(tmp_path / f"keys-{number}") for number in range(2)]
    for folder in keys:
        shutil.copytree(os.path.join(maker.data_dir, "keys"), folder)
        os.chmod(folder, 0o500)
    with cluster() as postgresql:
        shared = ["--database-url", postgresql.url("hub"), "--objects-url", server.url("replicas"), "--no-rate-limits"]
        hubs = [
            HubProcess(
                str(tmp_path / f"data-{number}"),
                arguments=[*shared, "--keys", keys[number]],
                environment=s3.ENVIRONMENT,
            ).start()
            for number in range(2)
        ]
        try:
            with httpx.Client(base_url=hubs[0].url) as here, httpx.Client(base_url=hubs[1].url) as there:
                user = Caller(here).login("user1", "user1")
                sha = user.upload(b"one bucket")
                other = Caller(there, user.token)
                device = claimed_device(other).start_trail()
                post_revision(user, device.id, {"#spec": SPEC, "a": sha})
                assert there.get(other.get(f"/objects/{sha}").json()["signed-geturl"]).content == b"one bucket"
                assert Caller(here, device.token).get(f"/trails/{device.id}/steps").json()[0]["rev"] == 1
            assert not os.path.exists(os.path.join(hubs[0].data_dir, "keys"))
            assert not os.path.exists(os.path.join(hubs[0].data_dir, "objects"))
        finally:
            for hub in hubs:
                hub.kill()


def test_a_bucket_that_is_not_there_is_explained(tmp_path: Path, server: s3.Server) -> None:
    url = server.url("known").replace("s3://known", "s3://unknown")
    hub = HubProcess(str(tmp_path / "data"), arguments=["--objects-url", url], environment=s3.ENVIRONMENT)
    code, _, error = hub_command(hub, "--port", "0")
    assert (code, "unknown" in error, "Traceback" in error) == (1, True, False), error


@pytest.mark.parametrize(
    "url", ["http://x/y", "s3://", "s3://user@bucket", "s3://bucket?what=1", "s3://bucket?endpoint=ftp://x", "bucket"]
)
def test_what_names_no_bucket_is_refused(url: str) -> None:
    with pytest.raises(UserError):
        parse_bucket(url)
