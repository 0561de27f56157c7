"""`pvr login`: log in to a hub."""

from __future__ import annotations

from brickless.pvr import cli
from brickless.pvr.cli import argument
from brickless.pvr.env import Env, four_blanks
from brickless.pvr.reference import resolve


@cli.command("login", example='pvr --user me --password "$PASSWORD" login', failure=4)
@argument("url", required=False, default="")
def command(env: Env, url: str) -> None:
    """Log in to a hub; the token is kept in auth.json of the configuration folder, readable by you only.

    Asks for user and password on a terminal, or takes --user and --password (PVR_USERNAME, PVR_PASSWORD).
    """
    from brickless.pvr.http import Client

    target = resolve(url, repo_base=env.repo_base).location if url else f"{env.api_base}/auth/auth_status"
    with Client(env) as client:
        client.name_host(target)
        answer = client.login(target).expect(200, what="The login")
        status = answer.json()
    env.result(status, [f"Response of GET {target}", four_blanks(status), "LoggedIn Successfully!"])
