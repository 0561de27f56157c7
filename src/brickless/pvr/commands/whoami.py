"""`pvr whoami`: who you are at each hub."""

from __future__ import annotations

from brickless.core.canonical import JsonValue
from brickless.pvr import cli
from brickless.pvr.env import Env


@cli.command("whoami", example="pvr whoami --json", failure=4)
def command(env: Env) -> None:
    """Show the account of every cached token."""
    from brickless.pvr.auth import TokenCache
    from brickless.pvr.http import Client

    found: list[JsonValue] = []
    keys = sorted(TokenCache(env.config_dir).endpoints())
    if not keys:
        env.say("You are logged in nowhere; `pvr login` logs you in.")
    with Client(env) as client:
        for key in keys:
            endpoint = key.partition(" realm=")[0]
            client.name_host(endpoint)
            answer = client.call("GET", f"{endpoint}/auth_status", anonymous=True)
            if answer.status != 200:
                env.warn(f"{endpoint} answered {answer.status}: log in again with `pvr login {endpoint}/auth_status`.")
                continue
            who = answer.object()
            found.append({"nick": who.get("nick"), "prn": who.get("prn"), "at": endpoint})
            env.say(f"{who.get('nick')}({who.get('prn')}) at {endpoint}")
    env.result(found)
