"""What containers say over the log sockets, in the four encodings of device.md 5.9. Pure: bytes to records.

Who says it is not read from here: the socket that it came by tells.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

LEVELS = ("FATAL", "ERROR", "WARN", "INFO", "DEBUG", "TRACE", "ALL")
INFO = 3
MAX_TEXT_CHARS = 8192
LEGACY, COMMAND = 0, 256
_HEADER = struct.Struct("=ii")
# Syslog's severities (RFC 5424, table 2) as our levels.
_SEVERITY = (0, 0, 0, 1, 2, 3, 3, 4)
_OLD_SYSLOG = re.compile(
    r"(?:[A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d:\d\d )?(?:([A-Za-z0-9_./-]{1,64})(?:\[\d+\])?: )?(.*)", re.S
)
_NEW_SYSLOG = re.compile(r"1 \S+ \S+ (\S+) \S+ \S+ (?:-|(?:\[.*?[^\\]\])+) ?(.*)", re.S)
_PAIR = re.compile(r'(level|src|message)=(?:"((?:[^"\\]|\\.)*)"|(\S*))')
_SOURCE = re.compile(r"[^A-Za-z0-9_.-]+")
DEFAULT_SOURCE = "log"


class Record(NamedTuple):
    """One message: level as an index of LEVELS, where inside its container it comes from, one line or more of text."""

    level: int
    source: str
    text: str


def parse(data: bytes) -> Iterator[Record]:
    """The messages of one transmission: one binary record, or a line each."""
    if len(data) >= _HEADER.size:
        code, length = _HEADER.unpack_from(data)
        if code in (LEGACY, COMMAND) and length == len(data) - _HEADER.size:
            if code == LEGACY:
                yield _legacy(data[_HEADER.size :])
            return
    for raw in re.split(rb"[\n\0]", data):
        line = raw.decode("utf-8", "replace").strip("\r\n\0")
        if line.strip():
            yield _line(line[:MAX_TEXT_CHARS])


def _legacy(data: bytes) -> Record:
    fields = data.split(b"\0", 3)
    level, _platform, source, text = [one.decode("utf-8", "replace") for one in (*fields, b"", b"", b"", b"")[:4]]
    return Record(_level(level), parse_source(source), text.strip("\0\r\n")[:MAX_TEXT_CHARS])


def _line(line: str) -> Record:
    if line.startswith("<"):
        return _syslog(line)
    if line.startswith("{"):
        found = _json(line)
        if found is not None:
            return found
    pairs = {name: quoted or plain for name, quoted, plain in _PAIR.findall(line)}
    if "message" in pairs:
        return Record(_level(pairs.get("level", "")), parse_source(pairs.get("src", "")), pairs["message"])
    return Record(INFO, DEFAULT_SOURCE, line)


def _syslog(line: str) -> Record:
    number, bracket, rest = line[1:].partition(">")
    if not bracket or not number.isdigit() or len(number) > 3:
        return Record(INFO, DEFAULT_SOURCE, line)
    level = _SEVERITY[int(number) & 7]
    found = _NEW_SYSLOG.fullmatch(rest) or _OLD_SYSLOG.fullmatch(rest)
    if found is None:
        return Record(level, "syslog", rest)
    return Record(level, parse_source(found.group(1) or "syslog"), found.group(2))


def _json(line: str) -> Record | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("message"), str):
        return None
    return Record(_level(str(value.get("level", ""))), parse_source(str(value.get("src", ""))), value["message"])


def _level(text: str) -> int:
    if text.isdigit():
        return min(int(text[:2]), len(LEVELS) - 1)
    return LEVELS.index(text.upper()) if text.upper() in LEVELS else INFO


def parse_source(text: str) -> str:
    """A name that may be a file's."""
    return _SOURCE.sub("-", text.lstrip("/")).strip(".-")[:64] or DEFAULT_SOURCE


def severity(priority: int) -> int:
    """The level of a syslog priority, as the kernel's log has it."""
    return _SEVERITY[priority & 7]
