"""What a state may hold before anything on a disk is named after it: the first check of every foreign state."""

from __future__ import annotations

from brickless.core.canonical import JsonValue
from brickless.core.errors import HostileInputError
from brickless.core.paths import fault
from brickless.store.objects import is_sha

SPEC_KEY = "#spec"
SPEC = "pantavisor-service-system@1"
LEGACY_SPEC = "pantavisor-multi-platform@1"

_KINDS = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "a number"}


def is_file(path: str) -> bool:
    """Whether a key of a state is the path of a file (`#spec` and its like are not, pvr.md 2.4)."""
    return not path.startswith(SPEC_KEY)


def is_inline(path: str, value: JsonValue) -> bool:
    """Whether an entry holds the document itself: a `*.json` whose value is not an object's hash (pvr.md 2.4)."""
    return path.endswith(".json") and not (isinstance(value, str) and is_sha(value))


def objects_of(entries: dict[str, JsonValue]) -> dict[str, str]:
    """The entries that name objects: path -> sha."""
    return {path: str(value) for path, value in entries.items() if is_file(path) and not is_inline(path, value)}


def check_entries(document: JsonValue, *, source: str) -> dict[str, JsonValue]:
    """Return the entries of a state after checking that each can be a file below a folder.

    Raises HostileInputError which names `source`, the path and the rule: a path that could leave its folder, a value
    that is no hash where one must be, a file where another entry needs a folder.
    """
    if not isinstance(document, dict):
        raise HostileInputError(f"{source} is no state: it must be a JSON object, and is {_kind(document)}.")
    for path, value in document.items():
        if not is_file(path):
            continue
        wrong = fault(path)
        if wrong is not None:
            raise HostileInputError(f"{source} has a path that is not allowed: {path[:100]!r}: {wrong[1]}.")
        if isinstance(value, str) and is_sha(value):
            continue
        if not path.endswith(".json"):
            raise HostileInputError(
                f"{source} is no valid state: the value of {path!r} must be the SHA-256 of an object (64 hex digits)."
            )
    _check_folders(document, source)
    return document


def _check_folders(document: dict[str, JsonValue], source: str) -> None:
    """No file may be where another entry needs a folder."""
    folders = {path.rpartition("/")[0] for path in document if is_file(path)}
    seen: set[str] = set()
    for folder in folders:
        while folder and folder not in seen:
            seen.add(folder)
            if folder in document:
                raise HostileInputError(f"{source} has both the file {folder!r} and files below it.")
            folder = folder.rpartition("/")[0]  # noqa: PLW2901 - upwards, until a folder that was looked at


def _kind(value: JsonValue) -> str:
    for kind, name in _KINDS.items():
        if isinstance(value, kind):
            return name
    return "null" if value is None else "a number"
