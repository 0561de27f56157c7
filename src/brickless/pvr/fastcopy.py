"""Copying parts of one trail's state into another's, with renaming, without moving an object (pvr.md 3.7). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from brickless.core.canonical import JsonValue
from brickless.core.errors import UserError
from brickless.core.fragment import Fragment, covers


class Copied(NamedTuple):
    """The new state of the destination, and what a person should know about it."""

    entries: dict[str, JsonValue]
    warnings: tuple[str, ...]


def copy(
    destination: Mapping[str, JsonValue],
    source: Mapping[str, JsonValue],
    *,
    parts: Fragment,
    names: Fragment,
    merge: bool = False,
) -> Copied:
    """Put the `parts` of `source` under the `names` into `destination`; without `merge` what lay there goes first.

    Without parts everything is copied, `#spec` too. Raises UserError when parts and names do not pair up, when a part
    is not in the source (a typing mistake must not delete the destination's part), or when two would collide.
    """
    pairs = _pairs(parts, names)
    if not pairs:
        return Copied({**(destination if merge else {}), **source}, ())
    for part, _ in pairs:
        if not any(covers((part,), path) for path in source):
            raise UserError(
                "fragment-missing",
                f"the source has no part {part!r}; nothing was copied",
                hint="`pvr inspect` shows what it has.",
            )
    kept = {path: value for path, value in destination.items() if merge or not covers([n for _, n in pairs], path)}
    for part, name in pairs:
        for path, value in source.items():
            if covers((part,), path):
                kept[name + path[len(part) :]] = value
    return Copied(kept, tuple(_warnings(pairs, source)))


def _pairs(parts: Fragment, names: Fragment) -> list[tuple[str, str]]:
    if parts.remove or names.remove:
        raise UserError("fragment-removal", "a copy takes parts; it cannot remove them (the items that begin with '-')")
    if names.include and len(names.include) != len(parts.include):
        raise UserError(
            "fragment-pairs",
            f"{len(parts.include)} part(s) of the source cannot take {len(names.include)} name(s)",
            hint="Name as many parts behind the destination's # as behind the source's, or none to keep their names.",
        )
    targets = names.include or parts.include
    for index, name in enumerate(targets):
        others = targets[:index] + targets[index + 1 :]
        if covers(others, name):
            raise UserError("fragment-collision", f"two parts would be copied to {name!r}")
    return list(zip(parts.include, targets, strict=True))


def _warnings(pairs: list[tuple[str, str]], source: Mapping[str, JsonValue]) -> list[str]:
    """Say what a renamed container still carries of its old name: its manifest, and the signature over its paths."""
    found = []
    for part, name in pairs:
        manifest = source.get(f"{part}/run.json")
        if part == name or not isinstance(manifest, dict):
            continue
        if manifest.get("name") != name:
            found.append(f"{name}/run.json still says the name {manifest.get('name')!r}: a device may refuse it.")
        if f"_sigs/{part}.json" in source:
            found.append(f"The signature of {part} does not cover {name}: sign it anew.")
    return found
