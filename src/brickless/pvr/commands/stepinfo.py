"""`pvr stepinfo`: the step that a remote repository is at."""

from __future__ import annotations

from brickless.pvr import cli, nicks
from brickless.pvr.cli import argument, option
from brickless.pvr.commands.remoteinfo import remote_of
from brickless.pvr.env import Env, pretty


@cli.command("stepinfo", example="pvr stepinfo me/my-device | jq .progress")
@argument("repo", metavar="[REPO]", default="", shell_complete=nicks.repositories)
@option("--canonical", "-c", is_flag=True, help="One line of canonical JSON.")
def command(env: Env, repo: str, canonical: bool) -> None:
    """Print the step that the repository's state belongs to: its number, progress, message."""
    from brickless.pvr.http import Client

    remote = remote_of(env, repo)
    with Client(env) as client:
        client.name_host(remote.step_url)
        step = client.call("GET", remote.step_url, anonymous=True).expect(200, what="Reading the step").object()
    env.result(step, [pretty(step, canonical=canonical)])
