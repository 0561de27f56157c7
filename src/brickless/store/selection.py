"""Which files of a working tree the words of a command line mean: paths, folders, globs (pvr.md 2.5). Pure."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

_PRIVATE = frozenset({".pvr", ".pv"})


def select(
    root: str, files: Iterable[str], patterns: list[str], *, hides: Callable[[str], bool] = lambda _: False
) -> tuple[list[str], list[str]]:
    """The files that patterns name, and the patterns that name none; no pattern, or `.`, means all.

    A pattern is a path, a folder (all files below it: what users expect, pvr.md 2.5), or a glob over the whole path.
    What `hides` says to ignore is taken by its own name only.
    """
    if not patterns or patterns == ["."]:
        return [path for path in files if not path.startswith(".pv") and not hides(path)], []
    known = list(files)
    chosen: set[str] = set()
    unmatched: list[str] = []
    for pattern in patterns:
        hits = _hits(relative_to(root, pattern), known, hides)
        if not hits:
            unmatched.append(pattern)
        chosen |= hits
    return sorted(chosen), unmatched


def relative_to(root: str, pattern: str) -> str:
    """A pattern as seen from the root of the tree; `.` is the root itself."""
    return os.path.relpath(pattern, root) if os.path.isabs(pattern) else os.path.normpath(pattern)


def _hits(relative: str, known: list[str], hides: Callable[[str], bool]) -> set[str]:
    below = "" if relative == "." else relative + "/"
    hits = {path for path in known if path.startswith(below) and not hides(path)}
    hits |= {path for path in known if path == relative}
    if not hits:
        hits = {path for path in known if glob_match(relative, path) and not hides(path)}
    return {path for path in hits if path.partition("/")[0] not in _PRIVATE}


def glob_match(pattern: str, path: str) -> bool:
    """Shell-like match of a whole path: `*`, `?` and `[]` stay within a component, there is no `**` (pvr.md 2.5)."""
    from fnmatch import fnmatchcase

    patterns, parts = pattern.split("/"), path.split("/")
    return len(patterns) == len(parts) and all(map(fnmatchcase, parts, patterns))
