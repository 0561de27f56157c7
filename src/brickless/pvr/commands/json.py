"""`pvr json`: the working tree as a state."""

from __future__ import annotations

from brickless.pvr import cli
from brickless.pvr.cli import option
from brickless.pvr.env import Env, pretty


@cli.command("json", example="pvr json --canonical | sha256sum")
@option("--canonical", "-c", is_flag=True, help="One line of canonical JSON.")
def command(env: Env, canonical: bool) -> None:
    """Print the working tree as a state: what a commit would make."""
    entries = env.repository().working().entries
    env.result(entries, [pretty(entries, canonical=canonical)])
