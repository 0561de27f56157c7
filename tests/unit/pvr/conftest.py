"""`pvr` in this process: a command line in, exit code and both outputs out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from brickless.pvr.main import run


class Ran(NamedTuple):
    """What one command did."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, no PVR_ variable from outside."""
    for name in list(os.environ):
        if name.startswith(("PVR_", "PVS_")):
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def tree(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    folder = tmp_path / "tree"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def pvr(home: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def call(*args: str, code: int | None = 0) -> Ran:
        capsys.readouterr()
        found = run(args)
        captured = capsys.readouterr()
        ran = Ran(found, captured.out, captured.err)
        assert code is None or found == code, ran
        return ran

    return call
