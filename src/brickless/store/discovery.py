"""Which repository a folder belongs to: its own, or that of the nearest folder above. (The field's client looks in the
current folder alone, pvr.md 1.1.)

A folder above counts only if it is a repository with a committed state and belongs to who asks: in a folder that others
may write to, such as `/tmp`, somebody else's `.pvr` must not become ours.
"""

from __future__ import annotations

import os


def find(directory: str) -> str:
    """The folder whose repository `directory` is in; `directory` itself when there is none. Never raises OSError."""
    here = os.path.abspath(directory)
    folder = here
    while not os.path.isdir(os.path.join(folder, ".pvr")) or (folder != here and not _is_ours(folder)):
        above = os.path.dirname(folder)
        if above == folder:
            return here
        folder = above
    return folder


def _is_ours(folder: str) -> bool:
    # `~/.pvr` is the configuration of a user and no repository: it has no `json`.
    try:
        owner = os.stat(os.path.join(folder, ".pvr"), follow_symlinks=False).st_uid
    except OSError:
        return False  # it went away while we looked
    return owner == os.geteuid() and os.path.isfile(os.path.join(folder, ".pvr", "json"))
