"""`pvr add`: mark files for the next commit."""

from __future__ import annotations

from brickless.pvr import cli
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.pvr.progress import watched


@cli.command("add", example="pvr add web 'config/*.json'")
@argument("patterns", metavar="[FILE|FOLDER|GLOB]...", nargs=-1)
@option("--raw", "-r", is_flag=True, envvar="PVR_ADD_RAW", help="Keep JSON files as objects, byte for byte.")
def command(env: Env, patterns: tuple[str, ...], raw: bool) -> None:
    """Mark files for the next commit; all of them when none is named.

    A folder stands for all files below it. A glob matches whole paths; its `*` does not cross a `/`.
    """
    repo = env.repository()
    with repo.lock(), watched(env, repo, "Hashing"):
        added = repo.add(patterns, raw=raw)
    for path, reason in added.skipped:
        env.warn(f"{path}: {reason}")
    for pattern in added.unmatched:
        env.warn(f"{pattern}: matches no file.")
    env.result({"added": added.paths, "skipped": [path for path, _ in added.skipped], "unmatched": added.unmatched})
