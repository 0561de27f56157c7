"""`pvr version`."""

from __future__ import annotations

import platform

from brickless.pvr import cli
from brickless.pvr.env import Env
from brickless.pvr.version import version


@cli.command("version", example="pvr version")
def command(env: Env) -> None:
    """Print the version of pvr and of what runs it."""
    env.result(
        {"version": version(), "python": platform.python_version()},
        [version(), f"  python version: {platform.python_version()}"],
    )
