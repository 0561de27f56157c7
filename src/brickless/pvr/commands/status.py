"""`pvr status`: what a commit would do."""

from __future__ import annotations

from brickless.core.canonical import JsonInput, dumps
from brickless.pvr import cli, colour
from brickless.pvr.env import Env
from brickless.pvr.progress import watched
from brickless.store.repo import Status


@cli.command("status", example="pvr status")
def command(env: Env) -> None:
    """List the files that a commit would add (A), remove (D) or change (C), and the untracked ones (?).

    Asked again about a tree that is the same, the answer comes from `.pvr/snapshot`, without starting all of pvr.
    """
    repo = env.repository()
    with watched(env, repo, "Hashing"):
        text, document = told(repo.status(told=told))
    shown = colour.marked(text) if colour.wanted(1, env.colour) else text
    print(document if env.json else shown, end="")


def told(status: Status) -> tuple[str, str]:
    """The status as lines, and as one JSON document."""
    groups = (("A", status.added), ("D", status.removed), ("C", status.changed), ("?", status.untracked))
    document: JsonInput = {
        "added": status.added,
        "removed": status.removed,
        "changed": status.changed,
        "untracked": status.untracked,
        "clean": status.clean,
    }
    return "".join(f"{mark} {path}\n" for mark, paths in groups for path in paths), f"{dumps(document).decode()}\n"
