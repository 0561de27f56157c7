"""`pvr app rm`: remove an app."""

from __future__ import annotations

from pathlib import Path

from brickless.pvr import cli, nicks
from brickless.pvr.cli import argument
from brickless.pvr.env import Env


@cli.command("rm", example="pvr app rm web && pvr commit")
@argument("name", shell_complete=nicks.apps)
def command(env: Env, name: str) -> None:
    """Remove the app's folder. Its configuration (_config/NAME) and its signature stay."""
    from brickless.oci.app import remove_app

    repo = env.repository()
    with repo.lock():
        remove_app(Path(repo.dir), name)
    env.result({"removed": name.strip("/")})
