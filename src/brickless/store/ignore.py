"""Files that nobody wants in a state: `.pvrignore` at the root of the tree, in the field's known form. Ours, additive.

    # a comment            *.o          at any depth            /build       at the root alone
    cache/  folders alone  docs/**/*.html  `**` stands for folders    !keep.o   not this one after all

The last line that matches decides; below a folder that is ignored nothing counts again. It concerns untracked files:
`status` does not show them, and `add` takes them only by their own names. Matching is by component, each in linear
time: the file may come with a state that somebody else made.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from typing import NamedTuple

from brickless.core.errors import UserError

NAME = ".pvrignore"
MAX_BYTES = 256 << 10
MAX_RULES = 1000


class Rule(NamedTuple):
    """One line: the components of its pattern; `wanted` for a line with `!`; `folders` for one that ends in `/`."""

    parts: tuple[str, ...]
    wanted: bool
    folders: bool


class Ignore:
    """The rules of a tree."""

    __slots__ = ("_folders", "_rules")

    def __init__(self, rules: tuple[Rule, ...] = ()) -> None:
        self._rules = rules
        self._folders: dict[str, bool] = {}

    @classmethod
    def load(cls, root: str) -> Ignore:
        """Read the file at the root of a tree; without one nothing is ignored. Raises UserError for one too large."""
        path = os.path.join(root, NAME)
        try:
            with open(path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except (FileNotFoundError, IsADirectoryError):
            return cls()
        rules = tuple(rule for line in data.decode("utf-8", "surrogateescape").splitlines() if (rule := parse(line)))
        if len(data) > MAX_BYTES or len(rules) > MAX_RULES:
            raise UserError("ignore-too-large", f"{path} has more than {MAX_BYTES} bytes or {MAX_RULES} rules.")
        return cls(rules)

    def hides(self, path: str) -> bool:
        """Whether a file is to be left alone. The file of the rules itself always is."""
        if path == NAME:
            return True
        if not self._rules:
            return False
        folder, _, _ = path.rpartition("/")
        return (bool(folder) and self._hides_folder(folder)) or self._decides(path, is_folder=False)

    def _hides_folder(self, path: str) -> bool:
        known = self._folders.get(path)
        if known is None:
            above, _, _ = path.rpartition("/")
            known = (bool(above) and self._hides_folder(above)) or self._decides(path, is_folder=True)
            self._folders[path] = known
        return known

    def _decides(self, path: str, *, is_folder: bool) -> bool:
        parts = tuple(path.split("/"))
        for rule in reversed(self._rules):
            if (is_folder or not rule.folders) and matches(rule.parts, parts):
                return not rule.wanted
        return False


def parse(line: str) -> Rule | None:
    """A line of the file as a rule; None for a comment or an empty line."""
    text = line.rstrip()
    if not text or text.startswith("#"):
        return None
    wanted = text.startswith("!")
    text = text.removeprefix("!").removeprefix("\\")
    folders = text.endswith("/")
    # A pattern with a slash that is not its last sign starts at the root; another one fits at any depth.
    anchored = "/" in text.rstrip("/")
    parts = tuple(part for part in text.split("/") if part)
    if not parts:
        return None
    return Rule(parts if anchored else ("**", *parts), wanted, folders)


def matches(pattern: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """Whether a pattern fits a whole path; its `**` stands for any number of folders, its `*` for no `/`."""
    # Which numbers of leading components the pattern so far can stand for.
    reached = {0}
    for part in pattern:
        if part == "**":
            reached = set(range(min(reached), len(parts) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(parts) and fnmatchcase(parts[at], part)}
        if not reached:
            return False
    return len(parts) in reached
