"""Objects as the wire describes them (contract sections 4.1 and 4.2). Pure."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import NamedTuple

from brickless.hub.domain.errors import Malformed
from brickless.hub.domain.jsontext import Value, text_field
from brickless.hub.domain.state import is_sha

_MAX_NAME_CHARS = 4096


def storage_id(owner: str, sha: str) -> str:
    """What the reference calls the bytes of one account's object; deterministic, so that data can be migrated."""
    return hashlib.sha256(f"{owner}/{sha}".encode()).hexdigest()


class ObjectRequest(NamedTuple):
    """A body of POST /objects/."""

    sha: str
    name: str
    size_bytes: int
    mime_type: str


def _size(body: dict[str, Value]) -> int:
    """`sizeint` wins when it is not zero, else the decimal digits of `size`."""
    number = body.get("sizeint")
    if isinstance(number, Decimal):
        raise Malformed("'sizeint' must be an integer")
    size = number if isinstance(number, int) and not isinstance(number, bool) else 0
    text = text_field(body, "size", max_chars=20)
    if size == 0 and text.isascii() and text.isdigit():
        size = int(text)
    if not 0 <= size < 2**63:
        raise Malformed("The object's size must be a number of bytes")
    return size


def parse_request(body: dict[str, Value]) -> ObjectRequest:
    """Check a request for an object. Raises Malformed for a SHA-256 that is missing, wrong, or differs from `id`."""
    sha = text_field(body, "sha256sum", max_chars=64)
    record_id = text_field(body, "id", max_chars=64)
    if not is_sha(sha):
        raise Malformed("'sha256sum' must be 64 lower-case hex characters")
    if record_id and record_id != sha:
        raise Malformed("'id' differs from 'sha256sum'")
    return ObjectRequest(
        sha,
        text_field(body, "objectname", max_chars=_MAX_NAME_CHARS),
        _size(body),
        text_field(body, "mime-type", max_chars=255) or "application/octet-stream",
    )


class ByteRange(NamedTuple):
    """Bytes from `start`, `length` of them."""

    start: int
    length: int


def parse_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """A single `Range: bytes=...` (RFC 9110, 14.2); None means everything. Raises ValueError for one behind the end."""
    unit, _, spec = (header or "").partition("=")
    first, dash, last = spec.strip().partition("-")
    if unit.strip().lower() != "bytes" or not dash or "," in spec:
        return None
    if not all(part == "" or (part.isascii() and part.isdigit() and len(part) < 20) for part in (first, last)):
        return None
    if first == "":
        if last == "":
            return None
        start = max(0, size_bytes - int(last))
        end = size_bytes - 1
        if int(last) == 0:
            raise ValueError("an empty suffix range")
    else:
        start = int(first)
        end = min(int(last), size_bytes - 1) if last else size_bytes - 1
        if last and int(last) < start:
            return None
    if start >= size_bytes:
        raise ValueError("the range starts behind the end")
    return ByteRange(start, end - start + 1)
