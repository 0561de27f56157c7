"""docs/how-to/operators.md: its requests to a real hub, its way to start one as the hub reads it."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from brickless.hub.arguments import parser, settings
from brickless.linux.process import run
from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import Caller, claimed_device

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "operators.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with running_hub(str(tmp_path_factory.mktemp("hub") / "data"), arguments=["--no-rate-limits"]) as running:
        yield running


@pytest.fixture
def user(hub: HubProcess) -> Iterator[Caller]:
    with httpx.Client(base_url=hub.url, timeout=60) as client:
        yield Caller(client).login("user1", "user1")


def test_the_requests_of_the_page_work_as_they_stand(hub: HubProcess, user: Caller) -> None:
    requests = [line for block in BLOCKS for line in block.splitlines() if line.startswith("curl ")]
    assert len(requests) == 3
    environment = {**os.environ, "TOKEN": user.token, "HUB": hub.url}
    for request in requests:
        done = run(
            ["bash", "-c", f"{request} --fail-with-body -s"], purpose="a request of the page", timeout_s=60,
            check=False, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, (request, done.stdout)
        answer = json.loads(done.stdout)
    assert answer["secret"].startswith("whsec_")
    (invitation,) = user.get("/orgs/acme/invitations").json()
    assert (invitation["email"], invitation["role"]) == ("ada@example.com", "operator")

    device = claimed_device(user)
    user.put(f"/orgs/acme/devices/{device.id}").raise_for_status()
    acting = Caller(user.client).login("user1==>acme", "user1")
    assert [one["id"] for one in acting.get("/devices/").json()] == [device.id]
    assert "PUT /orgs/{org}/devices/{id}" in {entry["action"] for entry in acting.get("/audit/").json()}
    assert user.get("/audit/verify").json()["whole"]


def test_the_hub_understands_how_the_page_starts_it(tmp_path: Path) -> None:
    (command,) = (block for block in BLOCKS if block.startswith("brickless hub "))
    secret = tmp_path / "oidc"
    secret.write_text("secret\n")
    words = shlex.split(command.replace("\\\n", " ").replace("/run/secrets/oidc", str(secret)))[2:]
    found = settings(parser({}).parse_args(words))
    assert found.oidc is not None
    assert (found.oidc.issuer, found.oidc.name) == ("https://id.example.com", "Example Inc")
    assert found.oidc.sign_up
    assert not found.policy.sign_up
