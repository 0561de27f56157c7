"""`pvr logout`: forget tokens."""

from __future__ import annotations

from urllib.parse import urlsplit

from brickless.pvr import cli
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError
from brickless.pvr.reference import resolve


@cli.command("logout", example="pvr logout https://hub.example.org", failure=4)
@argument("url", required=False, default="")
@option("--all", "everywhere", is_flag=True, help="Forget the tokens of all hubs.")
def command(env: Env, url: str, everywhere: bool) -> None:
    """Forget the tokens of a hub (default: that of --baseurl), or of all; exit code 4 when there was none.

    The hub's protocol has no way to take a session token back: it ends by itself. Tokens for programs, which can be
    revoked, are listed and revoked in the hub's dashboard.
    """
    from brickless.pvr.auth import TokenCache

    host = urlsplit(resolve(url, repo_base=env.repo_base).location if url else env.api_base).hostname
    cache = TokenCache(env.config_dir)
    gone = cache.forget(lambda endpoint: everywhere or urlsplit(endpoint).hostname == host)
    if not gone:
        where = "any hub" if everywhere else str(host)
        raise CommandError(4, f"There is no token of {where}.", hint="`pvr whoami` shows where you are logged in.")
    env.result({"forgotten": gone}, [f"Logged out of {key}" for key in gone])
