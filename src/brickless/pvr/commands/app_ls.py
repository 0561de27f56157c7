"""`pvr app ls`: the apps of this working tree."""

from __future__ import annotations

from pathlib import Path

from brickless.pvr import cli
from brickless.pvr.env import Env


@cli.command("ls", example="pvr app ls")
def command(env: Env) -> None:
    """List every folder with a src.json, one a line."""
    from brickless.oci.app import list_apps

    found = list_apps(Path(env.repository().dir))
    env.result(found, found)
