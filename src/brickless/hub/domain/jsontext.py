"""JSON of the hub: bounded parsing of what clients send, and text whose keys keep the order that clients need. Pure.

Two styles exist on the wire (contract section 0.2): canonical JSON in /trails, and "struct" JSON elsewhere: compact,
keys in declaration order, `<`, `>`, `&` and the two line separators escaped, maps with sorted keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import TypeAlias

from brickless.core import canonical
from brickless.core.errors import JsonError
from brickless.hub.domain.errors import Malformed, TooLarge

Value: TypeAlias = canonical.JsonValue

_HTML = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})
_MAX_DEPTH = 32


class Raw(bytes):
    """JSON that is ready already: put into an answer as it is."""

    __slots__ = ()


def parse(data: bytes, *, max_bytes: int, what: str = "the body") -> Value:
    """Parse JSON from the network. Raises TooLarge beyond `max_bytes`, Malformed for anything that is not JSON."""
    if len(data) > max_bytes:
        raise TooLarge(f"{what} is larger than {max_bytes} bytes")
    try:
        return canonical.loads(data, max_bytes=max_bytes, max_depth=_MAX_DEPTH)
    except JsonError as error:
        raise Malformed(f"{what} is not usable JSON: {error}") from error


def parse_object(data: bytes, *, max_bytes: int, what: str = "the body") -> dict[str, Value]:
    """Parse a JSON object; an empty body counts as `{}`, as clients of the contract expect."""
    if not data.strip():
        return {}
    value = parse(data, max_bytes=max_bytes, what=what)
    if not isinstance(value, dict):
        raise Malformed(f"{what} must be a JSON object")
    return value


def text_field(body: dict[str, Value], name: str, *, max_chars: int = 1024, default: str = "") -> str:
    """A string member of a body; absent or null gives `default`. Raises Malformed for another type or a long one."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise Malformed(f"{name!r} must be a string")
    if len(value) > max_chars:
        raise Malformed(f"{name!r} is longer than {max_chars} characters")
    return value


def _number(value: Decimal) -> str:
    """A non-integer as the reference server prints it: the shortest text of the nearest double."""
    number = float(value)
    return str(int(number)) if number.is_integer() and abs(number) < 1e21 else repr(number)


def _struct_text(value: object) -> str:
    if isinstance(value, Raw):
        return value.decode()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).translate(_HTML)
    if isinstance(value, dict):
        return "{" + ",".join(f"{_struct_text(key)}:{_struct_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_struct_text, value)) + "]"
    if isinstance(value, Decimal):
        return _number(value)
    return json.dumps(value)


def struct(value: object) -> Raw:
    """Struct JSON: keys in the order of the dict. `Raw` values are put in as they are."""
    return Raw(_struct_text(value).encode())


def sort_keys(value: Value) -> Value:
    """The same value with the keys of every object sorted."""
    if isinstance(value, dict):
        return {key: sort_keys(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [sort_keys(item) for item in value]
    return value


def struct_map(value: Value) -> Raw:
    """Struct JSON of a map: its keys are sorted."""
    return struct(sort_keys(value))


def struct_from_stored(text: str) -> Raw:
    """Struct JSON from the text that `stored` made."""
    return Raw(text.translate(_HTML).encode())


def stored(value: Value) -> str:
    """The text of a JSON value for the database: compact, sorted keys, unescaped; numbers as they are printed later."""
    return _plain(sort_keys(value))


def _plain(value: Value) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{_plain(key)}:{_plain(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_plain, value)) + "]"
    if isinstance(value, Decimal):
        return _number(value)
    return json.dumps(value, ensure_ascii=False)


def load_stored(text: str) -> dict[str, Value]:
    """The object whose text the database holds."""
    value = canonical.loads(text)
    if not isinstance(value, dict):
        raise TypeError("the database holds JSON that is not an object where one is expected")
    return value


def canonical_object(members: Iterable[tuple[str, object]]) -> Raw:
    """A canonical JSON object from members in any order; `Raw` values must be canonical already."""
    parts = []
    for key, value in sorted(members, key=lambda member: member[0].encode()):
        text = bytes(value) if isinstance(value, Raw) else canonical.dumps(value)  # type: ignore[arg-type]  # members hold JSON
        parts.append(canonical.dumps(key) + b":" + text)
    return Raw(b"{" + b",".join(parts) + b"}")


def canonical_array(items: Iterable[Raw]) -> Raw:
    """A JSON array of canonical values."""
    return Raw(b"[" + b",".join(items) + b"]")
