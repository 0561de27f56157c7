"""`pvr device delete`: delete a device on the hub."""

from __future__ import annotations

from urllib.parse import quote

from brickless.pvr import cli
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError


@cli.command("delete", example="pvr device delete -y 5f3c...d1", failure=4)
@argument("device", metavar="ID")
@option("--yes", "-y", is_flag=True, help="Yes, delete it with its trail.")
def command(env: Env, device: str, yes: bool) -> None:
    """Delete a device and its trail on the hub."""
    from brickless.pvr.http import Client

    if not yes:
        raise CommandError(2, f"Deleting {device} cannot be undone.", hint="Say --yes if you mean it.")
    with Client(env) as client:
        url = f"{env.api_base}/devices/{quote(device, safe='')}"
        client.call("DELETE", url).expect(200, 204, what=f"Deleting {device}")
    env.result({"deleted": device}, [f"Device {device} is deleted."])
