"""`pvr device tokens create`: a new factory token."""

from __future__ import annotations

from brickless.core.canonical import JsonValue
from brickless.pvr import cli
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError


@cli.command("create", example="pvr device tokens create line-3 --meta site=hall-3", failure=4)
@argument("nick", required=False, default="")
@option("--meta", "-m", "metas", multiple=True, help="KEY=VALUE that every device of this token gets as user-meta.")
def command(env: Env, nick: str, metas: tuple[str, ...]) -> None:
    """Make a token and print it. It is shown this once: the hub keeps only its hash."""
    from brickless.pvr.http import Client

    values: dict[str, JsonValue] = {}
    for item in metas:
        key, equals, value = item.partition("=")
        if not key or not equals:
            raise CommandError(2, f"--meta {item!r} is not KEY=VALUE.")
        values[key] = value
    body: JsonValue = {**({"nick": nick} if nick else {}), **({"default-user-meta": values} if values else {})}
    with Client(env) as client:
        answer = client.call("POST", f"{env.api_base}/devices/tokens", body=body, retry=False)
        made = answer.expect(200, what="Making a token").object()
    env.say(f"Token {made.get('nick', '')} ({made.get('id', '')}) is made. Keep it now: it is not shown again.")
    env.result(made, [str(made.get("token", ""))])
