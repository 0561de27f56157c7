"""`pvr app info`: how an app was made."""

from __future__ import annotations

from pathlib import Path

from brickless.pvr import cli, nicks
from brickless.pvr.cli import argument
from brickless.pvr.env import Env, four_blanks


@cli.command("info", example="pvr app info web --json | jq .docker_digest")
@argument("name", shell_complete=nicks.apps)
def command(env: Env, name: str) -> None:
    """Print the app's src.json."""
    from brickless.oci import manifest_src
    from brickless.oci.app import check_name

    src = manifest_src.read(Path(env.repository().dir, check_name(name)))
    env.result(src, [four_blanks(src)])
