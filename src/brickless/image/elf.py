"""A small reader of ELF files (64-bit, little-endian): which libraries a program needs, what a kernel module says.

It reads foreign bytes: every offset is checked against the file, and a fault is a `HostileInputError` with its name.
Source: System V ABI, chapters 4 and 5.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from brickless.core.errors import HostileInputError

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_DYNAMIC = struct.Struct("<qQ")
_SYMBOL = struct.Struct("<IBBHQQ")
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NULL, DT_NEEDED, DT_STRTAB, DT_STRSZ = 0, 1, 5, 10
MAX_STRING_BYTES = 4096
MAGIC = b"\x7fELF"


class Dynamic(NamedTuple):
    """What the dynamic loader is asked for: `interpreter` is empty for a library or a static program."""

    interpreter: str
    needed: tuple[str, ...]


class Symbols(NamedTuple):
    """Names that a file takes from other libraries, and names that it has for others."""

    taken: frozenset[str]
    offered: frozenset[str]


class _Segment(NamedTuple):
    kind: int
    offset: int
    address: int
    size: int


def is_elf(data: bytes) -> bool:
    """Whether the bytes start as an ELF file."""
    return data[:4] == MAGIC


def dynamic(data: bytes, name: str) -> Dynamic:
    """The interpreter and the needed libraries of a program or a library; `name` is for the error."""
    segments = _segments(data, name)
    interpreter = ""
    needed: tuple[str, ...] = ()
    for segment in segments:
        if segment.kind == PT_INTERP:
            interpreter = (
                _cut(data, segment.offset, segment.size, name).rstrip(b"\0").decode("utf-8", "surrogateescape")
            )
        elif segment.kind == PT_DYNAMIC:
            needed = _needed(data, segment, segments, name)
    return Dynamic(interpreter, needed)


def symbols(data: bytes, name: str) -> Symbols:
    """What a program or library exchanges with others when it is loaded; `name` is for the error."""
    raw, strings = section(data, ".dynsym", name), section(data, ".dynstr", name)
    taken: set[str] = set()
    offered: set[str] = set()
    for entry in _SYMBOL.iter_unpack(raw[: len(raw) - len(raw) % _SYMBOL.size]):
        # An index of section 0 says that it lies elsewhere.
        (offered if entry[3] else taken).add(_string(strings, entry[0], name))
    return Symbols(frozenset(taken - {""}), frozenset(offered - {""}))


def without(data: bytes, libraries: frozenset[str], name: str) -> bytes:
    """The same file, which asks the loader for none of these libraries any more."""
    segments = _segments(data, name)
    for segment in segments:
        if segment.kind == PT_DYNAMIC:
            return _without(data, segment, segments, libraries, name)
    return data


def _without(data: bytes, segment: _Segment, segments: list[_Segment], libraries: frozenset[str], name: str) -> bytes:
    raw = _cut(data, segment.offset, segment.size - segment.size % _DYNAMIC.size, name)
    entries = list(_DYNAMIC.iter_unpack(raw))
    needed = iter(_needed(data, segment, segments, name))
    kept = [one for one in entries if one[0] != DT_NEEDED or next(needed) not in libraries]
    # The table keeps its size: what is left of it is DT_NULL, which ends it.
    table = b"".join(_DYNAMIC.pack(*one) for one in kept).ljust(len(raw), b"\0")
    return data[: segment.offset] + table + data[segment.offset + len(raw) :]


def _needed(data: bytes, segment: _Segment, segments: list[_Segment], name: str) -> tuple[str, ...]:
    offsets: list[int] = []
    table = size = 0
    raw = _cut(data, segment.offset, segment.size - segment.size % _DYNAMIC.size, name)
    for tag, value in _DYNAMIC.iter_unpack(raw):
        if tag == DT_NULL:
            break
        if tag == DT_NEEDED:
            offsets.append(value)
        elif tag == DT_STRTAB:
            table = value
        elif tag == DT_STRSZ:
            size = value
    strings = _cut(data, _file_offset(table, segments, name), size, name) if offsets else b""
    return tuple(_string(strings, offset, name) for offset in offsets)


def _file_offset(address: int, segments: list[_Segment], name: str) -> int:
    for one in segments:
        if one.kind == PT_LOAD and one.address <= address < one.address + one.size:
            return address - one.address + one.offset
    raise HostileInputError(f"{name}: the address {address:#x} lies in no segment of this ELF file")


def _segments(data: bytes, name: str) -> list[_Segment]:
    header = _header(data, name)
    offset, size, count = header[5], header[9], header[10]
    if count and size != _PROGRAM.size:
        raise HostileInputError(f"{name}: program headers of {size} bytes, not {_PROGRAM.size}")
    table = _cut(data, offset, size * count, name)
    return [_Segment(one[0], one[2], one[3], one[5]) for one in _PROGRAM.iter_unpack(table)]


def _header(data: bytes, name: str) -> tuple[int, ...]:
    raw = _cut(data, 0, _HEADER.size, name)
    header: tuple[int, ...] = _HEADER.unpack(raw)
    if not is_elf(data) or data[4] != 2 or data[5] != 1:
        raise HostileInputError(f"{name}: no 64-bit little-endian ELF file")
    return header


def section(data: bytes, wanted: str, name: str) -> bytes:
    """The bytes of the section `wanted` (`.modinfo`), empty when there is none."""
    header = _header(data, name)
    offset, size, count, names_index = header[6], header[11], header[12], header[13]
    if count and size != _SECTION.size:
        raise HostileInputError(f"{name}: section headers of {size} bytes, not {_SECTION.size}")
    sections = list(_SECTION.iter_unpack(_cut(data, offset, size * count, name)))
    if names_index >= len(sections):
        raise HostileInputError(f"{name}: the table of section names is section {names_index} of {len(sections)}")
    names = _cut(data, sections[names_index][4], sections[names_index][5], name)
    for one in sections:
        if _string(names, one[0], name) == wanted:
            return _cut(data, one[4], one[5], name)
    return b""


def _string(table: bytes, offset: int, name: str) -> str:
    end = table.find(b"\0", offset, offset + MAX_STRING_BYTES)
    if offset >= len(table) or end < 0:
        raise HostileInputError(f"{name}: a string at {offset} leaves its table of {len(table)} bytes")
    return table[offset:end].decode("utf-8", "surrogateescape")


def _cut(data: bytes, offset: int, size: int, name: str) -> bytes:
    if offset + size > len(data):
        raise HostileInputError(f"{name}: {size} bytes at {offset} leave the file of {len(data)} bytes")
    return data[offset : offset + size]
