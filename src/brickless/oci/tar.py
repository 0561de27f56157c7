"""Tar archives as image layers use them: a strict reader for hostile bytes, and a writer of one spelling.

The reader knows POSIX ustar and pax, GNU long names and sparse files, and v7. Where programs are known to read the same
bytes differently (global headers that set names, a lone zero block in the middle), it refuses instead of guessing.
Names are bytes: nothing here assumes a character set. Content is never read, only its place in the archive is noted.
Source: POSIX.1-2017 pax, GNU tar manual "Basic Tar Format", OCI image specification 1.1 "layer".
"""

from __future__ import annotations

import base64
import binascii
import stat
from collections.abc import Iterator
from typing import IO, NamedTuple

from brickless.core.errors import HostileInputError
from brickless.oci.limits import DEFAULT, Limits

BLOCK = 512
FILE, LINK, SYMLINK, CHAR, BLOCK_DEVICE, FOLDER, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
CONTIGUOUS, OLD_FILE, GNU_SPARSE = b"7", b"\0", b"S"
PAX, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_LINK = b"x", b"g", b"L", b"K"
KNOWN = {FILE, LINK, SYMLINK, CHAR, BLOCK_DEVICE, FOLDER, FIFO, CONTIGUOUS, OLD_FILE, GNU_SPARSE}
WITHOUT_CONTENT = {LINK, SYMLINK, CHAR, BLOCK_DEVICE, FOLDER, FIFO}
SCHILY, LIBARCHIVE = b"SCHILY.xattr.", b"LIBARCHIVE.xattr."
ZERO_BLOCK = bytes(BLOCK)
# Long name, long link, pax and global header may precede one entry; more is someone filling our memory.
MAX_SPECIALS = 16
_FILE_TYPES = {
    FILE: stat.S_IFREG,
    SYMLINK: stat.S_IFLNK,
    CHAR: stat.S_IFCHR,
    BLOCK_DEVICE: stat.S_IFBLK,
    FOLDER: stat.S_IFDIR,
    FIFO: stat.S_IFIFO,
}


class TarError(HostileInputError):
    """The bytes are no tar archive, or break its rules; the message names the entry or the offset."""


class Segment(NamedTuple):
    """A run of content: `size` bytes that belong at `logical` lie at `offset` of the archive."""

    logical: int
    size: int
    offset: int


class Entry:
    """One member of an archive. `name` is as written there; `segments` say where its content lies."""

    __slots__ = (
        "gid",
        "link",
        "major",
        "minor",
        "mode",
        "mtime_s",
        "name",
        "segments",
        "size",
        "type",
        "uid",
        "xattrs",
    )

    def __init__(self, name: bytes, type: bytes = FILE, *, mode: int = 0o644, link: bytes = b"", size: int = 0) -> None:  # noqa: A002 the standard's own field name
        self.name = name
        self.type = type
        self.mode = mode
        self.uid = 0
        self.gid = 0
        self.mtime_s = 0
        self.link = link
        self.major = 0
        self.minor = 0
        self.size = size
        self.segments: tuple[Segment, ...] = ()
        self.xattrs: dict[bytes, bytes] | None = None

    def st_mode(self) -> int:
        """Type and permissions as stat(2) has them."""
        return _FILE_TYPES[self.type] | self.mode

    def __repr__(self) -> str:
        return f"Entry({self.name!r}, {self.type!r}, mode={self.mode:#o}, size={self.size})"


def read(stream: IO[bytes], *, what: str = "tar archive", limits: Limits = DEFAULT) -> Iterator[Entry]:
    """The members of a seekable archive, in its order. Raises `TarError`."""
    return _Reader(stream, what, limits).entries()


class _Reader:
    def __init__(self, stream: IO[bytes], what: str, limits: Limits) -> None:
        self.stream = stream
        self.what = what
        self.limits = limits
        self.offset = 0
        self.end = stream.seek(0, 2)
        self.extended: dict[bytes, bytes] = {}
        self.sparse_pairs: list[bytes] = []
        self.count = 0

    def fail(self, message: str) -> TarError:
        return TarError(f"{self.what}: {message}", context=f"at byte {self.offset}")

    def entries(self) -> Iterator[Entry]:
        specials = 0
        while (header := self.header()) is not None:
            kind, size = header[156:157], self.number(header, 124, 12, "size")
            if size < 0:
                raise self.fail("an entry has a negative size")
            body = self.offset + BLOCK
            if kind in (PAX, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_LINK):
                specials += 1
                if specials > MAX_SPECIALS:
                    raise self.fail("one extended header after the other")
                self.special(kind, self.body(body, size))
                self.offset = body + _padded(size)
                continue
            self.count += 1
            if self.count > self.limits.entries:
                raise self.fail(f"more than {self.limits.entries} entries")
            entry, end = self.entry(header, kind, size, body)
            if end > self.end:
                raise self.fail(f"cut off in the content of {entry.name!r}")
            self.extended, self.sparse_pairs, specials = {}, [], 0
            self.offset = body + _padded(end - body)
            yield entry
        if self.extended:
            raise self.fail("ends behind an extended header")

    def header(self) -> bytes | None:
        """The next header block, or None at the end of the archive."""
        if self.offset >= self.end:
            return None  # an archive without its end marker: every reader accepts that
        self.stream.seek(self.offset)
        block = self.stream.read(BLOCK)
        if len(block) < BLOCK:
            raise self.fail("cut off in a header")
        if block == ZERO_BLOCK:
            if self.stream.read(BLOCK) not in (ZERO_BLOCK, b""):
                raise self.fail("a lone zero block in the middle, which programs read differently")
            return None
        recorded = self.number(block, 148, 8, "checksum")
        unsigned = sum(block) - sum(block[148:156]) + 8 * 0x20
        if recorded != unsigned and recorded != unsigned - 256 * _high_bytes(block):
            raise self.fail("no tar header here: its checksum is wrong")
        return block

    def body(self, offset: int, size: int) -> bytes:
        if size > self.limits.extended_header_bytes:
            raise self.fail(f"an extended header of {size} bytes")
        self.stream.seek(offset)
        data = self.stream.read(size)
        if len(data) < size:
            raise self.fail("cut off in an extended header")
        return data

    def special(self, kind: bytes, data: bytes) -> None:
        if kind == PAX:
            self.extended.update(self.records(data))
        elif kind == GNU_LONG_NAME:
            self.extended[b"path"] = data.partition(b"\0")[0]
        elif kind == GNU_LONG_LINK:
            self.extended[b"linkpath"] = data.partition(b"\0")[0]
        else:
            keys = set(self.records(data)) - {b"comment"}
            if keys:
                raise self.fail(f"a global header sets {sorted(keys)!r}, which programs read differently")

    def records(self, data: bytes) -> dict[bytes, bytes]:
        """The `length key=value\\n` records of a pax header."""
        found: dict[bytes, bytes] = {}
        place = 0
        while place < len(data):
            blank = data.find(b" ", place, place + 20)
            digits = data[place:blank]
            if blank < 0 or not digits.isdigit():
                raise self.fail("a pax record without a length")
            end = place + int(digits)
            key, equals, value = data[blank + 1 : end - 1].partition(b"=")
            if end > len(data) or end <= blank or data[end - 1 : end] != b"\n" or not equals or not key:
                raise self.fail("a pax record whose length is wrong")
            if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                self.sparse_pairs.append(value)
            found[key] = value
            place = end
        return found

    def entry(self, header: bytes, kind: bytes, size: int, body: int) -> tuple[Entry, int]:
        """The member, and where its content ends in the archive."""
        if kind not in KNOWN:
            raise self.fail(f"an entry of the unknown type {kind!r}")
        pax = self.extended
        entry = Entry(pax.get(b"path") or self.name(header), kind, mode=self.number(header, 100, 8, "mode") & 0o7777)
        entry.uid = self.decimal(b"uid") if b"uid" in pax else self.number(header, 108, 8, "uid")
        entry.gid = self.decimal(b"gid") if b"gid" in pax else self.number(header, 116, 8, "gid")
        entry.mtime_s = self.time() if pax.get(b"mtime") else self.number(header, 136, 12, "mtime")
        entry.link = pax.get(b"linkpath") or _text(header[157:257])
        entry.xattrs = self.xattrs()
        self.refine(entry, header)
        stored = 0 if entry.type in WITHOUT_CONTENT else self.decimal(b"size") if b"size" in pax else size
        end = self.place(entry, header, kind, stored, body) if entry.type == FILE else body + stored
        for label, value in (("uid", entry.uid), ("gid", entry.gid)):
            if not 0 <= value < 1 << 32:
                raise self.fail(f"{entry.name!r} has the {label} {value}")
        return entry, end

    def refine(self, entry: Entry, header: bytes) -> None:
        """Old spellings of types; device numbers; what must be there."""
        if entry.type in (OLD_FILE, FILE, CONTIGUOUS, GNU_SPARSE):
            is_folder = entry.type == OLD_FILE and entry.name.endswith(b"/")
            entry.type = FOLDER if is_folder else FILE
        if entry.type in (CHAR, BLOCK_DEVICE):
            entry.major = self.number(header, 329, 8, "device number")
            entry.minor = self.number(header, 337, 8, "device number")
            if not (0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20):
                raise self.fail(f"{entry.name!r} has the device number {entry.major}:{entry.minor}")
        if b"\0" in entry.name or b"\0" in entry.link:
            raise self.fail(f"a name with a NUL in it: {entry.name!r}")
        if entry.type in (LINK, SYMLINK) and not entry.link:
            raise self.fail(f"the link {entry.name!r} leads nowhere")
        if entry.type not in (LINK, SYMLINK):
            entry.link = b""

    def name(self, header: bytes) -> bytes:
        name = _text(header[0:100])
        # Only POSIX ustar has a prefix there; old GNU archives keep times in the same place.
        prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else b""
        return prefix + b"/" + name if prefix else name

    def number(self, header: bytes, start: int, width: int, label: str) -> int:
        """An octal field, or GNU's base-256 for what does not fit."""
        field = header[start : start + width]
        if field[0] & 0x80:
            value = int.from_bytes(field, "big", signed=False) & ~(0x80 << 8 * (width - 1))
            return value - (1 << 8 * width - 1) if field[0] & 0x40 else value
        text = field.partition(b"\0")[0].strip(b" ")
        if not text:
            return 0
        if not text.isdigit() or b"8" in text or b"9" in text:
            raise self.fail(f"a header whose {label} is no number: {field!r}")
        return int(text, 8)

    def decimal(self, key: bytes) -> int:
        return self.digits(self.extended.get(key, b""), key.decode())

    def digits(self, text: bytes, label: str) -> int:
        if not text.isdigit() or len(text) > 20:
            raise self.fail(f"a pax header whose {label} is no number: {text[:40]!r}")
        return int(text)

    def time(self) -> int:
        whole = self.extended[b"mtime"].partition(b".")[0]
        negative = whole.startswith(b"-")
        value = self.digits(whole[1:] if negative else whole, "mtime")
        return -value if negative else value

    def xattrs(self) -> dict[bytes, bytes] | None:
        found: dict[bytes, bytes] = {}
        for key, value in self.extended.items():
            if key.startswith(SCHILY):
                found[key[len(SCHILY) :]] = value
            elif key.startswith(LIBARCHIVE):
                try:
                    found.setdefault(key[len(LIBARCHIVE) :], base64.b64decode(value + b"=" * (-len(value) % 4)))
                except binascii.Error:
                    raise self.fail(f"the extended attribute {key!r} is not base64") from None
        return found or None

    # Sparse files: which parts of the content the archive stores, and where they belong.

    def place(self, entry: Entry, header: bytes, kind: bytes, stored: int, body: int) -> int:
        """Note where the content of a file lies; where it ends in the archive."""
        pax, end = self.extended, body + stored
        if kind == GNU_SPARSE:
            # The extra blocks of the map are not part of the recorded size.
            fragments, at = self.old_gnu_map(header, body)
            self.fill(entry, fragments, self.number(header, 483, 12, "real size"), at, stored)
            end = at + stored
        elif pax.get(b"GNU.sparse.major") == b"1":
            fragments, at = self.pax_1_map(body, stored)
            self.fill(entry, fragments, self.decimal(b"GNU.sparse.realsize"), at, stored - (at - body))
        elif b"GNU.sparse.map" in pax or self.sparse_pairs:
            fragments = self.pax_0_map()
            self.fill(entry, fragments, self.decimal(b"GNU.sparse.size"), body, stored)
        else:
            entry.size = stored
            entry.segments = (Segment(0, stored, body),) if stored else ()
            return end
        entry.name = pax.get(b"GNU.sparse.name") or entry.name
        return end

    def old_gnu_map(self, header: bytes, body: int) -> tuple[list[tuple[int, int]], int]:
        fragments, more = self.gnu_pairs(header, 386, 4), header[482]
        while more:
            self.stream.seek(body)
            block = self.stream.read(BLOCK)
            if len(block) < BLOCK:
                raise self.fail("cut off in a sparse map")
            fragments += self.gnu_pairs(block, 0, 21)
            self.check_fragments(len(fragments))
            more, body = block[504], body + BLOCK
        return fragments, body

    def gnu_pairs(self, block: bytes, start: int, count: int) -> list[tuple[int, int]]:
        pairs = []
        for place in range(start, start + 24 * count, 24):
            if block[place] == 0:
                break
            pairs.append(
                (self.number(block, place, 12, "sparse map"), self.number(block, place + 12, 12, "sparse map"))
            )
        return pairs

    def pax_1_map(self, body: int, stored: int) -> tuple[list[tuple[int, int]], int]:
        self.stream.seek(body)
        lines = self.map_lines(stored)
        count = next(lines)
        self.check_fragments(count)
        fragments = [(next(lines), next(lines)) for _ in range(count)]
        return fragments, body + _padded(self.stream.tell() - body)

    def map_lines(self, stored: int) -> Iterator[int]:
        while True:
            line = self.stream.readline(24)
            stored -= len(line)
            if not line.endswith(b"\n") or stored < 0:
                raise self.fail("a sparse map that is cut off")
            yield self.digits(line[:-1], "sparse map")

    def pax_0_map(self) -> list[tuple[int, int]]:
        numbers = (
            self.extended[b"GNU.sparse.map"].split(b",") if b"GNU.sparse.map" in self.extended else self.sparse_pairs
        )
        self.check_fragments(len(numbers) // 2)
        if len(numbers) % 2:
            raise self.fail("a sparse map with an offset but no length")
        values = [self.digits(number, "sparse map") for number in numbers]
        return list(zip(values[::2], values[1::2], strict=True))

    def check_fragments(self, count: int) -> None:
        if count > self.limits.sparse_fragments:
            raise self.fail(f"a sparse file of {count} fragments")

    def fill(self, entry: Entry, fragments: list[tuple[int, int]], real: int, at: int, stored: int) -> None:
        logical, segments = 0, []
        for start, length in fragments:
            if start < logical or length < 0:
                raise self.fail(f"the sparse map of {entry.name!r} goes backwards")
            if length:
                segments.append(Segment(start, length, at))
            logical, at, stored = start + length, at + length, stored - length
        if logical > real or stored != 0:
            raise self.fail(f"the sparse map of {entry.name!r} does not agree with its size")
        entry.size = real
        entry.segments = tuple(segments)


def _high_bytes(block: bytes) -> int:
    """Bytes above 127 outside the checksum: some old programs added them up as signed."""
    return sum(1 for byte in block[:148] + block[156:] if byte > 127)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def padding(size: int) -> bytes:
    """The zeros that fill the last block behind `size` bytes."""
    return bytes(-size % BLOCK)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


END = ZERO_BLOCK * 2
_OCTAL_8, _OCTAL_12 = 0o7777777, 0o77777777777


def header(entry: Entry) -> bytes:
    """The header blocks of a member: ustar, preceded by a pax header for what does not fit into ustar."""
    records: list[tuple[bytes, bytes]] = []
    name = _fit(records, b"path", entry.name)
    link = _fit(records, b"linkpath", entry.link)
    uid = _fit_number(records, b"uid", entry.uid, _OCTAL_8)
    gid = _fit_number(records, b"gid", entry.gid, _OCTAL_8)
    size = _fit_number(records, b"size", entry.size, _OCTAL_12)
    mtime = _fit_number(records, b"mtime", entry.mtime_s, _OCTAL_12)
    for key, value in sorted((entry.xattrs or {}).items()):
        records.append((SCHILY + key, value))
    numbers = (entry.mode, uid, gid, size, mtime)
    block = _ustar(name, entry.type, link, numbers, (entry.major, entry.minor))
    if not records:
        return block
    body = b"".join(_record(key, value) for key, value in records)
    extended = _ustar(b"././@PaxHeader", PAX, b"", (0o644, 0, 0, len(body), 0), (0, 0))
    return extended + body + padding(len(body)) + block


def _fit(records: list[tuple[bytes, bytes]], key: bytes, value: bytes) -> bytes:
    if len(value) <= 100:
        return value
    records.append((key, value))
    return value[:100]


def _fit_number(records: list[tuple[bytes, bytes]], key: bytes, value: int, most: int) -> int:
    if 0 <= value <= most:
        return value
    records.append((key, b"%d" % value))
    return 0


def _record(key: bytes, value: bytes) -> bytes:
    """`length key=value\\n`, where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _ustar(
    name: bytes, kind: bytes, link: bytes, numbers: tuple[int, int, int, int, int], device: tuple[int, int]
) -> bytes:
    mode, uid, gid, size, mtime = numbers
    head = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0" % (name.ljust(100, b"\0"), mode, uid, gid, size, mtime)
    tail = b"%s%sustar\00000%s%07o\0%07o\0" % (kind, link.ljust(100, b"\0"), bytes(64), *device)
    tail = tail.ljust(BLOCK - 156, b"\0")
    checksum = sum(head) + sum(tail) + 8 * 0x20
    return b"%s%06o\0 %s" % (head, checksum, tail)
