"""What a shell may offer for a device or a repository: nicks that the hub knows (pvr.md 7.2, completion).

Quiet and quick: a shell that completes can show no question and no error, so there is no login here (the cached token
or none), no second try and a short patience; whatever goes wrong means that nothing is offered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from brickless.core.errors import BricklessError
from brickless.pvr.env import Env, default_config_dir

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

_PATIENCE_S = 3.0
_MAX_OFFERS = 50


def devices(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Nicks of one's own devices."""
    return _nicks(_env_of(ctx), "devices", f"nick=^{quote(incomplete)}")


def apps(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The apps of the repository here."""
    from pathlib import Path

    from brickless.oci.app import list_apps
    from brickless.store import discovery

    folder = Path(discovery.find(str(ctx.find_root().params.get("chdir") or ".")))
    return [name for name in list_apps(folder) if name.startswith(incomplete)]


def repositories(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files and folders, and `user/device`: first the users, then the user's devices."""
    from click.shell_completion import CompletionItem

    known = _repositories(_env_of(ctx), incomplete)
    return [CompletionItem(incomplete, type="file"), *map(CompletionItem, known)]


def _repositories(env: Env, incomplete: str) -> list[str]:
    user, slash, nick = incomplete.partition("/")
    if not slash:
        return [f"{name}/" for name in _nicks(env, "profiles", f"nick=^{quote(user)}")]
    # Of others the hub lists public devices only; one's own are all there when nobody else is asked for.
    own = user == _nick_in(env.access_token or _cached(env))
    found = _nicks(env, "devices", f"nick=^{quote(nick)}" + ("" if own else f"&owner-nick={quote(user)}"))
    return [f"{user}/{name}" for name in found]


def _env_of(ctx: click.Context) -> Env:
    """The global flags of the line that is being completed: click has parsed them, but runs nothing."""
    flags = ctx.find_root().params
    env = Env()
    env.api_base = str(flags.get("baseurl") or env.api_base).rstrip("/")
    env.config_dir = str(flags.get("config_dir") or default_config_dir())
    env.access_token = str(flags.get("access_token") or "")
    env.http_proxy = str(flags.get("http_proxy") or env.http_proxy)
    env.insecure = bool(flags.get("insecure"))
    env.quiet = True
    return env


def _nicks(env: Env, kind: str, query: str) -> list[str]:
    import httpx

    from brickless.pvr.http import proxy_of

    token = env.access_token or _cached(env)
    headers = {"User-Agent": "pvr-brickless", **({"Authorization": f"Bearer {token}"} if token else {})}
    trust = env.http_proxy == "system"
    try:
        with httpx.Client(timeout=_PATIENCE_S, verify=not env.insecure, trust_env=trust, proxy=proxy_of(env)) as http:
            answer = http.get(f"{env.api_base}/{kind}/?{query}", headers=headers)
            found = answer.json() if answer.status_code == 200 else []
    except (httpx.HTTPError, httpx.InvalidURL, BricklessError, ValueError):
        return []
    items = found if isinstance(found, list) else []
    names = [item.get("nick") for item in items[:_MAX_OFFERS] if isinstance(item, dict)]
    # A nick is typed into a command line: one that a shell would read otherwise is not offered.
    return [
        name for name in names if isinstance(name, str) and name and name.replace("-", "").replace("_", "").isalnum()
    ]


def _cached(env: Env) -> str:
    """The cached token of this very hub's login, and of no other."""
    from brickless.pvr.auth import TokenCache

    try:
        tokens = TokenCache(env.config_dir).endpoints()
    except (BricklessError, OSError):
        return ""
    found = [token.access for key, token in tokens.items() if key.startswith(f"{env.api_base}/auth realm=")]
    return found[0] if found else ""


def _nick_in(token: str) -> str:
    """Whose token it is, by its own words: good enough for what is offered, nothing is allowed by it."""
    import base64

    from brickless.core import canonical

    claims = token.split(".")[1] if token.count(".") == 2 else ""
    try:
        value = canonical.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    except (BricklessError, ValueError):
        return ""
    return str(value.get("nick", "")) if isinstance(value, dict) else ""
