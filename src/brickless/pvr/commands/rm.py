"""`pvr rm`: remove files from the tree, and so from the next commit."""

from __future__ import annotations

import os

from brickless.core.errors import UserError
from brickless.pvr import cli
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError
from brickless.store.repo import Repository
from brickless.store.selection import select
from brickless.store.tree import unlink_beneath


@cli.command("rm", example="pvr rm web/old.conf 'config/*.json' && pvr commit")
@argument("patterns", metavar="FILE|FOLDER|GLOB...", nargs=-1)
@option("--force", "-f", is_flag=True, help="Also files whose present content is committed nowhere.")
@option("--dry-run", "-n", is_flag=True, help="Only say what would be removed.")
def command(env: Env, patterns: tuple[str, ...], force: bool, dry_run: bool) -> None:
    """Remove tracked files of the tree, and the folders that this leaves empty; the next commit does without them.

    When one has changes that are not committed, nothing is removed, unless --force is given. What was committed comes
    back with `pvr checkout` before the commit, and with `pvr undo --checkout` after it.
    """
    if not patterns:
        raise CommandError(2, "Which files?", hint="pvr rm FILE|FOLDER|GLOB...")
    repo = env.repository()
    with repo.lock():
        tracked = repo.working().entries.keys() & _all(repo)
        chosen, unmatched = select(repo.dir, sorted(tracked), env.paths_here(repo, patterns))
        if unmatched:
            raise UserError("path-unknown", f"{unmatched[0]} names no file that is tracked.", hint="See `pvr json`.")
        if not force:
            _check_committed(repo, set(chosen))
        if not dry_run:
            _remove(repo, chosen)
    verb = "would remove" if dry_run else "removed"
    env.result({"removed": chosen, "dry-run": dry_run}, [f"{verb} {path}" for path in chosen])


def _all(repo: Repository) -> set[str]:
    return set(repo.pristine()) | set(repo.marks())


def _check_committed(repo: Repository, chosen: set[str]) -> None:
    status = repo.status()
    dirty = sorted(chosen & {*status.added, *status.changed})
    if dirty:
        raise UserError(
            "not-committed",
            f"{dirty[0]}{f' and {len(dirty) - 1} more' if dirty[1:] else ''} would be lost: its content is committed "
            "nowhere.",
            hint="Commit first, or give --force.",
        )


def _remove(repo: Repository, chosen: list[str]) -> None:
    for path in chosen:
        unlink_beneath(repo.dir, path)
        _remove_empty(repo.dir, os.path.dirname(path))
    marks = repo.marks()
    kept = {path: mark for path, mark in marks.items() if path not in set(chosen)}
    if kept != marks:
        repo.save_marks(kept)


def _remove_empty(root: str, folder: str) -> None:
    """Remove folders that became empty, upwards; not the one that we are in."""
    while folder and not os.listdir(os.path.join(root, folder)):
        if os.path.samefile(os.path.join(root, folder), os.curdir):
            return
        os.rmdir(os.path.join(root, folder))
        folder = os.path.dirname(folder)
