"""`pvr add`: mark files for the next commit."""

from __future__ import annotations

from brickless.core.canonical import JsonInput
from brickless.pvr import cli
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.pvr.progress import watched


@cli.command("add", example="pvr add web 'config/*.json'")
@argument("patterns", metavar="[FILE|FOLDER|GLOB]...", nargs=-1)
@option("--dry-run", "-n", is_flag=True, help="Only list what would be marked.")
@option("--raw", "-r", is_flag=True, envvar="PVR_ADD_RAW", help="Keep JSON files as objects, byte for byte.")
def command(env: Env, patterns: tuple[str, ...], raw: bool, dry_run: bool) -> None:
    """Mark files for the next commit; all of them when none is named.

    A folder stands for all files below it. A glob matches whole paths; its `*` does not cross a `/`. What `.pvrignore`
    names (as git's ignore files do) is added by its own path only.
    """
    repo = env.repository()
    with repo.lock(), watched(env, repo, "Hashing"):
        added = repo.add(env.paths_here(repo, patterns), raw=raw, dry_run=dry_run)
    for path, reason in added.skipped:
        env.warn(f"{path}: {reason}")
    for pattern in added.unmatched:
        env.warn(f"{pattern}: matches no file.")
    if added.executable:
        more = f" and {len(added.executable) - 1} more" if added.executable[1:] else ""
        env.warn(f"{added.executable[0]}{more}: a state keeps no permissions, so not the executable bit.")
    document: JsonInput = {
        "added": added.paths,
        "skipped": [path for path, _ in added.skipped],
        "unmatched": added.unmatched,
        "executable": added.executable,
        "dry-run": dry_run,
    }
    env.result(document, [f"would add {path}" for path in added.paths] if dry_run else [])
