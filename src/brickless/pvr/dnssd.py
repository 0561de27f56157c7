"""DNS messages of local discovery (mDNS, RFC 6762; DNS-SD, RFC 6763), as far as finding devices needs them. Pure.

Packets come from anybody on the local network: sizes, counts and compression pointers are bounded, what is malformed
is dropped as a whole, and nothing here recurses.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from typing import NamedTuple

from brickless.core.errors import HostileInputError

SERVICE = "_ssh._tcp.local"
MAX_PACKET_BYTES = 9000
MAX_RECORDS = 256
MAX_NAME_BYTES = 255
MAX_DEVICES = 512
MAX_RECORDS_KEPT = 8192
A, PTR, TXT, AAAA, SRV = 1, 12, 16, 28, 33
_CLASS_IN = 1
_UNICAST = 0x8000
_RESPONSE = 0x8000
_HEADER = struct.Struct("!6H")


class Record(NamedTuple):
    """One resource record that we know: `data` is a name, an address, or the fields of a TXT or SRV."""

    name: str
    type: int
    data: str | tuple[int, str] | tuple[tuple[str, str], ...]


class Device(NamedTuple):
    """A device that announced itself; `challenge` is "" when it is owned."""

    id: str
    hub: str
    challenge: str
    host: str
    port: int
    ipv4: tuple[str, ...]
    ipv6: tuple[str, ...]


def query(service: str = SERVICE) -> bytes:
    """The question for all instances of a service; the answer may come by unicast."""
    return _HEADER.pack(0, 0, 1, 0, 0, 0) + _encode(service) + struct.pack("!2H", PTR, _CLASS_IN | _UNICAST)


def parse(packet: bytes) -> list[Record]:
    """Read a response. Raises HostileInputError for anything malformed; questions and unknown records are skipped."""
    if len(packet) > MAX_PACKET_BYTES or len(packet) < _HEADER.size:
        raise HostileInputError(f"an mDNS packet has {len(packet)} bytes")
    _, flags, questions, *counts = _HEADER.unpack_from(packet)
    if not flags & _RESPONSE:
        return []
    if questions + sum(counts) > MAX_RECORDS:
        raise HostileInputError(f"an mDNS packet announces {questions + sum(counts)} records")
    try:
        return list(_records(packet, questions, sum(counts)))
    except (struct.error, IndexError) as error:
        raise HostileInputError("an mDNS packet ends in the middle of a record") from error


def _records(packet: bytes, questions: int, count: int) -> Iterator[Record]:
    at = _HEADER.size
    for _ in range(questions):
        _, at = _name(packet, at)
        at += 4
    for _ in range(count):
        name, at = _name(packet, at)
        kind, class_, _, length = struct.unpack_from("!2HIH", packet, at)
        at += 10
        if at + length > len(packet):
            raise HostileInputError("an mDNS record is longer than its packet")
        if class_ & 0x7FFF == _CLASS_IN:
            data = _data(packet, kind, at, length)
            if data is not None:
                yield Record(name, kind, data)
        at += length


def _data(packet: bytes, kind: int, at: int, length: int) -> str | tuple[int, str] | tuple[tuple[str, str], ...] | None:
    raw = packet[at : at + length]
    if kind == PTR:
        return _name(packet, at)[0]
    if kind == SRV:
        _, _, port = struct.unpack_from("!3H", packet, at)
        return port, _name(packet, at + 6)[0]
    if kind == TXT:
        return tuple(_text_items(raw))
    if (kind, length) in {(A, 4), (AAAA, 16)}:
        return str(ipaddress.ip_address(raw))
    return None


def _text_items(raw: bytes) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(raw):
        size = raw[at]
        key, equals, value = raw[at + 1 : at + 1 + size].partition(b"=")
        if at + 1 + size > len(raw):
            raise HostileInputError("a TXT item is longer than its record")
        if equals:
            yield key.decode("ascii", "replace").lower(), value.decode("utf-8", "replace")
        at += 1 + size


def _name(packet: bytes, at: int) -> tuple[str, int]:
    """Read a name, following compression pointers, each of which must lead further back (RFC 1035, 4.1.4)."""
    labels: list[str] = []
    end, limit, size = -1, at, 0
    while True:
        length = packet[at]
        if length & 0xC0 == 0xC0:
            target = struct.unpack_from("!H", packet, at)[0] & 0x3FFF
            end = at + 2 if end < 0 else end
            if target >= limit:
                raise HostileInputError("a compressed name points forwards or at itself")
            at = limit = target
            continue
        if length & 0xC0:
            raise HostileInputError("a name has a label of an unknown kind")
        if length == 0:
            return ".".join(labels), at + 1 if end < 0 else end
        size += length + 1
        if size > MAX_NAME_BYTES or at + 1 + length > len(packet):
            raise HostileInputError("a name is longer than 255 bytes, or than its packet")
        labels.append(packet[at + 1 : at + 1 + length].decode("utf-8", "replace"))
        at += 1 + length


def _encode(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in name.encode().split(b".")) + b"\0"


class Browser:
    """Collects records until a device is complete. Feed it packets; it never holds more than its bounds."""

    __slots__ = ("_records", "dropped")

    def __init__(self) -> None:
        self._records: dict[tuple[str, int], dict[object, None]] = {}
        self.dropped = 0

    def feed(self, packet: bytes) -> None:
        """Take one packet; a malformed one is counted in `dropped`."""
        try:
            records = parse(packet)
        except HostileInputError:
            self.dropped += 1
            return
        for record in records:
            key = (record.name.lower(), record.type)
            if key not in self._records and len(self._records) >= MAX_RECORDS_KEPT:
                self.dropped += 1
                return
            kept = self._records.setdefault(key, {})
            if record.type in {TXT, SRV}:
                kept.clear()  # these have one value: the newest
            if len(kept) < MAX_DEVICES:
                kept[record.data] = None

    def devices(self) -> list[Device]:
        """Return what announced itself as a device, by id; who has no device id is some other ssh server."""
        found: dict[str, Device] = {}
        for instance in self._texts(SERVICE, PTR):
            items = dict(self._text(instance))
            id_ = items.get("device-id", "")
            if id_ and len(found) < MAX_DEVICES:
                port, host = self._service(instance)
                addresses = (self._texts(host, A), self._texts(host, AAAA))
                found[id_] = Device(
                    id_, items.get("pantahub", ""), items.get("challenge", ""), host, port, *map(tuple, addresses)
                )
        return [found[key] for key in sorted(found)]

    def _values(self, name: str, kind: int) -> list[object]:
        return list(self._records.get((name.lower(), kind), ()))

    def _texts(self, name: str, kind: int) -> list[str]:
        return sorted(value for value in self._values(name, kind) if isinstance(value, str))

    def _text(self, instance: str) -> list[tuple[str, str]]:
        return [item for value in self._values(instance, TXT) if isinstance(value, tuple) for item in value]

    def _service(self, instance: str) -> tuple[int, str]:
        for value in self._values(instance, SRV):
            if isinstance(value, tuple) and len(value) == 2:
                port, host = value
                return int(port), str(host)
        return 0, ""
