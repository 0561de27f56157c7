"""What the hub says, as values: bytes in, checked values out. No I/O.

A hub may be broken or hostile, so every field is bounded and checked before it is used: an id names a file later, a
token goes into a header, a size decides what fits. Sources: contracts/hub.md 2.1, 3.1, 4.1 and contracts/device.md 7.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from brickless.core.canonical import JsonValue, loads
from brickless.core.errors import HostileInputError

_HEX = frozenset("0123456789abcdef")
_BLANK = " \t\r\n"
_MAX_REV = 2**31 - 1
_MAX_OBJECT_BYTES = 2**40
#: Key -> where its value begins and ends in the text, and the value.
_Fields = dict[str, tuple[int, int, object]]
MAX_STEPS = 1000
MAX_META_KEYS = 500
MAX_META_VALUE_CHARS = 64 * 1024


class Registration(NamedTuple):
    """Who this device is at the hub. `owner` is empty until somebody claims it with `challenge`."""

    id: str
    prn: str
    secret: str
    owner: str
    challenge: str


class RemoteStep(NamedTuple):
    """A step that waits for this device. `state` is the text as received, byte for byte, whatever it holds."""

    rev: str
    state: bytes
    commit_msg: str
    retries: int


class ObjectInfo(NamedTuple):
    """Where the bytes of an object can be fetched; `url` expires."""

    sha: str
    size_bytes: int
    url: str


def is_sha(text: object) -> bool:
    """Whether a value is the hexadecimal SHA-256 that names an object."""
    return isinstance(text, str) and len(text) == 64 and _HEX.issuperset(text)


def _object(body: bytes, what: str) -> dict[str, JsonValue]:
    value = loads(body)
    if not isinstance(value, dict):
        raise HostileInputError(f"The hub's answer about {what} is not a JSON object")
    return value


def _line(value: JsonValue, what: str, most: int) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > most or not value.isascii() or not value.isprintable():
        raise HostileInputError(f"The hub gives as {what} something that is not a line of at most {most} characters")
    return value


def registration(body: bytes) -> Registration:
    """The answer to POST /devices/ and GET /devices/<id>. Raises HostileInputError."""
    value = _object(body, "this device")
    identity = _line(value.get("id"), "device id", 24)
    if len(identity) != 24 or not _HEX.issuperset(identity):
        raise HostileInputError("The hub gives a device id that is not 24 hexadecimal digits")
    prn = f"prn:::devices:/{identity}"
    if value.get("prn") != prn:
        raise HostileInputError(f"The hub gives device {identity} another name than {prn}")
    secret = _line(value.get("secret"), "secret", 256)
    owner = _line(value.get("owner"), "owner", 256)
    return Registration(identity, prn, secret, owner, _line(value.get("challenge"), "challenge", 256))


def token(body: bytes) -> str:
    """The answer to POST /auth/login. Raises HostileInputError."""
    found = _line(_object(body, "the login").get("token"), "token", 4096)
    if not found or " " in found:
        raise HostileInputError("The hub answered a login without a token")
    return found


def is_empty_list(body: bytes) -> bool:
    """Whether the answer to GET /trails/ says that the device has no trail yet. Raises HostileInputError."""
    value = loads(body)
    if not isinstance(value, list):
        raise HostileInputError("The hub's answer about trails is not a list")
    return not value


def object_info(body: bytes, sha: str) -> ObjectInfo:
    """The answer to GET /objects/<sha>. Raises HostileInputError."""
    value = _object(body, f"object {sha}")
    if value.get("sha256sum") != sha:
        raise HostileInputError(f"Asked for object {sha[:16]}, the hub describes another one")
    size = value.get("size")
    if isinstance(size, str) and size.isascii() and size.isdigit() and len(size) < 16:
        size = int(size)
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_OBJECT_BYTES:
        raise HostileInputError(f"The hub gives the size of object {sha[:16]} as {str(size)[:40]!r}")
    url = value.get("signed-geturl")
    if not isinstance(url, str) or not url:
        raise HostileInputError(f"The hub gives no address for object {sha[:16]}")
    return ObjectInfo(sha, size, url)


def upload_url(body: bytes) -> str:
    """The answer to POST /objects/: where to PUT the bytes. Raises HostileInputError."""
    url = _object(body, "an upload").get("signed-puturl")
    if not isinstance(url, str) or not url:
        raise HostileInputError("The hub gives no address for an upload")
    return url


def user_meta(body: bytes) -> dict[str, str]:
    """The answer to GET /devices/<id>/user-meta: text by key; values that are JSON stay JSON text; nulls are left out.

    Raises HostileInputError when it is no object or too large. A key that cannot be the name of a file is left out.
    """
    value = _object(body, "user-meta")
    if len(value) > MAX_META_KEYS:
        raise HostileInputError(f"The hub gives more than {MAX_META_KEYS} keys of user-meta")
    found: dict[str, str] = {}
    for key, item in value.items():
        if item is None or not is_meta_key(key):
            continue
        text = item if isinstance(item, str) else json.dumps(item, separators=(",", ":"), default=str)
        if len(text) > MAX_META_VALUE_CHARS:
            raise HostileInputError(f"The user-meta key {key!r} has more than {MAX_META_VALUE_CHARS} characters")
        found[key] = text
    return found


def is_meta_key(key: str) -> bool:
    """Whether a metadata key can be the name of a file in one folder; `container/key` is allowed (see metadata.py)."""
    parts = key.split("/")
    return (
        len(key) <= 200
        and len(parts) <= 2
        and key.isprintable()
        and all(part and not part.startswith(".") and "\\" not in part for part in parts)
    )


def steps(body: bytes) -> list[RemoteStep]:
    """The answer to a poll: steps by ascending revision. Raises HostileInputError.

    The state of each is cut out of the text as it stands there, because its bytes must reach the disk unmodified
    (contracts/device.md 1.1); everything around it is checked. A step whose state is not JSON ends the list: it is
    returned, so that it can be refused by its number, and what follows it cannot be read.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise HostileInputError("The hub's list of steps is not UTF-8 text") from error
    try:
        found = [_step(text, fields) for fields in _elements(text)]
    except (ValueError, RecursionError) as error:
        raise HostileInputError(f"The hub's list of steps is not JSON: {error}") from error
    unique = {step.rev: step for step in reversed(found)}  # of a step that is listed twice, the first counts
    return sorted(unique.values(), key=lambda step: int(step.rev))


def _step(text: str, fields: _Fields) -> RemoteStep:
    rev = fields.get("rev", (0, 0, None))[2]
    if not isinstance(rev, int) or isinstance(rev, bool) or not 0 <= rev <= _MAX_REV:
        raise HostileInputError("The hub lists a step without a revision number")
    start, end, _ = fields.get("state", (0, 0, None))
    message = fields.get("commit-msg", (0, 0, ""))[2]
    progress = fields.get("progress", (0, 0, None))[2]
    retries = progress.get("retries", 0) if isinstance(progress, dict) else 0
    if not isinstance(retries, int) or isinstance(retries, bool) or not 0 <= retries <= 1000:
        retries = 0
    commit_msg = message if isinstance(message, str) else ""
    return RemoteStep(
        str(rev), text[start:end].encode(), "".join(c for c in commit_msg if c.isprintable())[:256], retries
    )


def _elements(text: str) -> list[_Fields]:
    """The objects of a JSON array: for each key where its value begins and ends, and the value."""
    decoder = json.JSONDecoder()
    found: list[_Fields] = []
    at = _after(text, _skip(text, 0), "[")
    if text[at : at + 1] != "]":
        while True:
            at, fields = _fields(decoder, text, at)
            found.append(fields)
            if at < 0:
                return found
            if len(found) > MAX_STEPS:
                raise HostileInputError(f"The hub lists more than {MAX_STEPS} steps")
            if text[at : at + 1] == "]":
                break
            at = _after(text, at, ",")
    if _skip(text, at + 1) != len(text):
        raise HostileInputError("There is something after the hub's list of steps")
    return found


def _fields(decoder: json.JSONDecoder, text: str, at: int) -> tuple[int, _Fields]:
    """One object and where it ends; -1 when its state is broken."""
    fields: _Fields = {}
    at = _after(text, at, "{")
    if text[at : at + 1] == "}":
        return _skip(text, at + 1), fields
    while True:
        if text[at : at + 1] != '"':
            raise HostileInputError(f"The hub's list of steps is not JSON at character {at}")
        key, at = decoder.raw_decode(text, at)
        start = _after(text, _skip(text, at), ":")
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            if key != "state" or "rev" not in fields:
                raise
            return -1, {**fields, key: (start, len(text), None)}
        fields[key] = (start, end, value)
        at = _skip(text, end)
        if text[at : at + 1] == "}":
            return _skip(text, at + 1), fields
        at = _after(text, at, ",")


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return at


def _after(text: str, at: int, wanted: str) -> int:
    """The place of what follows a character, blanks skipped. Raises HostileInputError when it is not there."""
    if text[at : at + 1] != wanted:
        raise HostileInputError(f"The hub's list of steps is not JSON at character {at}: {wanted!r} was expected")
    return _skip(text, at + 1)
