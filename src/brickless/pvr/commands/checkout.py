"""`pvr checkout`: write the committed state's files into the working tree."""

from __future__ import annotations

from brickless.pvr import cli, dryrun
from brickless.pvr.cli import option
from brickless.pvr.env import Env
from brickless.pvr.progress import watched


@cli.command("checkout", example="pvr checkout", failure=3)
@option("--hardlink", "--hl", is_flag=True, help="Read-only hard links to the pool instead of copies.")
@option("--canonical", "-c", is_flag=True, envvar="PVR_CANONICAL_JSON", help="Write JSON files canonically.")
@option("--dry-run", "-n", is_flag=True, help="Only show which files would come (A) or be overwritten (C).")
def command(env: Env, hardlink: bool, canonical: bool, dry_run: bool) -> None:
    """Write the committed state's files into the working tree. Local changes are overwritten, other files stay."""
    repo = env.repository()
    if dry_run:
        working, pristine = repo.working().entries, repo.pristine()
        kept = {path: value for path, value in working.items() if path not in pristine}
        dryrun.tell(env, working, pristine | kept)
        return
    with repo.lock(), watched(env, repo, "Writing"):
        repo.checkout(hardlink=hardlink, canonical_json=canonical)
    env.result({"directory": repo.dir})
