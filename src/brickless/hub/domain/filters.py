"""What list requests may ask for: only named fields and operators; nothing a caller sends becomes a query. Pure."""

from __future__ import annotations

from typing import NamedTuple

from brickless.hub.domain.errors import Malformed
from brickless.hub.domain.jsontext import Value, parse

_STATUS_OPERATORS = {"$in": True, "$nin": False, "$eq": True, "$ne": False}
_MAX_WORDS = 32
_MAX_CONDITION_BYTES = 4096


class StatusFilter(NamedTuple):
    """Steps whose status is (`include`) or is not in `words`; None as words means every step."""

    include: bool
    words: frozenset[str] | None

    def accepts(self, status: str) -> bool:
        """Whether a step of this status passes."""
        return self.words is None or (status in self.words) is self.include


EVERY_STATUS = StatusFilter(False, None)


def parse_status(text: str) -> StatusFilter:
    """The `progress.status` parameter: a word, or a condition with `$in`, `$nin`, `$eq` or `$ne` (section 3.7)."""
    if not text.lstrip().startswith("{"):
        return StatusFilter(True, frozenset({text}))
    condition = parse(text.encode(), max_bytes=_MAX_CONDITION_BYTES, what="progress.status")
    if not isinstance(condition, dict) or len(condition) != 1:
        raise Malformed('progress.status: one condition is expected, such as {"$in":["NEW"]}')
    ((operator, operand),) = condition.items()
    if operator not in _STATUS_OPERATORS:
        raise Malformed(f"progress.status: the operators are {', '.join(_STATUS_OPERATORS)}")
    words = operand if operator in {"$in", "$nin"} else [operand]
    return StatusFilter(_STATUS_OPERATORS[operator], _words(words))


def _words(value: Value) -> frozenset[str]:
    if not isinstance(value, list) or len(value) > _MAX_WORDS:
        raise Malformed(f"progress.status: a list of at most {_MAX_WORDS} words is expected")
    words = frozenset(item for item in value if isinstance(item, str))
    if len(words) != len(set(map(str, value))):
        raise Malformed("progress.status: every word must be a string")
    return words


class TextFilter(NamedTuple):
    """A filter on one text field: `value`, `!value` (not equal) or `^value` (prefix, any case)."""

    field: str
    operator: str
    value: str


DEVICE_FIELDS = frozenset({"nick", "prn", "id", "public"})


def parse_device_filters(query: list[tuple[str, str]]) -> tuple[TextFilter, ...]:
    """The filters of a device list. Parameters that name no filterable field are ignored, secrets among them."""
    filters = []
    for key, text in query:
        if key not in DEVICE_FIELDS:
            continue
        operator = text[:1] if text[:1] in {"!", "^"} else "="
        filters.append(TextFilter(key, operator, text[1:] if operator != "=" else text))
    return tuple(filters)


class Projection(NamedTuple):
    """Which members of a step an answer holds; excluded ones come back with their zero value."""

    only: frozenset[str] | None
    without: frozenset[str]

    def keeps(self, name: str) -> bool:
        """Whether the member keeps its value."""
        return name not in self.without and (self.only is None or name in self.only)


WHOLE = Projection(None, frozenset())
#: Members that no projection takes away.
_ALWAYS = frozenset(
    {"id", "owner", "step-time", "progress-time", "time-created", "time-modified", "garbage", "mark_public_processed"}
)


def parse_fields(text: str) -> Projection:
    """The `fields` parameter: `a,b` or `+a` keep only these, `-a` leaves one out. A `+` may arrive as a space."""
    only: set[str] = set()
    without: set[str] = set()
    for word in filter(None, (part.strip() for part in text.split(","))):
        name = word.lstrip("+-")
        (without if word.startswith("-") else only).add(name.partition(".")[0])
    if not only and not without:
        return WHOLE
    return Projection(frozenset(only) | _ALWAYS if only else None, frozenset(without) - _ALWAYS)


def page_number(text: str | None, name: str, *, default: int, maximum: int) -> int:
    """A paging parameter: a non-negative decimal number, clamped to `maximum`. Raises Malformed otherwise."""
    if text is None or text == "":
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise Malformed(f"{name!r} must be a non-negative number")
    return min(int(text), maximum)
