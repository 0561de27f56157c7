"""`pvr device tokens ls`: the factory tokens."""

from __future__ import annotations

from brickless.pvr import cli
from brickless.pvr.env import Env
from brickless.pvr.errors import TransferError


@cli.command("ls", example="pvr device tokens ls --json | jq '.[].nick'", failure=4)
def command(env: Env) -> None:
    """List your tokens: id, name, and whether it still works. What a token is, only its maker has seen."""
    from brickless.pvr.http import Client

    with Client(env) as client:
        url = f"{env.api_base}/devices/tokens"
        document = client.call("GET", url).expect(200, what="Listing the tokens").json()
    if not isinstance(document, list):
        raise TransferError(f"{url} answered with no list of tokens.")
    rows = [item for item in document if isinstance(item, dict)]
    env.result(
        document,
        (f"{row.get('id', '')}  {row.get('nick', '')}{'  (disabled)' if row.get('disabled') else ''}" for row in rows),
    )
