"""A value inside an inline JSON with the path that leads to it, so that every fault says exactly where it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import NoReturn, TypeVar

from brickless.core.canonical import JsonValue, pointer
from brickless.core.errors import StateError

MAX_COUNT = 2**31 - 1
_DIGITS = re.compile(r"[0-9]{1,10}")
Choice = TypeVar("Choice", bound=StrEnum)


class Node:
    """One value of the inline JSON `entry`, reached by `where`. Every method raises `StateError` at the exact path."""

    __slots__ = ("entry", "value", "where")

    def __init__(self, entry: str, value: JsonValue, where: tuple[str | int, ...] = ()) -> None:
        """Point at `value`, which lies at `where` inside the inline JSON of the state's path `entry`."""
        self.entry = entry
        self.value = value
        self.where = where

    @property
    def path(self) -> str:
        """Return the path as errors show it: `web/run.json: .storage.data`."""
        return f"{self.entry}: {pointer(self.where)}" if self.where else self.entry

    def fail(self, rule: str, reason: str, *, hint: str = "") -> NoReturn:
        """Refuse this value."""
        raise StateError(self.path, reason, rule=rule, hint=hint)

    def at(self, piece: str | int, value: JsonValue) -> Node:
        """Return the node of a member."""
        return Node(self.entry, value, (*self.where, piece))

    def object(self) -> Mapping[str, JsonValue]:
        """Return the value, which must be an object."""
        if not isinstance(self.value, dict):
            self.fail("not-an-object", f"must be an object, is {kind(self.value)}")
        return self.value

    def get(self, key: str) -> Node | None:
        """Return the member `key` of this object; None when it is absent or null."""
        value = self.object().get(key)
        return None if value is None else self.at(key, value)

    def members(self) -> Iterator[tuple[str, Node]]:
        """Yield the members of this object."""
        for key, value in self.object().items():
            yield key, self.at(key, value)

    def items(self, key: str) -> Iterator[Node]:
        """Yield the elements of the array `key`; none when it is absent."""
        node = self.get(key)
        if node is not None:
            yield from node.elements()

    def elements(self) -> Iterator[Node]:
        """Yield the elements of this array."""
        if not isinstance(self.value, list):
            self.fail("not-an-array", f"must be an array, is {kind(self.value)}")
        for index, value in enumerate(self.value):
            yield self.at(index, value)

    def text(self) -> str:
        """Return the value, which must be a string that is not empty."""
        if not isinstance(self.value, str):
            self.fail("not-a-string", f"must be a string, is {kind(self.value)}")
        if not self.value:
            self.fail("empty-string", "must not be empty")
        return self.value

    def text_of(self, key: str, default: str = "") -> str:
        """Return the string member `key`, or `default`."""
        node = self.get(key)
        return default if node is None else node.text()

    def required(self, key: str) -> Node:
        """Return the member `key`, which must be there."""
        node = self.get(key)
        if node is None:
            self.at(key, None).fail("missing-member", f"{key!r} is missing")
        return node

    def texts_of(self, key: str) -> tuple[str, ...]:
        """Return the array of strings `key`, or an empty one."""
        return tuple(node.text() for node in self.items(key))

    def count_of(self, key: str, default: int = 0) -> int:
        """Return the member `key`, a whole number from 0 up; the reference reads it from a string of digits, too."""
        node = self.get(key)
        if node is None:
            return default
        value = node.value
        if isinstance(value, str) and _DIGITS.fullmatch(value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
            node.fail("not-a-count", f"must be a whole number from 0 to {MAX_COUNT}")
        return value

    def factor_of(self, key: str, default: float) -> float:
        """Return the member `key`, a number from 0 up to a million."""
        node = self.get(key)
        if node is None:
            return default
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | Decimal) or not 0 <= value <= 1_000_000:
            node.fail("not-a-factor", "must be a number from 0 to 1000000")
        return float(value)

    def flag_of(self, key: str, default: bool | None = None) -> bool | None:
        """Return the member `key`: `true` or `false`, or `yes` or `no` as older files write it."""
        node = self.get(key)
        if node is None:
            return default
        if isinstance(node.value, bool):
            return node.value
        if not isinstance(node.value, str) or node.value not in {"yes", "no"}:
            node.fail("not-a-flag", "must be true or false")
        return node.value == "yes"

    def choice_of(self, key: str, choices: type[Choice], rule: str) -> Choice | None:
        """Return the member `key`, one of `choices`; None when it is absent."""
        node = self.get(key)
        return None if node is None else node.choice(choices, rule)

    def choice(self, choices: type[Choice], rule: str) -> Choice:
        """Return the value, one of `choices`."""
        text = self.text()
        if text not in choices.__members__.values():
            known = ", ".join(member.value for member in choices)
            self.fail(rule, f"{shown(text)} is none of {known}")
        return choices(text)


def kind(value: JsonValue) -> str:
    """Name the JSON type of a value for people."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return "a string"
    if isinstance(value, int | Decimal):
        return "a number"
    return "an object" if isinstance(value, dict) else "an array"


def shown(text: str) -> str:
    """Quote a text of unknown length for an error."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
