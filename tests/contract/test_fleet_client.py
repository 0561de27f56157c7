"""The Python client against the hub's own description, and `brickless fleet` against a real hub."""

from __future__ import annotations

import json
import os
import re
import sys
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from brickless.linux.process import run
from brickless.main.fleetapi import OPERATIONS, FleetClient, FleetError
from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, DeviceCaller, claimed_device, sha256

BOLD = {"budget": 1.0, "evidence": 1000.0, "canary": 1000}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    data_dir = str(tmp_path_factory.mktemp("hub") / "data")
    with running_hub(data_dir, arguments=["--no-rate-limits"]) as running:
        yield running


@pytest.fixture(scope="module")
def document(hub: HubProcess) -> dict[str, Any]:
    return dict(httpx.get(f"{hub.url}/swagger/doc.json").json())


@pytest.fixture(scope="module")
def devices(hub: HubProcess) -> Iterator[list[DeviceCaller]]:
    with httpx.Client(base_url=hub.url) as client:
        owner = Caller(client).login("user1", "user1")
        made = [claimed_device(owner).start_trail() for _ in range(3)]
        for number, device in enumerate(made):
            owner.call("PATCH", f"/devices/{device.id}", {"nick": f"d{number}"}).raise_for_status()
        yield made


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_each_operation_is_one_of_the_document(document: dict[str, Any], name: str) -> None:
    operation = OPERATIONS[name]
    described = document["paths"][operation.path][operation.method.lower()]
    places = {one["name"] for one in described["parameters"] if one["in"] == "path"}
    assert places == set(re.findall(r"{(\w+)}", operation.path))
    queries = {one["name"] for one in described["parameters"] if one["in"] == "query"}
    assert operation.query <= queries
    schema = described.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    assert operation.body <= set(schema.get("properties", {}))
    assert set(schema.get("required", [])) <= operation.body


def test_no_operation_of_fleets_is_left_out(document: dict[str, Any]) -> None:
    there = {
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method in methods
        if path.startswith("/fleets/")
    }
    assert there == {(one.method, one.path) for one in OPERATIONS.values()}


class Command:
    """`brickless fleet` as a process."""

    def __init__(self, hub: HubProcess, folder: Path) -> None:
        self.environment = {
            **os.environ,
            "BRICKLESS_HUB": hub.url,
            "BRICKLESS_USER": "user1",
            "BRICKLESS_PASSWORD": "user1",
            "PYTHONPATH": str(ROOT / "src"),
        }
        self.folder = folder

    def __call__(self, *arguments: str, status: int = 0) -> str:
        argv = [sys.executable, "-c", "from brickless.main.cli import main; main()", "fleet", *arguments]
        done = run(
            argv, purpose="brickless fleet", timeout_s=300, check=False, env=self.environment, cwd=str(self.folder)
        )
        assert done.returncode == status, (done.stdout, done.stderr)
        self.stderr = done.stderr.decode()
        return done.stdout.decode()

    def json(self, *arguments: str) -> Any:
        return json.loads(self("--json", *arguments))


@pytest.fixture
def fleet(hub: HubProcess, tmp_path: Path) -> Command:
    return Command(hub, tmp_path)


FILE = """
[types.board]
description = "A board"

[labels.d0]
site = "lab"
type = "board"

[[releases]]
name = "{name}"
fragment = "#app"
state = {{ "#spec" = "pantavisor-service-system@1", "app/version.json" = {{ version = "{name}" }} }}

[[rollouts]]
name = "{name}-lab"
release = "{name}"
selector = "site=lab"
spec = {{ policy = {{ budget = 1.0, evidence = 1000.0, canary = 1000 }} }}
"""


def test_a_file_is_compared_and_applied(fleet: Command, devices: list[DeviceCaller], tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(FILE.format(name="v1"))
    shown = fleet("diff", "-f", "fleet.toml", status=1)
    assert shown.splitlines() == [
        "+ type board: A board",
        "~ labels of d0: site=lab type=board",
        "+ release v1 of a state#app",
        "+ rollout v1-lab: v1 to site=lab",
    ]
    assert fleet("apply", "-f", "fleet.toml") == shown
    assert fleet("diff", "-f", "fleet.toml") == ""
    path.write_text(FILE.format(name="v1").replace('"site=lab"\nspec', '"site=roof"\nspec'))
    fleet("apply", "-f", "fleet.toml", status=1)
    assert "exists and differs: its selector is site=lab" in fleet.stderr
    path.write_text(FILE.format(name="v1").replace("selector", "selecter"))
    fleet("apply", "-f", "fleet.toml", status=1)
    assert "'selecter' is none of" in fleet.stderr
    assert [one["nick"] for one in fleet.json("devices", "site=lab")] == ["d0"]


def test_a_rollout_from_the_command_line(fleet: Command, devices: list[DeviceCaller], tmp_path: Path) -> None:
    fleet("label", "d1", "room=kitchen")
    assert fleet("label", "d1") == "room  kitchen\n"
    state = {"#spec": SPEC, "app/data": sha256(b"new"), "app/version.json": {"version": 3}}
    with tarfile.open(tmp_path / "app.tar.gz", "w:gz") as tar:
        for name, data in (("json", json.dumps(state).encode()), (f"objects/{sha256(b'new')}", b"new")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, BytesIO(data))
    fleet("release", "create", "v3", "--export", "app.tar.gz#app")
    ahead = fleet.json("rollout", "create", "v3", "room=kitchen", "--preview")
    assert (ahead["devices"], ahead["unfit"]) == (1, {})
    fleet("rollout", "create", "v3", "room=kitchen", "--name", "kitchen", "--budget", "1")
    fleet("wait", "kitchen", "--timeout", "0", status=4)
    shown = wait_for_state(fleet, "kitchen", "offered")
    assert shown["members"][0]["nick"] == "d1"
    report = f"/trails/{devices[1].id}/steps/{shown['members'][0]['revision']}/progress"
    devices[1].call("PUT", report, {"status": "DONE"}).raise_for_status()
    assert "settled" in fleet("wait", "kitchen", "--timeout", "60")
    fleet("rollout", "rollback", "kitchen", "--reason", "a test")
    back = wait_for_state(fleet, "kitchen", "going-back")
    report = f"/trails/{devices[1].id}/steps/{back['members'][0]['revision']}/progress"
    devices[1].call("PUT", report, {"status": "DONE"}).raise_for_status()
    fleet("wait", "kitchen", "--timeout", "60", status=3)
    fleet("release", "rm", "v3", status=1)
    assert "A rollout brings this release" in fleet.stderr


def test_wait_says_by_its_status_that_some_failed(fleet: Command, devices: list[DeviceCaller], tmp_path: Path) -> None:
    release = {"name": "v4", "fragment": "#app", "state": {"#spec": SPEC, "app/version.json": {"version": 4}}}
    rollout = {"name": "attic", "release": "v4", "selector": "room=attic", "spec": {"policy": BOLD}}
    wanted = {
        "labels": {"d1": {"room": "attic"}, "d2": {"room": "attic"}},
        "releases": [release],
        "rollouts": [rollout],
    }
    (tmp_path / "fleet.json").write_text(json.dumps(wanted))
    fleet("apply", "-f", "fleet.json")
    offered = wait_for_state(fleet, "attic", "offered", 2)
    revisions = {one["device"]: one["revision"] for one in offered["members"]}
    for device, status in ((devices[1], "DONE"), (devices[2], "ERROR")):
        report = f"/trails/{device.id}/steps/{revisions[device.id]}/progress"
        device.call("PUT", report, {"status": status, "status-msg": "no room"}).raise_for_status()
    fleet("wait", "attic", "--timeout", "60", status=1)


def wait_for_state(fleet: Command, rollout: str, state: str, count: int = 1) -> Any:
    for _ in range(200):
        found = fleet.json("rollout", "show", rollout)
        if found["counts"][state] >= count:
            return found
    raise AssertionError(found)


def test_a_damaged_export_is_refused(fleet: Command, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        for name, data in (("json", b'{"#spec":"x"}'), (f"objects/{'0' * 64}", b"other")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, BytesIO(data))
    fleet("release", "create", "bad", "--export", "bad.tar", status=1)
    assert "does not have the content that its name says" in fleet.stderr
    (tmp_path / "no.tar").write_bytes(b"nothing")
    fleet("release", "create", "bad", "--export", "no.tar", status=1)
    assert "is no export" in fleet.stderr


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/fleets/rollouts", {"release": "v", "selector": "a=b", "specs": {}}, 400),
        ("POST", "/fleets/rollouts", {"release": "v", "selector": " "}, 400),
        ("POST", "/fleets/rollouts", {"release": "v", "selector": "a=", "spec": {}}, 400),
        ("POST", "/fleets/rollouts", {"release": "v", "selector": "a", "spec": {"deadline-s": 1}}, 400),
        ("POST", "/fleets/rollouts", {"release": "v", "selector": "a", "spec": {"policy": {"alarm": 2}}}, 400),
        ("POST", "/fleets/rollouts", {"release": "v", "selector": "a", "spec": {"window": {"start": "25:00"}}}, 400),
        ("POST", "/fleets/rollouts", {"release": "v", "selector": "a", "spec": {"phases": [{"percent": 0}]}}, 400),
        ("POST", "/fleets/releases", {"name": "x"}, 400),
        ("POST", "/fleets/releases", {"state": {"#spec": SPEC, "../x.json": {}}}, 422),
        ("POST", "/fleets/releases", {"state": {"#spec": SPEC, "x": "f" * 64}}, 422),
        ("POST", "/fleets/releases", {"state": {"#spec": SPEC}, "fragment": "web"}, 422),
        ("PATCH", "/fleets/devices", {"labels": {"a": "b"}}, 400),
        ("PUT", "/fleets/types/%2F..", {}, 400),
    ],
)
def test_what_is_refused(hub: HubProcess, method: str, path: str, body: Any, status: int) -> None:
    with FleetClient(hub.url, user="user2", password="user2") as client, pytest.raises(FleetError) as refused:
        client.request(method, path, body=body)
    assert refused.value.status == status, refused.value
