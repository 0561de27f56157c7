"""Every route by applications: one that a person let read his devices, and one that calls in its own name.

What they get follows from the table for people and from the scopes that each route says it wants; a route that somebody
adds is tried here without another line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import Caller
from brickless.testkit.hub_world import READ_DEVICES, World, registration, routes, status, table

TABLE = table(Path(__file__).with_name("hub_permissions.txt"))
#: What a token that was given to a program may never do, and what asks for a scope only when there is a token.
NEVER = {"POST /auth/authorize": 403, "POST /auth/code": 403, "POST /devices/": 403}
#: All that an application reaches in its own name, beside what everybody does: itself, and the exchange of codes.
OWN = {
    "GET /auth/login", "GET /auth/auth_status", "GET /devices/auth_status", "GET /trails/auth_status",
    "GET /objects/auth_status", "GET /dash/auth_status", "GET /dash/", "GET /auth/accounts", "GET /apps/",
    "GET /apps/{app}", "GET /orgs/",
}  # fmt: skip


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    data_dir = str(tmp_path_factory.mktemp("hub") / "data")
    with running_hub(data_dir, arguments=["--no-rate-limits"]) as running:
        yield running


@pytest.fixture(scope="module")
def world(hub: HubProcess) -> Iterator[World]:
    with httpx.Client(base_url=hub.url, timeout=30) as client:
        made = World(client)
        public = made.owner.post("/apps/", registration("granted", "public")).json()
        asked = {"service": public["prn"], "scopes": READ_DEVICES}
        made.callers["app"] = Caller(client, made.owner.post("/auth/authorize", asked).json()["token"])
        app = made.owner.post("/apps/", registration("itself")).json()
        made.callers["service"] = Caller(client).login(app["prn"], app["secret"])
        yield made


def scopes_of(client: httpx.Client) -> dict[str, tuple[str, ...]]:
    """What each route wants, by its own description; nothing for those that want no scope."""
    paths: dict[str, Any] = client.get("/swagger/doc.json").json()["paths"]
    return {
        f"{method.upper()} {path}": tuple(operation.get("security", [{}])[0].get("bearer", ()))
        for path, methods in paths.items()
        for method, operation in methods.items()
    }


def test_a_granted_token_opens_what_its_scopes_say(world: World) -> None:
    wanted = scopes_of(world.owner.client)
    for key in routes(world.owner.client):
        expected = NEVER.get(key, TABLE[key]["owner"])
        if wanted[key] and READ_DEVICES not in wanted[key]:
            expected = 403
        assert status(world, key, "app", changes=expected < 400) == expected, key


def test_an_application_itself_reaches_nobodys_things(world: World) -> None:
    wanted = scopes_of(world.owner.client)
    for key in routes(world.owner.client):
        may = TABLE[key]["nobody"] < 400 or key in OWN
        found = status(world, key, "service", changes=may)
        if may:
            assert found == TABLE[key]["nobody"] or found < 400 or key not in OWN, key
        else:
            assert found >= 400, key
        if wanted[key]:
            assert found == 403, key
