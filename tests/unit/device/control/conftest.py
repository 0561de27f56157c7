"""A device whose control socket is asked without a kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from brickless.testkit.control import ControlLab


@pytest.fixture
def lab(tmp_path: Path) -> ControlLab:
    return ControlLab(str(tmp_path))
