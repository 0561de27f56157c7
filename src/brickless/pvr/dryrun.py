"""`--dry-run`: what a command would make of the committed state, without making it."""

from __future__ import annotations

from brickless.core.canonical import JsonInput, JsonValue
from brickless.pvr.env import Env
from brickless.store.repo import Working, compare


def tell(env: Env, before: dict[str, JsonValue], after: dict[str, JsonValue], **more: JsonInput) -> None:
    """Print the files that would come (A), go (D) and change (C), as `status` does."""
    found = compare(before, Working(after, []))
    groups = (("A", found.added), ("D", found.removed), ("C", found.changed))
    document: JsonInput = {
        "dry-run": True,
        "added": found.added,
        "removed": found.removed,
        "changed": found.changed,
        **more,
    }
    env.changes(document, [f"{mark} {path}" for mark, paths in groups for path in paths])
