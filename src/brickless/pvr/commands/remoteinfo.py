"""`pvr remoteinfo`: how a remote repository is reached."""

from __future__ import annotations

from brickless.pvr import cli, nicks
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.pvr.fetch import reference_or_default
from brickless.pvr.hub import Remote
from brickless.store.jsontext import escaped_text


@cli.command("remoteinfo", example="pvr remoteinfo me/my-device")
@argument("repo", metavar="[REPO]", default="", shell_complete=nicks.repositories)
@option("--canonical", "-c", is_flag=True, help="One line of canonical JSON.")
def command(env: Env, repo: str, canonical: bool) -> None:
    """Print what the repository says about itself: where its state, its objects and new steps go."""
    from brickless.core.canonical import dumps

    known = remote_of(env, repo).known()
    text = dumps(known).decode() if canonical else escaped_text(known, sort=False)
    env.result(known, [text])


def remote_of(env: Env, text: str) -> Remote:
    """Ask the repository of the command line, or this repository's own."""
    from brickless.pvr import hub
    from brickless.pvr.errors import CommandError
    from brickless.pvr.http import Client
    from brickless.pvr.reference import resolve

    base = env.repo_base
    reference = resolve(text, repo_base=base) if text else reference_or_default(env, env.repository(), "")
    if not reference.remote:
        raise CommandError(3, f"{reference.location} is local: only a hub or a device has this.")
    with Client(env) as client:
        client.name_host(reference.location)
        return hub.discover(client, reference.location)
