"""DER (X.690), as far as certificates, keys and signatures need it: one spelling of a value, every length checked.

What two readers could read differently is refused: lengths that are not minimal, bytes behind the end, numbers with
needless zeros. Everything raises `HostileInputError`.
"""

from __future__ import annotations

from typing import NamedTuple

from brickless.core.errors import HostileInputError

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
UTC_TIME, GENERALIZED_TIME, SEQUENCE, SET = 0x17, 0x18, 0x30, 0x31
MAX_CHILDREN = 256


class Node(NamedTuple):
    """One element: its tag, its content, and the whole of it."""

    tag: int
    body: bytes
    raw: bytes


def element(data: bytes, tag: int) -> Node:
    """The one element that `data` is, with nothing behind it."""
    node, end = _next(data, 0)
    if end != len(data):
        raise HostileInputError(f"DER: {len(data) - end} bytes follow the element")
    return expect(node, tag)


def expect(node: Node, tag: int) -> Node:
    """The same node. Raises when it is of another tag."""
    if node.tag != tag:
        raise HostileInputError(f"DER: tag {node.tag:#04x} where {tag:#04x} belongs")
    return node


def children(node: Node, *, least: int = 0) -> tuple[Node, ...]:
    """The elements inside a constructed one, which has at least so many."""
    if not node.tag & 0x20:
        raise HostileInputError(f"DER: tag {node.tag:#04x} is not made of elements")
    found: list[Node] = []
    at = 0
    while at < len(node.body):
        if len(found) == MAX_CHILDREN:
            raise HostileInputError(f"DER: an element has more than {MAX_CHILDREN} elements")
        child, at = _next(node.body, at)
        found.append(child)
    if len(found) < least:
        raise HostileInputError(f"DER: an element has {len(found)} elements, at least {least} belong there")
    return tuple(found)


def exactly(node: Node, tag: int, *tags: int) -> tuple[Node, ...]:
    """The children of a node of this tag, which have exactly these tags."""
    found = children(expect(node, tag))
    if tuple(child.tag for child in found) != tags:
        raise HostileInputError(f"DER: an element of tag {tag:#04x} has {len(found)} others than the ones that belong")
    return found


def integer(node: Node) -> int:
    """A whole number in the fewest bytes."""
    body = expect(node, INTEGER).body
    if not body or (len(body) > 1 and body[0] in (0x00, 0xFF) and (body[0] ^ body[1]) < 0x80):
        raise HostileInputError("DER: an integer is empty or longer than it need be")
    return int.from_bytes(body, signed=True)


def boolean(node: Node) -> bool:
    """A truth value: 0xff or 0x00, nothing between."""
    body = expect(node, BOOLEAN).body
    if body not in (b"\xff", b"\x00"):
        raise HostileInputError("DER: a boolean is neither true nor false")
    return body == b"\xff"


def octets_of_bits(node: Node) -> bytes:
    """A bit string of whole bytes: a key, a signature."""
    body = expect(node, BIT_STRING).body
    if not body or body[0] != 0:
        raise HostileInputError("DER: a bit string is not made of whole bytes")
    return body[1:]


def flags(node: Node) -> frozenset[int]:
    """The numbers of the bits that a bit string has set, counted from the first."""
    body = expect(node, BIT_STRING).body
    if not body or body[0] > 7 or len(body) > 5 or (body[0] and len(body) == 1):
        raise HostileInputError("DER: a bit string of flags is malformed")
    found = frozenset(n for n in range((len(body) - 1) * 8) if body[1 + n // 8] & (0x80 >> n % 8))
    if any(n >= (len(body) - 1) * 8 - body[0] for n in found):
        raise HostileInputError("DER: a bit string has bits set that it does not have")
    return found


def seconds(node: Node) -> int:
    """A time as seconds since 1970, UTC: `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280 4.1.2.5)."""
    text = node.body
    digits = {UTC_TIME: 12, GENERALIZED_TIME: 14}.get(node.tag)
    if digits is None or len(text) != digits + 1 or not text[:-1].isdigit() or text[-1:] != b"Z":
        raise HostileInputError("DER: a time is not written as RFC 5280 has it")
    if node.tag == UTC_TIME:
        text = (b"20" if text[:2] < b"50" else b"19") + text
    year = int(text[:4])
    month, day, hour, minute, second = (int(text[at : at + 2]) for at in range(4, 14, 2))
    if not (1 <= month <= 12 and 1 <= day <= _days(year, month) and hour < 24 and minute < 60 and second < 60):
        raise HostileInputError("DER: a time is no moment of the calendar")
    return ((_days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second


def _days(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


def _days_since_1970(year: int, month: int, day: int) -> int:
    # The year is taken to begin in March: then the leap day is its last one.
    year, month = (year - 1, month + 9) if month < 3 else (year, month - 3)
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 1 - 719468


def _next(data: bytes, at: int) -> tuple[Node, int]:
    if len(data) - at < 2:
        raise HostileInputError("DER: an element is cut off")
    tag, length = data[at], data[at + 1]
    if tag & 0x1F == 0x1F:
        raise HostileInputError("DER: a tag of more than one byte")
    begin = at + 2
    if length >= 0x80:
        count = length & 0x7F
        digits = data[begin : begin + count]
        begin += count
        length = int.from_bytes(digits)
        # 0x80 is "until the end marker", which only BER has; more than 3 bytes is more than any certificate.
        if not 1 <= count <= 3 or len(digits) != count or digits[0] == 0 or length < 0x80:
            raise HostileInputError("DER: a length is malformed, or not written in the shortest way")
    end = begin + length
    if end > len(data):
        raise HostileInputError("DER: an element is longer than what it lies in")
    return Node(tag, data[begin:end], data[at:end]), end
