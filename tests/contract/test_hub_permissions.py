"""Who may do what: every route of the hub's own description, by every kind of caller, against a reviewed table.

`hub_permissions.txt` beside this file is that table: one line a route, one status a caller. A route without a line
fails, so nobody adds one without deciding who may call it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_world import CALLERS, World, routes, status, table

TABLE = table(Path(__file__).with_name("hub_permissions.txt"))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    data_dir = str(tmp_path_factory.mktemp("hub") / "data")
    with running_hub(data_dir, arguments=["--no-rate-limits"]) as running:
        yield running


@pytest.fixture(scope="module")
def world(hub: HubProcess) -> Iterator[World]:
    with httpx.Client(base_url=hub.url) as client:
        yield World(client)


def test_every_route_has_a_decision(hub: HubProcess) -> None:
    with httpx.Client(base_url=hub.url) as client:
        assert sorted(routes(client)) == sorted(TABLE)


@pytest.mark.parametrize("name", CALLERS)
def test_who_may_do_what(world: World, name: str) -> None:
    expected = {key: statuses[name] for key, statuses in TABLE.items()}
    # What is expected to be refused leaves its target as it was; if it is not refused, that is the failure.
    found = {key: status(world, key, name, changes=expected[key] < 400) for key in TABLE}
    assert found == expected
