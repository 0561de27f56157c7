"""`pvr device get`: one device."""

from __future__ import annotations

from brickless.pvr import cli, nicks
from brickless.pvr.cli import argument
from brickless.pvr.env import Env, four_blanks


@cli.command("get", example="pvr device get my-device", failure=2)
@argument("device", metavar="NICK|ID|USER/NICK", shell_complete=nicks.devices)
def command(env: Env, device: str) -> None:
    """Print a device: its id, owner and metadata."""
    from brickless.pvr import hub
    from brickless.pvr.http import Client

    with Client(env) as client:
        document = hub.device(client, device)
    env.result(document, [four_blanks(document)])
