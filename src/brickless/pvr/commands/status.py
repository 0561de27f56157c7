"""`pvr status`: what a commit would do."""

from __future__ import annotations

from brickless.pvr import cli
from brickless.pvr.env import Env


@cli.command("status", example="pvr status")
def command(env: Env) -> None:
    """List the files that a commit would add (A), remove (D) or change (C), and the untracked ones (?)."""
    status = env.repository().status()
    groups = (("A", status.added), ("D", status.removed), ("C", status.changed), ("?", status.untracked))
    env.result(
        {
            "added": status.added,
            "removed": status.removed,
            "changed": status.changed,
            "untracked": status.untracked,
            "clean": status.clean,
        },
        (f"{mark} {path}" for mark, paths in groups for path in paths),
    )
