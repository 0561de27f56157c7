"""`pvr mv`: rename a file or a folder of the tree, and mark it for the next commit."""

from __future__ import annotations

import os

from brickless.core.errors import UserError
from brickless.pvr import cli
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.store import atomic
from brickless.store.entries import check_entries, is_inline
from brickless.store.repo import Mark, Repository
from brickless.store.selection import relative_to


@cli.command("mv", example="pvr mv web shop && pvr app install shop && pvr commit")
@argument("source", metavar="SOURCE")
@argument("target", metavar="TARGET")
@option("--dry-run", "-n", is_flag=True, help="Only say what would be renamed.")
def command(env: Env, source: str, target: str, dry_run: bool) -> None:
    """Rename a tracked file, or a folder with all that is in it; the next commit has it under the new name.

    A TARGET that is a folder takes SOURCE in. Nothing is overwritten. What is inside files (the name in a run.json) and
    signatures in _sigs stay as they are: run `pvr app install` for an app, and sign anew.
    """
    repo = env.repository()
    with repo.lock():
        old, new = _inside(env, repo, source), _inside(env, repo, target)
        if os.path.isdir(os.path.join(repo.dir, new)):
            new = f"{new}/{os.path.basename(old)}" if new != "." else os.path.basename(old)
        moved = _moved(repo, old, new)
        if not dry_run:
            _rename(repo, old, new, moved)
    if f"{new}/src.json" in moved.values():
        env.warn(f"{new} is an app: `pvr app install {new}` writes its new name into its files.")
    verb = "would rename" if dry_run else "renamed"
    env.result(
        {"renamed": moved, "dry-run": dry_run}, [f"{verb} {before} to {after}" for before, after in moved.items()]
    )


def _inside(env: Env, repo: Repository, text: str) -> str:
    """A path of the command line as one below the repository's folder."""
    path = relative_to(repo.dir, env.paths_here(repo, [text])[0])
    if path == ".." or path.startswith("../") or path.partition("/")[0] in {".pvr", ".pv"}:
        raise UserError("path-outside", f"{text} is not in the working tree of {repo.dir}.")
    return path


def _moved(repo: Repository, old: str, new: str) -> dict[str, str]:
    """Every tracked file that gets another name, and that name. Raises UserError when it must not be."""
    tracked = set(repo.pristine()) | set(repo.marks())
    files = [path for path in repo.working().entries if path in tracked and (path == old or path.startswith(f"{old}/"))]
    if not files:
        raise UserError("path-unknown", f"{old} names no file that is tracked.", hint="See `pvr json`.")
    if new.startswith(f"{old}/"):
        raise UserError("path-outside", f"{old} cannot be moved into itself.")
    if os.path.lexists(os.path.join(repo.dir, new)):
        raise UserError("path-in-the-way", f"{new} exists already.", hint="Remove it first: `pvr rm`.")
    moved = {path: new + path.removeprefix(old) for path in sorted(files)}
    check_entries(dict.fromkeys(moved.values(), "0" * 64), source="the new name")
    return moved


def _rename(repo: Repository, old: str, new: str, moved: dict[str, str]) -> None:
    entries, marks = repo.working().entries, repo.marks()
    destination = os.path.join(repo.dir, new)
    atomic.make_dirs(os.path.dirname(destination))
    atomic.rename(os.path.join(repo.dir, old), destination)
    # Whatever was an object stays one, also JSON that was added raw (pvr.md 2.4).
    for before, after in moved.items():
        raw = before.endswith(".json") and not is_inline(before, entries[before])
        known = marks.pop(before, None)
        sha = str(entries[before]) if raw or not before.endswith(".json") else known.sha if known else ""
        marks[after] = Mark(raw or (known is not None and known.force_object), sha)
    repo.save_marks(marks)
