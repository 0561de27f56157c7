"""Differences between JSON values: the field's merge patch, bit by bit, and our exact one.

The reference client's patch (contract pvr.md 3.2) is RFC 7386 with one more loss: nulls vanish from every value that
is added or replaced, those inside arrays too (except in an array that takes an object's place). `diff` and `apply` do
the same, so that states made elsewhere read alike. But a container's configuration holds meaningful nulls
(`"Entrypoint": null`), and a signature covers them: so what *we* commit goes through `diff_entries` and
`apply_entries`, whose unit is a whole entry of the state, and `apply(..., keep_nulls=True)` stores whole new values
verbatim. Numbers are compared exactly in both.
"""

from __future__ import annotations

from collections.abc import Mapping

from brickless.core.canonical import JsonValue, equal


def diff(old: JsonValue, new: JsonValue) -> JsonValue:
    """Return the merge patch that leads from `old` to `new`; `{}` when they are equal objects.

    Arrays and scalars are replaced as a whole. A member that becomes null cannot be told from one that is removed.
    """
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    patch: dict[str, JsonValue] = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old:
            patch[key] = value
        elif isinstance(old[key], dict) and isinstance(value, dict):
            inner = diff(old[key], value)
            if inner:
                patch[key] = inner
        elif not equal(old[key], value):
            patch[key] = value
    return patch


def apply(base: JsonValue, patch: JsonValue, *, keep_nulls: bool = False) -> JsonValue:
    """Return `base` with the merge patch applied; neither argument is changed.

    With `keep_nulls`, a value that `base` does not have as an object is stored verbatim, nulls and all.
    """
    if not isinstance(base, dict):
        return patch if keep_nulls else _prune(patch)
    if not isinstance(patch, dict):
        return patch  # the reference prunes what it adds, but not an array that takes an object's place
    merged = dict(base)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = apply(merged.get(key), value, keep_nulls=keep_nulls)
    return merged


def diff_entries(old: Mapping[str, JsonValue], new: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return what changes between two states, entry by entry: the whole new value, or None for one that is gone."""
    patch: dict[str, JsonValue] = {key: None for key in old if key not in new}
    patch.update({key: value for key, value in new.items() if key not in old or not equal(old[key], value)})
    return patch


def apply_entries(base: Mapping[str, JsonValue], patch: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the state after a patch of `diff_entries`; values are stored verbatim."""
    merged = {key: value for key, value in base.items() if key not in patch}
    merged.update({key: value for key, value in patch.items() if value is not None})
    return merged


def _prune(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {key: _prune(member) for key, member in value.items() if member is not None}
    if isinstance(value, list):
        return [_prune(member) for member in value if member is not None]
    return value
