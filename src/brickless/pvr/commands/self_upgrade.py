"""`pvr self-upgrade`: pvr never replaces itself; its package manager does."""

from __future__ import annotations

from brickless.pvr import cli
from brickless.pvr.env import Env


@cli.command("self-upgrade", example="pip install --upgrade brickless")
def command(env: Env) -> None:
    """Say how to upgrade: pvr never replaces its own program, whatever installed it does."""
    text = (
        "pvr does not replace itself. Upgrade it with what installed it, for example: pip install --upgrade brickless"
    )
    env.result({"upgraded": False, "message": text}, [text])
