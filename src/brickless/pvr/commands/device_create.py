"""`pvr device create`: a device on the hub, with this repository's state as its factory state (pvr.md 7.6)."""

from __future__ import annotations

from brickless.core.canonical import JsonValue
from brickless.pvr import cli
from brickless.pvr.cli import argument
from brickless.pvr.env import Env, four_blanks
from brickless.pvr.errors import TransferError
from brickless.store.entries import objects_of


@cli.command("create", example="pvr device create my-twin", failure=4)
@argument("nick", required=False, default="")
def command(env: Env, nick: str) -> None:
    """Upload the objects, make a device, and make its trail with the committed state as revision 0.

    Prints the device with its secret as soon as it is known: it is not shown again.
    """
    from brickless.pvr import transfer
    from brickless.pvr.http import Client

    repo = env.repository()
    entries = repo.pristine()
    wanted = {sha: path for path, sha in sorted(objects_of(entries).items(), reverse=True)}
    body: JsonValue = {"nick": nick} if nick else {}
    with repo.lock(), Client(env) as client:
        transfer.upload(client, f"{env.api_base}/objects", wanted, repo.objects)
        made = client.call("POST", f"{env.api_base}/devices/", body=body, retry=False)
        device = made.expect(200, 201, what="Making the device").object()
        env.result(device, [four_blanks(device)])
        prn, secret = device.get("prn"), device.get("secret")
        if not isinstance(prn, str) or not isinstance(secret, str):
            raise TransferError("The hub made a device without prn or secret.")
        client.call_as(prn, secret, "POST", f"{env.api_base}/trails/", body=entries).expect(
            200, what="Making the trail"
        )
    if not env.json:
        env.out("Device Created Successfully")
