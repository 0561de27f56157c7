"""`pvr device set`: metadata of a device."""

from __future__ import annotations

from urllib.parse import quote

from brickless.core.canonical import JsonValue
from brickless.pvr import cli, nicks
from brickless.pvr.cli import argument
from brickless.pvr.env import Env, four_blanks
from brickless.pvr.errors import CommandError


@cli.command("set", example="pvr device set my-device site=hall-3 obsolete-key", failure=4)
@argument("device", metavar="NICK|ID", shell_complete=nicks.devices)
@argument("settings", metavar="KEY=VALUE|KEY...", nargs=-1)
def command(env: Env, device: str, settings: tuple[str, ...]) -> None:
    """Set metadata (user-meta; device-meta when a device is logged in). KEY without a value removes it."""
    from brickless.pvr.http import Client

    if not settings:
        raise CommandError(2, "Nothing to set.", hint="pvr device set NICK KEY=VALUE")
    values: dict[str, JsonValue] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not key:
            raise CommandError(2, f"{setting!r} has no key.", hint="pvr device set NICK KEY=VALUE")
        values[key] = value if equals else None
    with Client(env) as client:
        who = client.call("GET", f"{env.api_base}/auth/auth_status").expect(200, what="Asking who you are").object()
        kind = "device-meta" if who.get("type") == "DEVICE" else "user-meta"
        url = f"{env.api_base}/devices/{quote(device, safe='')}/{kind}"
        document = client.call("PATCH", url, body=values).expect(200, what=f"Changing {kind}").json()
    env.result(document, [four_blanks(document), f"{kind} field Updated Successfully"])
