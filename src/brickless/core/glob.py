"""Path patterns as the field's signing rules use them (the dialect of doublestar 1.3, contract pvr.md 5.2).

`*`, `?`, `[a-z]`, `[^a-z]` and `{a,b}` match within one component; `**` as a whole component matches any number of
them, a trailing one at least one. Patterns come from signature headers, so time and memory are bounded whatever they
hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

from brickless.core.errors import HostileInputError

MAX_PATTERN = 1024
MAX_ALTERNATIVES = 256


def match(pattern: str, path: str) -> bool:
    """Tell whether the whole path matches. Raises `HostileInputError` for a malformed pattern."""
    names = path.split("/")
    return any(_match_components(components, names) for components in _compile(pattern))


@lru_cache(maxsize=256)
def _compile(pattern: str) -> tuple[tuple[str, ...], ...]:
    if len(pattern) > MAX_PATTERN:
        raise HostileInputError(f"a pattern has {len(pattern)} characters, at most {MAX_PATTERN} are read")
    return tuple(tuple(_split(alternative)) for alternative in _expand(pattern))


def _expand(pattern: str) -> list[str]:
    """Write out the alternatives of `{a,b}`, which may hold slashes; more than a few hundred are an attack."""
    done: list[str] = []
    waiting = [pattern]
    while waiting:
        text = waiting.pop()
        opening = _find(text, "{", 0)
        if opening < 0:
            done.append(text)
        else:
            closing, commas = _find_closing(text, opening)
            borders = [opening, *commas, closing]
            for begin, end in pairwise(borders):
                waiting.append(text[:opening] + text[begin + 1 : end] + text[closing + 1 :])
        if len(done) + len(waiting) > MAX_ALTERNATIVES:
            raise HostileInputError(f"a pattern has more than {MAX_ALTERNATIVES} alternatives")
    return done


def _scan(text: str, start: int) -> Iterator[tuple[int, str]]:
    """Yield the characters that mean something: neither escaped nor inside a class."""
    index, in_class = start, False
    while index < len(text):
        character = text[index]
        if character == "\\":
            index += 2
            continue
        if in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        else:
            yield index, character
        index += 1


def _find(text: str, wanted: str, start: int) -> int:
    return next((index for index, character in _scan(text, start) if character == wanted), -1)


def _find_closing(text: str, opening: int) -> tuple[int, list[int]]:
    depth = 0
    commas: list[int] = []
    for index, character in _scan(text, opening):
        if character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return index, commas
        elif character == "," and depth == 1:
            commas.append(index)
    raise HostileInputError(f"the pattern {text[:60]!r} has a brace that is not closed")


def _split(pattern: str) -> Iterator[str]:
    begin = 0
    for index, character in _scan(pattern, 0):
        if character == "/":
            yield pattern[begin:index]
            begin = index + 1
    yield pattern[begin:]


def _match_components(patterns: tuple[str, ...], names: list[str]) -> bool:
    """Match component by component; row by row, so that many `**` cost no more than their product."""
    last = len(patterns) - 1
    reachable = {0}
    for rank, pattern in enumerate(patterns):
        if pattern == "**":
            first = min(reachable)
            # A trailing `**` needs a component to match; elsewhere it may stand for none.
            reachable = set(range(first + 1, len(names) + 1)) if rank == last else set(range(first, len(names) + 1))
        else:
            reachable = {at + 1 for at in reachable if at < len(names) and match_component(pattern, names[at])}
        if not reachable:
            return False
    return len(names) in reachable


def match_component(pattern: str, name: str) -> bool:
    """Match one component: after a mismatch only the last `*` takes one character more, so time is their product."""
    at, read = 0, 0
    star, star_read = -1, 0
    while read < len(name):
        if at < len(pattern) and pattern[at] == "*":
            star, star_read = at, read
            at += 1
            continue
        width = _match_one(pattern, at, name[read]) if at < len(pattern) else 0
        if width:
            at, read = at + width, read + 1
        elif star >= 0:
            star_read += 1
            at, read = star + 1, star_read
        else:
            return False
    return pattern[at:].strip("*") == ""


def _match_one(pattern: str, at: int, character: str) -> int:
    """Return how much of the pattern matched the character, 0 for none."""
    if pattern[at] == "?":
        return 1
    if pattern[at] == "[":
        return _match_class(pattern, at, character)
    if pattern[at] == "\\":
        if at + 1 >= len(pattern):
            raise HostileInputError(f"the pattern {pattern[:60]!r} ends in a backslash")
        return 2 if pattern[at + 1] == character else 0
    return 1 if pattern[at] == character else 0


def _match_class(pattern: str, at: int, character: str) -> int:
    members, negated, end = _read_class(pattern, at)
    return end - at if any(low <= character <= high for low, high in members) is not negated else 0


@lru_cache(maxsize=256)
def _read_class(pattern: str, at: int) -> tuple[tuple[tuple[str, str], ...], bool, int]:
    negated = pattern.startswith("^", at + 1)
    index = at + 2 if negated else at + 1
    members: list[tuple[str, str]] = []
    while index < len(pattern) and pattern[index] != "]":
        low, index = _read_member(pattern, index)
        high = low
        if pattern.startswith("-", index) and not pattern.startswith("-]", index):
            high, index = _read_member(pattern, index + 1)
        members.append((low, high))
    if index >= len(pattern) or not members:
        raise HostileInputError(f"the pattern {pattern[:60]!r} has a class that is empty or not closed")
    return tuple(members), negated, index + 1


def _read_member(pattern: str, index: int) -> tuple[str, int]:
    if pattern.startswith("\\", index):
        index += 1
    if index >= len(pattern):
        raise HostileInputError(f"the pattern {pattern[:60]!r} has a class that is not closed")
    return pattern[index], index + 1
