"""The past of a repository: which states `log` lists, and which one `undo` goes back to (store.history).

The log only ever grows. An undo is an entry of its own, and the next undo goes one state further back, not forth and
back between two.
"""

from __future__ import annotations

from collections.abc import Iterable

from brickless.core.errors import UserError
from brickless.store.history import Entry

UNDO = "undo"


def standing(entries: Iterable[Entry]) -> list[Entry]:
    """The changes that are in force, oldest first: each undo takes the last one away."""
    stack: list[Entry] = []
    for entry in entries:
        if entry.action != UNDO:
            stack.append(entry)
        elif len(stack) > 1:
            stack.pop()
    return stack


def before_last(entries: Iterable[Entry]) -> tuple[Entry, Entry]:
    """The change that an undo takes away, and the state that it leads to. Raises UserError when there is none."""
    stack = standing(entries)
    if len(stack) < 2:
        raise UserError(
            "nothing-to-undo",
            "there is no earlier state to go back to",
            hint="`pvr log` shows the states that are kept. Files of the working tree are not part of it.",
        )
    return stack[-1], stack[-2]
