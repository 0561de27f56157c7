"""Names for states of a repository (`pvr tag`). Ours, additive, local: no other client and no hub sees them.

.pvr/history/tags      {"<name>": {"message", "sha", "time"}}, canonical JSON
.pvr/history/<sha>.json  the state (see store.history), which is kept as long as a tag names it
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from brickless.core import canonical
from brickless.core.canonical import JsonValue
from brickless.core.errors import JsonError, UserError
from brickless.store import atomic
from brickless.store.objects import is_sha

MAX_TAGS = 1000
_MAX_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
# These mean something else where a state is named (pvr.revision).
_TAKEN = re.compile(r"HEAD|[0-9a-f]{6,64}")


class Tag(NamedTuple):
    """A state's name: since when (seconds since 1970), why, and which state."""

    time_s: int
    message: str
    sha: str


def check_name(name: str) -> str:
    """Return a name that a tag may have. Raises UserError."""
    if not _NAME.fullmatch(name) or _TAKEN.fullmatch(name):
        raise UserError(
            "tag-name",
            f"{name[:100]!r} cannot be a tag.",
            hint="Letters, digits, `.`, `_`, `+` and `-`; neither HEAD nor what looks like a hash.",
        )
    return name


def load(meta: str) -> dict[str, Tag]:
    """All tags by name; members that are none are left out. Raises UserError when the file is damaged."""
    path = _path(meta)
    try:
        with open(path, "rb") as file:
            document = canonical.loads(file.read(_MAX_BYTES + 1), max_bytes=_MAX_BYTES)
    except FileNotFoundError:
        return {}
    except JsonError as error:
        raise UserError("tags-damaged", f"{path} is damaged: {error}", hint="Remove it; the states stay.") from error
    found = document.items() if isinstance(document, dict) else ()
    return {name: tag for name, value in found if _NAME.fullmatch(name) and (tag := _tag(value))}


def save(meta: str, tags: dict[str, Tag]) -> None:
    """Replace all tags. Call under the repository's lock."""
    if len(tags) > MAX_TAGS:
        raise UserError("tags-many", f"A repository has at most {MAX_TAGS} tags.", hint="Remove some: `pvr tag -d`.")
    document: JsonValue = {
        name: {"message": tag.message, "sha": tag.sha, "time": tag.time_s} for name, tag in tags.items()
    }
    atomic.make_dirs(os.path.dirname(_path(meta)))
    atomic.write_file(_path(meta), canonical.dumps(document))


def _path(meta: str) -> str:
    return os.path.join(meta, "history", "tags")


def _tag(value: JsonValue) -> Tag | None:
    if not isinstance(value, dict):
        return None
    time_s, message, sha = value.get("time"), value.get("message"), value.get("sha")
    if not isinstance(time_s, int) or not isinstance(message, str) or not isinstance(sha, str) or not is_sha(sha):
        return None
    return Tag(time_s, message, sha)
