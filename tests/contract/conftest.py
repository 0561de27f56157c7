"""The storages against which the hub's wire is tested: the default one, and PostgreSQL with a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import pytest

from brickless.testkit import s3
from brickless.testkit.postgres import Cluster, cluster

_NUMBERS = count(1)


class Storage(NamedTuple):
    """What gives a hub its storage."""

    arguments: list[str]
    environment: dict[str, str]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """A PostgreSQL of our own, for the whole session."""
    with cluster() as running:
        yield running


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[s3.Server]:
    """An S3 server of our own, for the whole session."""
    with s3.server() as running:
        yield running


@pytest.fixture(
    scope="module", params=["sqlite-folder", pytest.param("postgresql-s3", marks=pytest.mark.needs("postgresql", "s3"))]
)
def hub_storage(request: pytest.FixtureRequest) -> Storage:
    """A fresh storage of each kind."""
    if request.param == "sqlite-folder":
        return Storage([], {})
    database: Cluster = request.getfixturevalue("postgresql")
    bucket: s3.Server = request.getfixturevalue("bucket_server")
    name = f"hub{next(_NUMBERS)}"
    return Storage(["--database-url", database.url(name), "--objects-url", bucket.url(name)], dict(s3.ENVIRONMENT))
