"""`pvr device tokens rm`: disable a factory token."""

from __future__ import annotations

from urllib.parse import quote

from brickless.pvr import cli
from brickless.pvr.cli import argument
from brickless.pvr.env import Env


@cli.command("rm", example="pvr device tokens rm 5f3c0a...", failure=4)
@argument("token", metavar="ID")
def command(env: Env, token: str) -> None:
    """Disable a token. Devices that became yours by it stay yours."""
    from brickless.pvr.http import Client

    with Client(env) as client:
        url = f"{env.api_base}/devices/tokens/{quote(token, safe='')}"
        client.call("DELETE", url).expect(200, what=f"Disabling the token {token}")
    env.result({"disabled": token}, [f"Token {token} is disabled."])
