"""`pvr commit`: make the working tree the committed state."""

from __future__ import annotations

import datetime
import os

from brickless.pvr import cli, dryrun
from brickless.pvr.cli import option
from brickless.pvr.env import Env
from brickless.pvr.progress import Meter, watched
from brickless.store.repo import Change, Repository
from brickless.store.tree import write_beneath

DEFAULT_MESSAGE = "** No commit message **"
CHECKPOINT = "checkpoint.json"


@cli.command("commit", example="pvr commit -m 'web: nginx 1.27'")
@option("--message", "-m", default=DEFAULT_MESSAGE, help="What changed and why.")
@option("--spec", default="", help="Make the state one of this format (its #spec).")
@option("--checkpoint", "-c", is_flag=True, help="Add checkpoint.json with the time: always a new state.")
@option("--dry-run", "-n", is_flag=True, help="Only show what would be committed.")
def command(env: Env, message: str, spec: str, checkpoint: bool, dry_run: bool) -> None:
    """Make the working tree the committed state. Objects go to the pool first, then the state changes in one step."""
    repo = env.repository()
    if dry_run:
        dryrun.tell(env, repo.pristine(), repo.working().entries)
        return
    with repo.lock(), watched(env, repo, "Storing") as meter:
        if checkpoint:
            _write_checkpoint(repo)
        changes = repo.commit(message, spec=spec, report=lambda change: _say(meter, repo, change))
    env.result({"changes": [{"kind": c.kind, "path": c.path, "sha": c.sha} for c in changes], "message": message})


def _write_checkpoint(repo: Repository) -> None:
    now = datetime.datetime.now().astimezone().replace(microsecond=0).isoformat()
    write_beneath(repo.dir, CHECKPOINT, f'{{"major":"{now}"}}'.encode(), mode=0o640)
    repo.add([CHECKPOINT])


def _say(meter: Meter, repo: Repository, change: Change) -> None:
    full = os.path.join(repo.dir, change.path)
    if change.kind == "remove":
        meter.say(f"Removing {change.path}")
    elif change.kind == "add":
        meter.say(f"Adding raw {full} with {change.sha}" if change.sha else f"Adding inline {change.path}")
    else:
        meter.say(f"Committing ({'raw' if change.sha else 'inline'}): {full}")
