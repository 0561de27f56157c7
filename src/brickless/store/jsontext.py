"""JSON as people read it, in the two dialects that the field's client writes (pvr.md 1.4, 3.4).

Both sort keys by code point and write `{}` and `[]` for empty containers. They differ in strings and numbers:

* *canonical* keeps the canonical form's strings and numbers (`1.5E0`) and adds white space only;
* *escaped* also writes `<`, `>`, `&`, U+2028 and U+2029 as `\\uXXXX`, numbers as Go's encoder (`1.5`, `1e+21`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal

from brickless.core.canonical import JsonValue, dumps

_HTML = re.compile("[<>&\u2028\u2029]")
_HTML_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
# Go switches to an exponent at these magnitudes (encoding/json, as ECMAScript does).
_EXPONENT_FROM = Decimal(10) ** 21
_EXPONENT_BELOW = Decimal(10) ** -6


def canonical_text(value: JsonValue, *, indent: str = "\t", prefix: str = "") -> str:
    """Indented JSON whose strings and numbers are those of the canonical form."""
    return _text(value, indent, prefix, _canonical_scalar)


def escaped_text(value: JsonValue, *, indent: str = "\t", prefix: str = "", sort: bool = True) -> str:
    """Indented JSON with the escapes and numbers of Go's encoder. Without `sort`, keys stay in their order."""
    return _text(value, indent, prefix, _escaped_scalar, sort)


def _text(value: JsonValue, indent: str, prefix: str, scalar: Callable[[JsonValue], str], sort: bool = True) -> str:
    parts: list[str] = []

    def write(node: JsonValue, margin: str) -> None:
        inner = margin + indent
        if isinstance(node, dict) and node:
            for index, key in enumerate(sorted(node) if sort else node):
                parts.append(f"{',' if index else '{'}{inner}{scalar(key)}: ")
                write(node[key], inner)
            parts.append(margin + "}")
        elif isinstance(node, list) and node:
            for index, member in enumerate(node):
                parts.append(f"{',' if index else '['}{inner}")
                write(member, inner)
            parts.append(margin + "]")
        elif isinstance(node, dict | list):
            parts.append("{}" if isinstance(node, dict) else "[]")
        else:
            parts.append(scalar(node))

    write(value, "\n" + prefix)
    return "".join(parts)


def _canonical_scalar(value: JsonValue) -> str:
    return dumps(value).decode()


def _escaped_scalar(value: JsonValue) -> str:
    if isinstance(value, str):
        return _HTML.sub(lambda found: _HTML_ESCAPES[found.group()], dumps(value).decode())
    if isinstance(value, bool) or value is None:
        return dumps(value).decode()
    if isinstance(value, int):
        return str(value) if abs(value) < _EXPONENT_FROM else _scientific(Decimal(value))
    if isinstance(value, Decimal):
        return _go_number(value)
    raise TypeError(f"{type(value).__name__} is no JSON scalar")


def _go_number(value: Decimal) -> str:
    if value == value.to_integral_value() and abs(value) < _EXPONENT_FROM:
        return str(int(value))
    if _EXPONENT_BELOW <= abs(value) < _EXPONENT_FROM:
        return format(value.normalize(), "f")
    return _scientific(value)


def _scientific(value: Decimal) -> str:
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)  # noqa: S101 - a JSON number is finite, core.canonical sees to that
    text = "".join(map(str, digits)).lstrip("0")
    power = exponent + len(text) - 1
    text = text.rstrip("0")
    mantissa = text[0] + ("." + text[1:] if len(text) > 1 else "")
    return f"{'-' if sign else ''}{mantissa}e{'+' if power >= 0 else '-'}{abs(power)}"
