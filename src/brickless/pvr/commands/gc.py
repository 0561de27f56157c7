"""`pvr gc`: remove objects from the pool that no repository needs."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

from brickless.pvr import cli
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.pvr.progress import human_size
from brickless.store.objects import ObjectStore

_SHA = re.compile(rb"[0-9a-f]{64}")
_MAX_STATE_BYTES = 64 << 20
_DAY_S = 86400


@cli.command("gc", example="pvr gc --delete ~/projects /srv/builds")
@argument("folders", metavar="[FOLDER]...", nargs=-1)
@option("--delete", is_flag=True, help="Really remove; without it the objects are only listed.")
@option("--older-than", type=float, default=1.0, show_default=True, help="Spare objects younger than so many days.")
@option("--objects", "-o", envvar="PVR_OBJECTS_DIR", default="", help="The pool (default: the shared one).")
def command(env: Env, folders: tuple[str, ...], delete: bool, older_than: float, objects: str) -> None:
    """Find objects of the pool that no repository below FOLDER (default: the home folder) needs.

    What a repository's committed state, its history or its marks name is kept, and so is everything that is linked
    into a checkout. Name every folder in which you keep repositories that use this pool.
    """
    pool = ObjectStore(objects or env.objects_dir)
    roots = folders or (os.environ.get("HOME") or "/",)
    keep: set[str] = set()
    repositories = 0
    for meta in _repositories(roots):
        repositories += 1
        keep |= _named(meta)
    young = time.time() - older_than * _DAY_S
    loose = {}
    for sha in pool.shas():
        info = os.stat(pool.path(sha), follow_symlinks=False)
        if sha not in keep and info.st_nlink == 1 and info.st_mtime < young:
            loose[sha] = info.st_size
    if delete:
        for sha in loose:
            pool.remove(sha)
    verb = "Removed" if delete else "Would remove (with --delete)"
    env.result(
        {"repositories": repositories, "objects": sorted(loose), "bytes": sum(loose.values()), "deleted": delete},
        [
            *sorted(loose),
            f"{verb} {len(loose)} object(s), {human_size(sum(loose.values()))}; {repositories} repositories looked at.",
        ],
    )


def _repositories(roots: tuple[str, ...]) -> Iterator[str]:
    for root in roots:
        # A root that is misspelt must not make its repositories look gone.
        os.stat(root)
        for folder, names, files in os.walk(root):
            if ".pvr" in names:
                names.remove(".pvr")
                yield os.path.join(folder, ".pvr")
            if "json" in files and "objects" in names:
                yield folder


def _named(meta: str) -> set[str]:
    """Every hash that a repository's files name; whatever looks like one is kept."""
    files = [os.path.join(meta, name) for name in ("json", "new")]
    history = os.path.join(meta, "history")
    if os.path.isdir(history):
        files += [os.path.join(history, name) for name in os.listdir(history)]
    found: set[str] = set()
    for path in files:
        if os.path.isfile(path):
            with open(path, "rb") as file:
                found.update(match.decode() for match in _SHA.findall(file.read(_MAX_STATE_BYTES)))
    return found
