"""Releases as values: which entries of a state make one, and what a device's own state becomes with it. Pure.

A release replaces whole parts: whatever a device had below `web` goes, what the release has below `web` comes. The
signatures of the parts travel along; a signature of the device's own that covered a part goes with the part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from brickless.core import canonical, fragment, signature
from brickless.core.canonical import JsonValue
from brickless.core.errors import HostileInputError, UserError
from brickless.core.fragment import Fragment, covers
from brickless.core.state import SPEC_KEY, SYSTEM_SPEC
from brickless.hub.domain.errors import Malformed, TooLarge, Unprocessable
from brickless.hub.domain.fleet import Release
from brickless.hub.domain.state import CheckedState, check

SPEC = "brickless-release@1"
MAX_PARTS = 256

Entries = Mapping[str, JsonValue]


class Content(NamedTuple):
    """What a release consists of: its entries, and the parts that it replaces and removes."""

    entries: dict[str, JsonValue]
    include: tuple[str, ...]
    remove: tuple[str, ...]


class Fit(NamedTuple):
    """A device's state with the release in it, or why the device would not run that."""

    state: CheckedState | None
    reason: str = ""


def cut(state: Entries, fragment_text: str, *, allow_unsigned: bool = False) -> Content:
    """Take the parts of a release out of a state. An empty fragment takes all of it.

    Raises Malformed for a fragment that cannot be read, Unprocessable for parts that the state has not, and for
    signatures that cover a part and something beside the parts: they would not hold on another device.
    """
    try:
        wanted = Fragment.parse(fragment_text.removeprefix("#"))
    except UserError as error:
        raise Malformed(str(error)) from error
    if len(wanted.include) + len(wanted.remove) > MAX_PARTS:
        raise Malformed(f"A release has at most {MAX_PARTS} parts")
    if not wanted.include and not wanted.remove:
        return Content(dict(state), (), ())
    if absent := [part for part in wanted.include if not any(covers((part,), path) for path in state)]:
        raise Unprocessable(f"The state has nothing at {', '.join(absent)}")
    entries = wanted.select(state) if wanted.include else {}
    signed = _signatures(state, entries, allow_unsigned=allow_unsigned)
    entries.update({path: state[path] for path in signed})
    return Content(
        entries, (*wanted.include, *(path for path in signed if not covers(wanted.include, path))), wanted.remove
    )


def _signatures(state: Entries, parts: Entries, *, allow_unsigned: bool) -> list[str]:
    found = []
    for path, covered in _coverage(state).items():
        if covered.isdisjoint(parts):
            continue
        if beside := sorted(covered.difference(parts, {SPEC_KEY})):
            if allow_unsigned:
                continue
            raise Unprocessable(
                f"The signature {path} covers {beside[0]} too, which is no part of this release: it would not hold on "
                "other devices. Add that to the fragment, sign the parts by themselves, or allow the release unsigned"
            )
        found.append(path)
    return found


def _coverage(state: Entries) -> dict[str, set[str]]:
    """What each signature of a state covers."""
    try:
        return {
            one.path: set(signature.select(state, one.rule, signature.Dialect.CLIENT)[0])
            for one in signature.find_signatures(state)
        }
    except HostileInputError as error:
        raise Unprocessable(f"A device would refuse this state: {error}") from error


def content_id(content: Content, types: tuple[str, ...]) -> str:
    """The name of a release: the SHA-256 of everything that decides what it does to a device."""
    value: dict[str, JsonValue] = {
        SPEC_KEY: SPEC,
        "include": list(content.include),
        "remove": list(content.remove),
        "types": list(types),
        "entries": content.entries,
    }
    return canonical.sha256_hex(canonical.dumps(value))


def entries_of(raw: bytes) -> dict[str, JsonValue]:
    """The entries of a stored state."""
    value = canonical.loads(raw)
    if not isinstance(value, dict):
        raise TypeError("a stored state is no object")
    return value


def _parts(release: Release) -> Fragment:
    return Fragment(release.include, release.remove)


def touched(release: Release, path: str) -> bool:
    """Whether the release replaces or removes this entry."""
    parts = _parts(release)
    return parts.removes(path) or (bool(parts.include or not parts.remove) and parts.selects(path))


def overlap(left: Release, right: Release) -> bool:
    """Whether both touch some same part: one of them has a part that is, or lies in, a part of the other."""
    ours, theirs = left.include + left.remove, right.include + right.remove
    if not ours or not theirs:
        return True
    return any(covers((one,), other) or covers((other,), one) for one in ours for other in theirs)


def covered_by(inner: Release, outer: Release) -> bool:
    """Whether every part of `inner` is replaced by `outer`, so that nothing of `inner` is left behind it."""
    outer_parts = outer.include + outer.remove
    if not outer_parts:
        return True
    inner_parts = inner.include + inner.remove
    return bool(inner_parts) and all(covers(outer_parts, part) for part in inner_parts)


def applied(own: Entries, release: Release) -> dict[str, JsonValue]:
    """A device's own state with the release's parts in it. Raises Unprocessable for a signature that would break."""
    incoming = entries_of(release.state)
    if not release.include and not release.remove:
        return incoming
    parts = _parts(release) if release.include else Fragment(("/",), release.remove)  # nothing to take
    merged = fragment.get(own, incoming, parts)
    return _without_broken(own, merged, release)


def _without_broken(own: Entries, merged: dict[str, JsonValue], release: Release) -> dict[str, JsonValue]:
    for path, covered in _coverage(own).items():
        if path not in merged or touched(release, path):
            continue
        changed = {one for one in covered if merged.get(one) != own[one]}
        if not changed:
            continue
        if any(not touched(release, one) and one != SPEC_KEY for one in covered):
            raise Unprocessable(
                f"The device's own signature {path} covers {sorted(changed)[0]}, which the release replaces, and more"
            )
        del merged[path]
    return merged


def taken_back(own: Entries, former: Entries, release: Release) -> dict[str, JsonValue]:
    """A device's state with its former parts where the release's were; everything else stays as it is now."""
    kept = {path: value for path, value in own.items() if not touched(release, path)}
    kept.update({path: value for path, value in former.items() if touched(release, path)})
    # A signature of the device's own that went with its part comes back with it.
    for path, covered in _coverage(former).items():
        if path not in kept and covered and all(kept.get(one) == former[one] for one in covered):
            kept[path] = former[path]
    return kept


def fit(entries: Entries, *, max_bytes: int) -> Fit:
    """What a device would say to this state before it fetches anything."""
    value = dict(entries)
    if value and SPEC_KEY not in value:
        value = {SPEC_KEY: SYSTEM_SPEC, **value}
    try:
        checked = check(value)
    except (Unprocessable, Malformed) as error:
        return Fit(None, error.message)
    if len(checked.raw) > max_bytes:
        return Fit(None, TooLarge(f"The state would have {len(checked.raw)} bytes, more than {max_bytes}").message)
    return Fit(checked)


def packed(content: Content) -> bytes:
    """The entries as they are stored."""
    return canonical.dumps(content.entries)


def has(own: Entries, release: Release) -> bool:
    """Whether a state has exactly the release's parts."""
    ours = {path: value for path, value in own.items() if touched(release, path)}
    return ours == entries_of(release.state)
