"""`pvr register`: make an account on a hub."""

from __future__ import annotations

from urllib.parse import urlsplit

from brickless.core.canonical import JsonValue
from brickless.pvr import cli
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError


@cli.command("register", example='pvr register -u me -e me@example.org -p "$PASSWORD"', failure=2)
@argument("hub", metavar="[URL]", required=False, default="")
@option("--user", "-u", default="", help="The nick.")
@option("--pass", "-p", "password", envvar="PVR_PASSWORD", default="", help="The password; better in PVR_PASSWORD.")
@option("--email", "-e", default="", help="The mail address.")
def command(env: Env, hub: str, user: str, password: str, email: str) -> None:
    """Make an account. The hub may send a mail, or name a page on which you finish."""
    from brickless.pvr.http import Client

    if not (user and password and email):
        raise CommandError(2, "User, password and email are all needed.", hint="pvr register --help")
    parts = urlsplit(hub or env.api_base)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise CommandError(2, f"{hub!r} is no URL of a hub.")
    url = f"{parts.scheme}://{parts.netloc}/auth/accounts"
    body: JsonValue = {"email": email, "nick": user, "password": password}
    with Client(env) as client:
        answer = client.call("POST", url, body=body, retry=False).expect(200, what="The registration").object()
    link = answer.get("redirect-uri")
    if isinstance(link, str):
        env.say("Your account is not made yet. Two steps: 1. open this page, 2. follow the mail that you get.")
    env.result(
        {"nick": user, "prn": answer.get("prn"), "redirect-uri": link},
        [str(link) if isinstance(link, str) else f"Account {user} is made. Log in with `pvr login`."],
    )
