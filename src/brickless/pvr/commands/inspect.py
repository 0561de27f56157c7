"""`pvr inspect`: print a state."""

from __future__ import annotations

from brickless.pvr import cli, nicks
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env, pretty
from brickless.pvr.reference import resolve
from brickless.pvr.source import open_source

_CODES = {
    "reference-scheme": 7,
    "reference-missing": 7,
    "reference-no-device": 7,
    "reference-too-long": 7,
    "reference-no-repository": 7,
    "not-a-repository": 7,
}


@cli.command("inspect", example="pvr inspect ./web.pvrexport.tgz", codes=_CODES, failure=1)
@argument("repo", metavar="[REPO]", default="", shell_complete=nicks.repositories)
@option("--canonical", "-c", is_flag=True, help="One line of canonical JSON.")
def command(env: Env, repo: str, canonical: bool) -> None:
    """Print the state of REPO (default: this repository's committed one)."""
    if repo:
        with open_source(env, resolve(repo, repo_base=env.repo_base)) as source:
            entries = source.state()
    else:
        entries = env.repository().pristine()
    env.result(entries, [pretty(entries, canonical=canonical)])
