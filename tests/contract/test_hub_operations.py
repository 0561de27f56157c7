"""Health, metrics and the interface's own description, against the real hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import Caller, claimed_device
from brickless.testkit.postgres import Cluster


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    data_dir = str(tmp_path_factory.mktemp("hub") / "data")
    with running_hub(data_dir, arguments=["--no-rate-limits"]) as running:
        yield running


@pytest.fixture
def client(hub: HubProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=hub.url) as made:
        yield made


@pytest.fixture
def operator(hub: HubProcess) -> httpx.BasicAuth:
    return httpx.BasicAuth("saadmin", Path(hub.data_dir, "keys", "operator.secret").read_text())


def test_liveness_and_readiness_need_no_secret(client: httpx.Client) -> None:
    for path in ("/livez", "/readyz"):
        assert client.get(path).content == b'{"status":"ok"}'


def test_features_tell_what_there_is(client: httpx.Client) -> None:
    answer = client.get("/features")
    assert answer.json() == {"features": {"mqtt": False, "webhooks": True, "mfa": False}}
    assert answer.headers["cache-control"] == "max-age=60"


@pytest.mark.parametrize("path", ["/healthz/", "/metrics/"])
def test_health_and_metrics_are_for_the_operator(client: httpx.Client, operator: httpx.BasicAuth, path: str) -> None:
    nobody = client.get(path)
    assert (nobody.status_code, nobody.content) == (401, b'{"Error":"Not Authorized"}')
    assert nobody.headers["www-authenticate"].startswith("Basic realm=Pantahub")
    assert client.get(path, auth=("saadmin", "wrong")).status_code == 401
    broken = client.get(path, headers={"Authorization": "Basic !!"})
    assert (broken.status_code, broken.content) == (400, b'{"Error":"Invalid authentication"}')
    assert client.get(path, headers={"Authorization": "Basic YQ=="}).status_code == 400
    assert client.get(path, auth=operator).status_code == 200


def test_health_says_how_long_it_took(client: httpx.Client, operator: httpx.BasicAuth) -> None:
    body = client.get("/healthz/", auth=operator).json()
    assert body["code"] == 0
    assert body["duration"] > 0
    assert list(body) == ["code", "duration", "start-time"]


def test_metrics_name_routes_and_no_ids(client: httpx.Client, operator: httpx.BasicAuth) -> None:
    user = Caller(client).login("user1", "user1")
    device = claimed_device(user).start_trail()
    for _ in range(3):
        device.get(f"/trails/{device.id}/steps")
    client.get("/made-up/path")
    text = client.get("/metrics/", auth=operator).text
    assert re.search(r'hub_requests_total\{method="GET",route="/trails/\{id\}/steps",status="200"\} 3', text)
    assert 'route="none",status="404"' in text
    assert "hub_poll_cache_hits_total 2" in text
    assert device.id not in text
    assert "made-up" not in text
    buckets = re.findall(r'hub_request_seconds_bucket\{route="/trails/\{id\}/steps",le="[^"]+"\} (\d+)', text)
    assert buckets == sorted(buckets, key=int)
    assert buckets[-1] == "3"


def test_the_interface_describes_itself(client: httpx.Client) -> None:
    found = client.get("/swagger/doc.json").json()
    assert found["openapi"] == "3.1.0"
    assert found["paths"]["/trails/{id}/steps"]["post"]["requestBody"]
    assert "security" not in found["paths"]["/auth/login"]["post"]
    assert found["paths"]["/devices/{id}"]["get"]["security"][0]["bearer"]


@pytest.mark.needs("postgresql")
def test_not_ready_without_its_database(tmp_path: Path, postgresql: Cluster) -> None:
    url = postgresql.url("readiness")
    with (
        running_hub(str(tmp_path / "data"), arguments=["--database-url", url]) as hub,
        httpx.Client(base_url=hub.url, timeout=60) as client,
    ):
        assert client.get("/readyz").status_code == 200
        postgresql.drop("readiness")
        answer = client.get("/readyz")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert client.get("/livez").status_code == 200
        assert client.post("/devices/").status_code == 500
