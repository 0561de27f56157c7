"""JSON read strictly and within bounds, and written in the one canonical form that hashes and signatures are made over.

The form is that of contract pvr.md 2.6 (gibson042's canonical JSON): no white space, keys sorted by code point,
integral numbers as plain digits, all others as `d.dE[-]n`, upper-case `\\u00XX` for the control characters that have
no short escape. Numbers never pass through a binary float: what was read is what is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias

from brickless.core.errors import JsonError

JsonValue: TypeAlias = "bool | int | Decimal | str | list[JsonValue] | dict[str, JsonValue] | None"
"""What `loads` returns."""
JsonInput: TypeAlias = "bool | int | float | Decimal | str | Sequence[JsonInput] | Mapping[str, JsonInput] | None"
"""What `dumps` takes: a `JsonValue`, or sequences and mappings of the like; a float is written in its shortest form."""

MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 64
# `1e400000` is eight bytes of text and 400001 digits of canonical form: past this many we refuse instead of expanding.
MAX_NUMBER_DIGITS = 4096

_NOT_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[^\[\]{}"]++', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_PLAIN = re.compile(r"[A-Za-z0-9_#-]+")
_ESCAPE = re.compile(r'["\\\x00-\x1f]')
_ESCAPES = {chr(code): f"\\u{code:04X}" for code in range(0x20)} | {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
}


def loads(
    data: bytes | str,
    *,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    strict: bool = False,
) -> JsonValue:
    """Read one JSON text that fills `data` whole.

    Integral numbers of any notation become `int`, all others exact `Decimal`s. Without `strict`, malformed UTF-8 and
    lone surrogates become U+FFFD and the last of duplicate keys wins, as the field's readers do; with it, all three
    are refused: two readers of the same bytes could take them for different values. A byte order mark, `NaN` and
    bytes after the value are always refused.

    Raises `JsonError`, which names line and column, or the path of a duplicate key.
    """
    size_bytes = len(data)
    if size_bytes > max_bytes:
        raise JsonError(
            f"the JSON text has {size_bytes} bytes, more than the {max_bytes} that are read", rule="json-too-large"
        )
    text = data if isinstance(data, str) else _decode(data, strict)
    _check_depth(text, max_depth)
    duplicates: list[tuple[dict[str, JsonValue], str]] = []
    value = _parse(text, _pairs_hook(duplicates) if strict else None)
    if duplicates:
        holder, key = duplicates[0]
        where = _locate(value, holder)
        raise JsonError(
            f"the key {json.dumps(key)} appears twice in one object",
            rule="json-duplicate-key",
            where=where,
            context=f"in {pointer(where)}" if where else "",
        )
    if _ESCAPED_SURROGATE.search(text) or (isinstance(data, str) and _SURROGATE.search(text)):
        return _replace_surrogates(value, strict)
    return value


def dumps(value: JsonInput) -> bytes:
    """Return the canonical JSON of `value`.

    Raises `TypeError` for what JSON cannot hold (our bug, never an input's).
    """
    parts: list[str] = []
    _write(value, parts.append)
    text = "".join(parts)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text).encode()


def sha256_hex(data: bytes) -> str:
    """Return the lower-case hex SHA-256 of `data`, the name of an object."""
    import hashlib

    return hashlib.sha256(data).hexdigest()


def equal(left: JsonValue, right: JsonValue) -> bool:
    """Compare two values as JSON does: `true` is not 1, `1.0` is 1, the order of keys does not count."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(equal(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return left == right


def _decode(data: bytes, strict: bool) -> str:
    try:
        return data.decode("utf-8", "strict" if strict else "replace")
    except UnicodeDecodeError as error:
        raise JsonError(
            f"the JSON text is not UTF-8: byte {error.start} is no part of a character", rule="json-not-utf8"
        ) from error


def _check_depth(text: str, max_depth: int) -> None:
    if text.count("[") + text.count("{") <= max_depth:
        return
    depth = 0
    for bracket in _NOT_BRACKETS.sub("", text):
        depth += 1 if bracket in "[{" else -1
        if depth > max_depth:
            raise JsonError(f"the JSON text is nested deeper than {max_depth} levels", rule="json-too-deep")


def _parse(text: str, pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None) -> JsonValue:
    try:
        value: JsonValue = json.loads(
            text,
            parse_float=_decimal,
            parse_int=_integer,
            parse_constant=_refuse_constant,
            object_pairs_hook=pairs_hook,
        )
    except json.JSONDecodeError as error:
        reason = error.msg[:1].lower() + error.msg[1:]
        raise JsonError(f"no valid JSON: {reason}", context=f"line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise JsonError("the JSON text is nested too deeply", rule="json-too-deep") from error
    return value


def _integer(digits: str) -> int:
    if len(digits) > MAX_NUMBER_DIGITS:
        raise JsonError(
            f"a number has {len(digits)} digits, more than the {MAX_NUMBER_DIGITS} that are read", rule="json-number"
        )
    return int(digits)


def _decimal(text: str) -> int | Decimal:
    if len(text) > MAX_NUMBER_DIGITS:
        raise JsonError(
            f"a number has {len(text)} characters, more than the {MAX_NUMBER_DIGITS} that are read", rule="json-number"
        )
    try:
        number = Decimal(text)
    except InvalidOperation as error:
        raise JsonError(f"the exponent of the number {text[:40]} is out of bounds", rule="json-number") from error
    sign, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int) or not number.is_finite():
        raise JsonError(f"the exponent of the number {text[:40]} is out of bounds", rule="json-number")
    significant = "".join(map(str, digits)).rstrip("0")
    exponent += len(digits) - len(significant)
    if not significant:
        return 0
    if exponent < 0:
        return number
    if len(significant) + exponent > MAX_NUMBER_DIGITS:
        raise JsonError(f"the number {text[:40]} has more than {MAX_NUMBER_DIGITS} digits", rule="json-number")
    return int(f"{'-' if sign else ''}{significant}{'0' * exponent}")


def _refuse_constant(name: str) -> JsonValue:
    raise JsonError(f"no valid JSON: {name} is no JSON number")


def _pairs_hook(
    duplicates: list[tuple[dict[str, JsonValue], str]],
) -> Callable[[list[tuple[str, Any]]], dict[str, JsonValue]]:
    def hook(pairs: list[tuple[str, Any]]) -> dict[str, JsonValue]:
        made: dict[str, JsonValue] = dict(pairs)
        if len(made) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # add() gives None: only remembers
            duplicates.append((made, twice))
        return made

    return hook


def pointer(where: Sequence[str | int]) -> str:
    """Return the path of a member for people: `.storage.data[0]["a key with.dots"]`."""
    return "".join(
        f"[{piece}]" if isinstance(piece, int) else f".{piece}" if _PLAIN.fullmatch(piece) else f"[{_quote(piece)}]"
        for piece in where
    )


def _locate(root: JsonValue, wanted: object) -> tuple[str | int, ...]:
    stack: list[tuple[tuple[str | int, ...], JsonValue]] = [((), root)]
    while stack:
        where, value = stack.pop()
        if value is wanted:
            return where
        if isinstance(value, dict):
            stack.extend(((*where, key), member) for key, member in value.items())
        elif isinstance(value, list):
            stack.extend(((*where, index), member) for index, member in enumerate(value))
    # A duplicate key may itself have hidden the object that we look for: then no path leads to it.
    return ()


def _replace_surrogates(value: JsonValue, strict: bool) -> JsonValue:
    if isinstance(value, str):
        replaced = _SURROGATE.sub("\ufffd", value)
        if strict and replaced != value:
            raise JsonError("a string escapes half a surrogate pair, which is no character", rule="json-surrogate")
        return replaced
    if isinstance(value, list):
        return [_replace_surrogates(member, strict) for member in value]
    if isinstance(value, dict):
        return {
            str(_replace_surrogates(key, strict)): _replace_surrogates(member, strict) for key, member in value.items()
        }
    return value


def _quote(text: str) -> str:
    if _ESCAPE.search(text):
        text = _ESCAPE.sub(lambda found: _ESCAPES[found.group()], text)
    return f'"{text}"'


def _write(value: JsonInput, put: Callable[[str], None]) -> None:
    if isinstance(value, str):
        put(_quote(value))
    elif value is None or isinstance(value, bool):
        put({None: "null", True: "true", False: "false"}[value])
    elif isinstance(value, int):
        put(str(value))
    elif isinstance(value, float | Decimal):
        put(_number(Decimal(repr(value)) if isinstance(value, float) else value))
    elif isinstance(value, Mapping):
        separator = "{"
        for key in sorted(value):
            put(f"{separator}{_quote(key)}:")
            _write(value[key], put)
            separator = ","
        put("{}" if separator == "{" else "}")
    elif isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        separator = "["
        for member in value:
            put(separator)
            _write(member, put)
            separator = ","
        put("[]" if separator == "[" else "]")
    else:
        raise TypeError(f"{type(value).__name__} is no JSON value")


def _number(number: Decimal) -> str:
    sign, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int):
        raise TypeError(f"{number} is no JSON number")
    significant = "".join(map(str, digits)).lstrip("0")
    stripped = significant.rstrip("0")
    exponent += len(significant) - len(stripped)
    if not stripped:
        return "0"
    minus = "-" if sign else ""
    if exponent >= 0:
        if len(stripped) + exponent > MAX_NUMBER_DIGITS:
            raise TypeError(f"{number} has more than {MAX_NUMBER_DIGITS} digits")
        return f"{minus}{stripped}{'0' * exponent}"
    return f"{minus}{stripped[0]}.{stripped[1:] or '0'}E{exponent + len(stripped) - 1}"
