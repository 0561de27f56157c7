"""The storages against which the hub's wire is tested (the default one, and PostgreSQL with a bucket); `pvr` in this
process, in a home of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from brickless.pvr import http
from brickless.pvr.main import run
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


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, nothing of `pvr` or of a proxy in the environment, short waits before another try."""
    for name in list(os.environ):
        if name.startswith(("PVR_", "PVS_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(http, "_BACKOFF_S", 0.001)
    return tmp_path / "home"


@pytest.fixture
def run_pvr(own_home: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """A command line in; both outputs out, once the exit code is the expected one."""

    def call(*args: str, code: int = 0) -> Any:
        capsys.readouterr()
        found = run(args)
        captured = capsys.readouterr()
        assert found == code, (args, found, captured)
        return captured

    return call


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("postgresql"))])
def hub_database(request: pytest.FixtureRequest) -> list[str]:
    """Arguments that give the hub its database alone: a fresh one of each kind."""
    if request.param == "sqlite":
        return []
    running: Cluster = request.getfixturevalue("postgresql")
    return ["--database-url", running.url(f"hub{next(_NUMBERS)}")]
