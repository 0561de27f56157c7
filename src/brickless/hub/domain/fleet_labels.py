"""Labels on devices, and the selectors that choose devices by them (docs/reference/fleets.md has the grammar). Pure.

    selector = "*" | either
    either   = all { "or" all }
    all      = one { ("," | "and") one }
    one      = ("!" | "not") one | "(" either ")" | key [condition]
    condition = ("=" | "==" | "!=") value | ["not"] "in" "(" value { "," value } ")" | (">" | ">=" | "<" | "<=") version

A key alone means that the label is there. A comparison with a label that is not there is false, `!=` and `not in` are
true. Values that are not plain words stand in double quotes. Nothing of a selector is ever part of a statement.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import zip_longest
from typing import NamedTuple

from brickless.hub.domain.errors import Malformed

MAX_SELECTOR_CHARS = 2000
MAX_LABELS = 64
_MAX_DEPTH = 16
_KEY = re.compile(r"[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?\Z")
_VALUE = re.compile(r"[^\x00-\x1f\x7f\"\\]{0,128}\Z")
_TOKEN = re.compile(r'\s*(?:([A-Za-z0-9_][A-Za-z0-9._/+:@-]*)|"([^"\\\x00-\x1f\x7f]*)"|(==|!=|>=|<=|[()=<>!,*]))')
_WORDS = frozenset({"or", "and", "not", "in"})

Labels = Mapping[str, str]
Test = Callable[[Labels], bool]


def check_labels(labels: Labels) -> None:
    """Refuse labels that no selector could name. Raises Malformed that says which."""
    if len(labels) > MAX_LABELS:
        raise Malformed(f"A device has at most {MAX_LABELS} labels")
    for key, value in labels.items():
        if not _KEY.match(key) or key in _WORDS:
            raise Malformed(
                f"{key[:80]!r} is no label: 1 to 63 of a-z, 0-9, '.', '_', '/' and '-', beginning and ending with a "
                f"letter or digit, and none of {', '.join(sorted(_WORDS))}"
            )
        if not _VALUE.match(value):
            raise Malformed(f'The value of the label {key!r} has at most 128 printable characters without " and \\')


class Selector:
    """A parsed selector; `str()` is what was parsed."""

    __slots__ = ("_test", "text")

    def __init__(self, text: str, test: Test) -> None:
        self.text = text
        self._test = test

    def matches(self, labels: Labels) -> bool:
        """Whether a device with these labels is chosen."""
        return self._test(labels)

    def __str__(self) -> str:
        return self.text


@lru_cache(maxsize=256)
def parse(text: str) -> Selector:
    """Parse a selector; the empty one and `*` choose every device. Raises Malformed with the place of the fault."""
    if len(text) > MAX_SELECTOR_CHARS:
        raise Malformed(f"A selector has at most {MAX_SELECTOR_CHARS} characters")
    if text.strip() in {"", "*"}:
        return Selector("*", lambda _labels: True)
    parser = _Parser(text)
    test = parser.either(0)
    if parser.peek.kind != "end":
        parser.fail("',', 'and', 'or' or the end is expected")
    return Selector(text, test)


class _Token(NamedTuple):
    kind: str
    """`word`, `text` (in quotes), `end`, or the sign itself."""
    text: str
    at: int


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise Malformed(f"selector, at character {at + 1}: {text[at : at + 20]!r} is none of its words and signs")
        word, quoted, sign = match.groups()
        if word is not None:
            found.append(_Token(word if word in _WORDS else "word", word, match.start(1)))
        elif quoted is not None:
            found.append(_Token("text", quoted, match.start(2)))
        else:
            found.append(_Token(sign, sign, match.start(3)))
        at = match.end()
    return [*found, _Token("end", "", len(text))]


class _Parser:
    """By recursive descent; its depth is bounded, so a hostile selector is refused and not a crash."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0

    @property
    def peek(self) -> _Token:
        return self._tokens[self._at]

    def fail(self, expected: str) -> None:
        token = self.peek
        raise Malformed(f"selector, at character {token.at + 1}: {expected}, not {token.text or 'its end'!r}")

    def take(self, *kinds: str) -> _Token | None:
        token = self.peek
        if token.kind not in kinds:
            return None
        self._at += token.kind != "end"
        return token

    def need(self, expected: str, *kinds: str) -> _Token:
        token = self.take(*kinds)
        if token is None:
            self.fail(f"{expected} is expected")
            raise AssertionError
        return token

    def either(self, depth: int) -> Test:
        tests = [self.all(depth)]
        while self.take("or"):
            tests.append(self.all(depth))
        return tests[0] if len(tests) == 1 else lambda labels: any(test(labels) for test in tests)

    def all(self, depth: int) -> Test:
        tests = [self.one(depth)]
        while self.take(",", "and"):
            tests.append(self.one(depth))
        return tests[0] if len(tests) == 1 else lambda labels: all(test(labels) for test in tests)

    def one(self, depth: int) -> Test:
        if depth >= _MAX_DEPTH:
            self.fail(f"at most {_MAX_DEPTH} levels are expected")
        if self.take("!", "not"):
            inner = self.one(depth + 1)
            return lambda labels: not inner(labels)
        if self.take("("):
            inner = self.either(depth + 1)
            self.need("')'", ")")
            return inner
        if self.take("*"):
            return lambda _labels: True
        return self.condition(self.need("a label", "word", "text").text)

    def condition(self, key: str) -> Test:
        sign = self.take("=", "==", "!=", ">", ">=", "<", "<=", "in", "not")
        if sign is None:
            return lambda labels: key in labels
        if sign.kind == "not":
            self.need("'in'", "in")
        if sign.kind in {"not", "in"}:
            values = self.values()
            return _in(key, values) if sign.kind == "in" else _negated(_in(key, values))
        value = self.need("a value", "word", "text", *_WORDS).text
        if sign.kind in {"=", "=="}:
            return _in(key, frozenset({value}))
        if sign.kind == "!=":
            return _negated(_in(key, frozenset({value})))
        return _compared(key, sign.kind, version_key(value))

    def values(self) -> frozenset[str]:
        self.need("'('", "(")
        found = {self.need("a value", "word", "text").text}
        while self.take(","):
            found.add(self.need("a value", "word", "text").text)
        self.need("')'", ")")
        return frozenset(found)


def _in(key: str, values: frozenset[str]) -> Test:
    return lambda labels: labels.get(key) in values


def _negated(test: Test) -> Test:
    return lambda labels: not test(labels)


class _Piece(NamedTuple):
    """Numbers before words: 1.2 < 1.10, and 1.0-rc1 < 1.0-rc2."""

    is_word: bool
    number: int
    word: str


_ZERO = _Piece(False, 0, "")
_PIECES = re.compile(r"[0-9]{1,18}|[A-Za-z]+")


class VersionKey(NamedTuple):
    """A version in order: its numbers, then whether it is one before the release, and which."""

    main: tuple[_Piece, ...]
    is_release: bool
    before: tuple[_Piece, ...]


def _pieces(text: str) -> tuple[_Piece, ...]:
    return tuple(
        _Piece(False, int(piece), "") if piece.isdigit() else _Piece(True, 0, piece) for piece in _PIECES.findall(text)
    )


def version_key(text: str) -> VersionKey:
    """The place of a version among others: `1.9 < 1.10-rc1 < 1.10 = 1.10.0`. A leading `v` and `+build` say nothing."""
    main, dash, before = text.removeprefix("v").partition("+")[0].partition("-")
    pieces = list(_pieces(main))
    while pieces and pieces[-1] == _ZERO:
        pieces.pop()
    return VersionKey(tuple(pieces), not dash, _pieces(before))


def compare(left: VersionKey, right: VersionKey) -> int:
    """Negative, zero or positive, as left is before, at or after right."""
    for ours, theirs in zip_longest(left.main, right.main, fillvalue=_ZERO):
        if ours != theirs:
            return 1 if ours > theirs else -1
    ours_rest, theirs_rest = (left.is_release, left.before), (right.is_release, right.before)
    return (ours_rest > theirs_rest) - (ours_rest < theirs_rest)


_SIGNS: dict[str, Callable[[int], bool]] = {
    ">": lambda order: order > 0,
    ">=": lambda order: order >= 0,
    "<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
}


def _compared(key: str, sign: str, wanted: VersionKey) -> Test:
    holds = _SIGNS[sign]

    def test(labels: Labels) -> bool:
        value = labels.get(key)
        return value is not None and holds(compare(version_key(value), wanted))

    return test
