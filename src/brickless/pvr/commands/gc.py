"""`pvr gc`: remove objects from the pool that no repository needs."""

from __future__ import annotations

import os
import time

from brickless.core.errors import UserError
from brickless.pvr import cli
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env

_DAY_S = 86400


@cli.command("gc", example="pvr gc --delete ~/projects /srv/builds")
@argument("folders", metavar="[FOLDER]...", nargs=-1)
@option("--delete", is_flag=True, help="Really remove; without it the objects are only listed.")
@option("--older-than", type=float, default=1.0, show_default=True, help="Spare objects younger than so many days.")
@option("--objects", "-o", envvar="PVR_OBJECTS_DIR", default="", help="The pool (default: the shared one).")
def command(env: Env, folders: tuple[str, ...], delete: bool, older_than: float, objects: str) -> None:
    """Find objects of the pool that no repository below FOLDER (default: the home folder) needs.

    What a repository's committed state, its history or its marks name is kept, also that of bare repositories
    (`json` beside `objects` or `config`, as an unpacked export), and so is everything that is linked into a checkout.
    Name every folder in which you keep repositories that use this pool. One that cannot be read stops the removal;
    all are locked meanwhile.
    """
    from brickless.pvr import pool
    from brickless.pvr.progress import Meter, human_size
    from brickless.store.objects import ObjectStore

    store = ObjectStore(objects or env.objects_dir)
    unread: list[str] = []
    with Meter(env, "Looking through", unit="folders") as meter:
        roots = folders or (os.path.expanduser("~"),)
        repositories = pool.find_repositories(roots, store, unread=unread.append, looked=meter.add_object)
    if unread and delete:
        raise UserError(
            "gc-unread-folder",
            f"{unread[0]} may not be read{f', nor may {len(unread) - 1} more' if unread[1:] else ''}: "
            "what the repositories in it need is not known. Nothing was removed.",
            hint="Name the folders in which you keep repositories: pvr gc --delete FOLDER...",
        )
    for folder in unread:
        env.warn(f"{folder} may not be read; whatever repositories lie in it are not counted")
    done = pool.collect(
        store, repositories, older_than_s=max(0.0, older_than) * _DAY_S, now_s=time.time(), dry_run=not delete
    )
    for directory in done.repositories:
        env.say(f"keeps what {directory} needs")
    size = human_size(done.freed_bytes)
    verb = "Removed" if delete else "Would remove (with --delete)"
    env.result(
        {
            "repositories": len(done.repositories),
            "objects": [item.name for item in done.waste],
            "bytes": done.freed_bytes,
            "deleted": delete,
            "kept": done.kept,
            "linked": done.linked,
            "young": done.young,
        },
        [
            *(item.name for item in done.waste),
            f"{verb} {len(done.waste)} object(s), {size}; {len(done.repositories)} repositories looked at.",
        ],
    )
