"""Colours for people: on a terminal only, never with NO_COLOR (no-color.org) or a terminal that knows none.

Imports nothing that `pvr.quick` must not: it colours a status that is known.
"""

from __future__ import annotations

import os

RED, GREEN, YELLOW, DIM = "31", "32", "33", "2"
_MARKS = {"A": GREEN, "+": GREEN, "D": RED, "-": RED, "C": YELLOW, "~": YELLOW, "?": DIM}


def wanted(fd: int, choice: str = "auto") -> bool:
    """Whether what goes to this file descriptor is coloured; `choice` is auto, always or never."""
    if choice != "auto":
        return choice == "always"
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and os.isatty(fd)


def paint(text: str, colour: str) -> str:
    """The text in a colour."""
    return f"\x1b[{colour}m{text}\x1b[0m"


def marked(text: str) -> str:
    """Lines of status, of a dry run or of `show`, each in the colour of its mark."""
    lines = text.split("\n")
    return "\n".join(paint(line, _MARKS[line[0]]) if line[1:2] == " " and line[0] in _MARKS else line for line in lines)
