"""`src.json`: how an app is made, read and written so that nobody's keys are lost. Source: contract pvr.md 4.2."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from brickless.core import canonical
from brickless.core.errors import HostileInputError, JsonError, UserError
from brickless.store import atomic

NAME = "src.json"
SPEC = "service-manifest-src@1"
# The order in which the reference writes its keys; what it does not know follows in the order it had.
ORDER = (
    "base", "name", "#spec", "template", "args", "dm_enabled", "logs", "exports", "config", "docker_name",
    "docker_tag", "docker_digest", "docker_ovl_digest", "docker_source", "docker_config", "docker_platform",
    "format_options", "pvr", "pvr_digest", "rootfs_url", "rootfs_digest", "persistence",
)  # fmt: skip
MAX_BYTES = 8 << 20


def read(folder: Path) -> dict[str, Any]:
    """The src.json of an app's folder. Raises `UserError` if there is none, `HostileInputError` if it is broken."""
    path = folder / NAME
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError("app-missing", f"App '{folder.name}' doesn't exist", context=str(path)) from error
    try:
        value = canonical.loads(data, max_bytes=MAX_BYTES)
    except JsonError as error:
        raise HostileInputError(f"{path} is no valid JSON: {error}") from error
    if not isinstance(value, dict) or value.get("#spec") != SPEC:
        raise HostileInputError(f"{path} is no {SPEC}")
    return cast(dict[str, Any], value)


def is_one(folder: Path) -> bool:
    """Whether its src.json is an app's: a BSP's, say, is `{}` or of another kind. Raises `HostileInputError`."""
    try:
        value = canonical.loads((folder / NAME).read_bytes(), max_bytes=MAX_BYTES)
    except JsonError as error:
        raise HostileInputError(f"{folder / NAME} is no valid JSON: {error}") from error
    return isinstance(value, dict) and value.get("#spec") == SPEC


def ordered(src: Mapping[str, Any]) -> dict[str, Any]:
    """The members in the reference's order, its empty ones dropped (but for `#spec`), unknown ones kept as they are."""
    known = {key: src[key] for key in ORDER if key in src and (key == "#spec" or not _is_empty(src[key]))}
    return known | {key: value for key, value in src.items() if key not in ORDER}


def _is_empty(value: object) -> bool:
    return value is None or value is False or value in ("", [], {})


def dumps(src: Mapping[str, Any]) -> bytes:
    """The text as the reference lays it out: members indented by two blanks, one more a level, HTML signs escaped."""
    return text(ordered(src))


def text(value: Mapping[str, Any]) -> bytes:
    """A JSON object for people, as the reference indents; numbers are written as they were read."""
    return _text(value, 1).encode()


def write(folder: Path, src: Mapping[str, Any]) -> None:
    """Replace the app's src.json."""
    atomic.write_file(str(folder / NAME), dumps(src))


def _text(value: Any, depth: int) -> str:
    inner, outer = "\n" + " " * (depth + 1), "\n" + " " * depth
    if isinstance(value, Mapping) and value:
        keys = value if depth == 1 else sorted(value)
        members = (f"{_string(str(key))}: {_text(value[key], depth + 1)}" for key in keys)
        return "{" + inner + f",{inner}".join(members) + outer + "}"
    if isinstance(value, list | tuple) and value:
        return "[" + inner + f",{inner}".join(_text(item, depth + 1) for item in value) + outer + "]"
    if isinstance(value, str):
        return _string(value)
    return str(value) if isinstance(value, Decimal) else json.dumps(value)


def _string(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    for sign in "<>&\u2028\u2029":
        quoted = quoted.replace(sign, f"\\u{ord(sign):04x}")
    return quoted
