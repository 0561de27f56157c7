"""`pvr put-objects`: upload the objects of the committed state."""

from __future__ import annotations

from urllib.parse import urlsplit

from brickless.pvr import cli
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError
from brickless.store.entries import objects_of


@cli.command("put-objects", example="pvr put-objects https://api.example.org/objects", failure=4)
@argument("endpoint", required=False, default="")
@option("--force", "-f", is_flag=True, help="Upload objects again that the server has.")
def command(env: Env, endpoint: str, force: bool) -> None:
    """Upload every object of the committed state that the objects endpoint lacks."""
    from brickless.pvr import transfer
    from brickless.pvr.http import Client

    if urlsplit(endpoint).scheme not in {"http", "https"}:
        raise CommandError(2, "The URL of an objects endpoint is needed.", hint="As in https://api.example.org/objects")
    repo = env.repository()
    wanted = {sha: path for path, sha in sorted(objects_of(repo.pristine()).items(), reverse=True)}
    with repo.lock(), Client(env) as client:
        client.name_host(endpoint)
        sent = transfer.upload(client, endpoint.rstrip("/"), wanted, repo.objects, force=force)
    env.result({"objects": len(wanted), "sent": sent})
