"""Who may do what: every route of the hub's own description, by every kind of caller, against a reviewed table.

`hub_permissions.txt` beside this file is that table: one line a route, one status a caller. A route without a line
fails, so nobody adds one without deciding who may call it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, DeviceCaller, claimed_device, post_revision, sha256

READ_DEVICES = "prn:pantahub.com:apis:/base/devices.readonly"
TABLE = Path(__file__).with_name("hub_permissions.txt")
CALLERS = ("nobody", "owner", "other", "device", "sibling", "foreign", "session", "anonymous", "admin")
#: Tokens are the permission there (test_hub_wire), or the operator's secret is (test_hub_operations).
ELSEWHERE = ("/local-s3/", "/s3/", "/livez/", "/readyz/", "/healthz/", "/metrics/", "/swagger/")


class Target(NamedTuple):
    """Something of the owner's that a call aims at."""

    id: str
    sha: str
    token_id: str
    api_token_id: str
    nick: str
    challenge: str


class World:
    """The callers, and fresh targets."""

    def __init__(self, client: httpx.Client) -> None:
        nobody = Caller(client)
        owner = nobody.login("user1", "user1")
        other = nobody.login("user2", "user2")
        scope = "devices.readonly objects.readonly trails.readonly"
        self.owner = owner
        self.callers: dict[str, Caller] = {
            "nobody": nobody,
            "owner": owner,
            "other": other,
            "sibling": claimed_device(owner).start_trail(),
            "foreign": claimed_device(other).start_trail(),
            "session": Caller(client, nobody.post("/auth/sessions").json()["token"]),
            "anonymous": nobody.login("prn:pantahub.com:auth:/anon", "x", scope=scope),
            "admin": nobody.login("admin", "admin"),
        }
        self.sha = owner.upload(b"in the target's state")

    def target(self) -> tuple[Target, DeviceCaller]:
        device = claimed_device(self.owner).start_trail()
        post_revision(self.owner, device.id, {"#spec": SPEC, "a": self.sha})
        token_id = self.owner.post("/devices/tokens").json()["id"]
        api_token = self.owner.post("/tokens/", {"scopes": [READ_DEVICES]}).json()["id"]
        nick = self.owner.get(f"/devices/{device.id}").json()["nick"]
        return Target(device.id, self.sha, token_id, api_token, nick, device.challenge), device


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    data_dir = str(tmp_path_factory.mktemp("hub") / "data")
    with running_hub(data_dir, arguments=["--no-rate-limits"]) as running:
        yield running


@pytest.fixture(scope="module")
def world(hub: HubProcess) -> Iterator[World]:
    with httpx.Client(base_url=hub.url) as client:
        yield World(client)


def body_of(key: str, target: Target) -> Any:
    """A body that would succeed for whoever may."""
    content, fresh = sha256(key.encode()), target.id[-20:]
    return {
        "POST /auth/login": {"username": "user1", "password": "user1"},
        "POST /auth/accounts": {"email": f"{fresh}@example.com", "nick": fresh, "password": "password"},
        "POST /auth/recover": {"email": "nobody@example.com"},
        "POST /auth/password": {"token": "x", "password": "y"},
        "PUT /devices/{id}": {"nick": f"put-{fresh}"},
        "PATCH /devices/{id}": {"nick": f"patch-{fresh}"},
        "PUT /devices/{id}/user-meta": {"a": 1},
        "PATCH /devices/{id}/user-meta": {"a": 1},
        "PUT /devices/{id}/device-meta": {"a": 1},
        "PATCH /devices/{id}/device-meta": {"a": 1},
        "POST /trails/": {"#spec": SPEC},
        "POST /trails/{id}/steps": {"rev": -1, "state": {"#spec": SPEC}},
        "PUT /trails/{id}/steps/{rev}/state": {"#spec": SPEC},
        "PUT /trails/{id}/steps/{rev}/progress": {"status": "DONE"},
        "POST /trails/{id}/steps/{rev}/objects": {"objectname": "x", "size": "1", "sha256sum": content},
        "POST /objects/": {"objectname": "x", "size": "1", "sha256sum": content},
        "PUT /objects/{sha}": {"objectname": "x", "owner": "prn:pantahub.com:auth:/user1", "sha256sum": target.sha},
        "POST /logs/": {"msg": "x"},
        "POST /tokens/": {"scopes": [READ_DEVICES]},
        "POST /logs/cursor": {"next-cursor": "x"},
        "PUT /trails/{id}/steps/{rev}/meta": {"a": 1},
    }.get(key)


def routes(client: httpx.Client) -> list[str]:
    """`METHOD path` of everything that the hub says it serves."""
    paths = client.get("/swagger/doc.json").json()["paths"]
    return [
        f"{method.upper()} {path}"
        for path, methods in paths.items()
        for method in methods
        if not path.startswith(ELSEWHERE)
    ]


def status(world: World, key: str, name: str) -> int:
    target, device = world.target()
    caller = device if name == "device" else world.callers[name]
    method, _, path = key.partition(" ")
    record = target.id
    if "/tokens/" in path:
        record = target.token_id if path.startswith("/devices/") else target.api_token_id
    for field, value in (
        ("{id}", record),
        ("{rev}", "1"),
        ("{sha}", target.sha),
        ("{user}", "user1"),
        ("{owner}", "user1"),
        ("{filename}", "a.tar"),
        ("{device}", target.nick),
    ):
        path = path.replace(field, value)
    if key == "GET /trails/{id}/steps/{rev}/.pvrremote":
        path = f"/trails/{target.id}/steps/1/.pvrremote"
    return caller.call(method, path, body_of(key, target)).status_code


def table() -> dict[str, dict[str, int]]:
    lines = [line for line in TABLE.read_text().splitlines() if line and not line.startswith("#")]
    names = lines[0].split()[2:]
    assert tuple(names) == CALLERS
    cells = (line.split() for line in lines[1:])
    return {f"{method} {path}": dict(zip(names, map(int, statuses), strict=True)) for method, path, *statuses in cells}


def test_every_route_has_a_decision(hub: HubProcess) -> None:
    with httpx.Client(base_url=hub.url) as client:
        assert sorted(routes(client)) == sorted(table())


@pytest.mark.parametrize("name", CALLERS)
def test_who_may_do_what(world: World, name: str) -> None:
    found = {key: status(world, key, name) for key in table()}
    expected = {key: statuses[name] for key, statuses in table().items()}
    assert found == expected


def describe(ask: Callable[[str, str], int], keys: list[str]) -> str:
    """The table as text, for when a route is added: `python -c` with this function and `status`, then review."""
    lines = [f"{'METHOD':6} {'PATH':46} " + " ".join(f"{name:9}" for name in CALLERS)]
    for key in keys:
        method, _, path = key.partition(" ")
        lines.append(f"{method:6} {path:46} " + " ".join(f"{ask(key, name):<9}" for name in CALLERS))
    return "\n".join(line.rstrip() for line in lines) + "\n"
