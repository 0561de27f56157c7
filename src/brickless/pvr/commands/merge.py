"""`pvr merge`: merge a state from elsewhere into the committed one."""

from __future__ import annotations

from brickless.pvr import cli, nicks
from brickless.pvr.cli import argument, option
from brickless.pvr.commands.get import BAD_REFERENCE, run
from brickless.pvr.env import Env


@cli.command("merge", example="pvr merge ../network#network", codes=BAD_REFERENCE)
@argument("repo", metavar="[REPO[#FRAGMENT]]", default="", shell_complete=nicks.repositories)
@option("--dry-run", "-n", is_flag=True, help="Only show what would become of the committed state.")
def command(env: Env, repo: str, dry_run: bool) -> None:
    """Merge the state of REPO, or the parts that a fragment names, into the committed state, member by member.

    The working tree stays as it is: `pvr checkout` writes the files.
    """
    run(env, repo, merge=True, dry_run=dry_run)
