"""The databases against which the hub's wire is tested."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from brickless.testkit.postgres import Cluster, cluster

_NUMBERS = count(1)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """A PostgreSQL of our own, for the whole session."""
    with cluster() as running:
        yield running


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("postgresql"))])
def hub_database(request: pytest.FixtureRequest) -> list[str]:
    """Arguments that give the hub its database: a fresh one of each kind."""
    if request.param == "sqlite":
        return []
    running: Cluster = request.getfixturevalue("postgresql")
    return ["--database-url", running.url(f"hub{next(_NUMBERS)}")]
