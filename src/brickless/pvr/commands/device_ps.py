"""`pvr device ps`: your devices."""

from __future__ import annotations

import datetime

from brickless.pvr import cli
from brickless.pvr.env import Env
from brickless.pvr.errors import TransferError


@cli.command("ps", example="pvr device ps --json | jq '.[].status'", failure=4)
def command(env: Env) -> None:
    """List your devices: id, nick, revision, status, state, last seen, address, message."""
    from brickless.pvr import tables
    from brickless.pvr.http import Client

    with Client(env) as client:
        answer = client.call("GET", f"{env.api_base}/trails/summary").expect(200, what="Reading the devices").json()
    if not isinstance(answer, list):
        raise TransferError("The hub answered with something that is no list of devices.")
    now = datetime.datetime.now(datetime.UTC)
    rows = [tables.ps_row(row, now) for row in answer if isinstance(row, dict)]
    env.result(answer, tables.table(tables.PS_COLUMNS, rows))
