"""`pvr undo`: take back the last change of the committed state."""

from __future__ import annotations

from brickless.pvr import cli, dryrun
from brickless.pvr.cli import option
from brickless.pvr.env import Env


@cli.command("undo", example="pvr undo --checkout")
@option("--checkout", is_flag=True, help="Write the files of that state, too (local changes are overwritten).")
@option("--dry-run", "-n", is_flag=True, help="Only show what would become of the committed state.")
def command(env: Env, checkout: bool, dry_run: bool) -> None:
    """Take back the last commit, get, merge or import. Again: one further back. `pvr log` shows what there is.

    Files of the working tree stay as they are, unless --checkout writes them.
    """
    from brickless.pvr import past
    from brickless.store import history
    from brickless.store.repo import load_state

    repo = env.repository()
    with repo.lock():
        gone, target = past.before_last(history.entries(repo.meta))
        entries = load_state(history.state_path(repo.meta, target.sha))
        if dry_run:
            dryrun.tell(env, repo.pristine(), entries, undo=gone.action)
            return
        repo.replace_state(entries, action=past.UNDO, message=f"of {gone.action} {gone.message}".rstrip())
        if checkout:
            repo.checkout()
    env.result(
        {"undone": gone.action, "message": gone.message, "state-sha": target.sha, "checkout": checkout},
        [f"Took back: {gone.action} {gone.message}".rstrip(), f"The committed state is {target.sha[:12]} again."],
    )
