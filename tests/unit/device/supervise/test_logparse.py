"""The four encodings of the log sockets, and bytes that are none of them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.device.supervise.logparse import Record, parse

LEGACY = b"1\0forged\0app/main\0it broke\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (struct.pack("=ii", 0, len(LEGACY)) + LEGACY, [Record(1, "app-main", "it broke")]),
        (struct.pack("=ii", 256, 3) + b"cmd", []),
        (b"<11>Nov 25 12:00:01 cron[12]: run parts", [Record(1, "cron", "run parts")]),
        (b"<30>ntp: on\n<28>ntp: no memory\n", [Record(3, "ntp", "on"), Record(2, "ntp", "no memory")]),
        (b"<165>1 2026-11-25T12:00:00Z host app 9 ID7 [x y=\"1\"] hello", [Record(3, "app", "hello")]),
        (b"<165>1 - - - - - - no words known", [Record(3, "log", "no words known")]),
        (b'{"version":"0","level":"ERROR","src":"web","message":"bad"}', [Record(1, "web", "bad")]),
        (b'{"version":"0","level":4,"src":"../../etc","message":"m"}', [Record(4, "etc", "m")]),
        (b"level=WARN src=db message=\"disk is full\"", [Record(2, "db", "disk is full")]),
        (b"level=2 src=db message=full", [Record(2, "db", "full")]),
        (b"just a line\nand another\0", [Record(3, "log", "just a line"), Record(3, "log", "and another")]),
        (b"{no json", [Record(3, "log", "{no json")]),
        (b"<>", [Record(3, "log", "<>")]),
        (b"\n\n\0", []),
        (b"", []),
    ],
    ids=["binary", "command", "rfc3164", "two", "rfc5424", "rfc5424-nil", "json", "json-path", "logfmt", "logfmt-plain",
         "plain", "half-json", "half-syslog", "blank", "nothing"],
)  # fmt: skip
def test_encodings(data: bytes, expected: list[Record]) -> None:
    assert list(parse(data)) == expected


@given(st.binary(max_size=300))
def test_any_bytes_give_records_whose_source_is_a_file_name(data: bytes) -> None:
    for record in parse(data):
        assert 0 <= record.level <= 6
        assert record.source
        assert "/" not in record.source
        assert not record.source.startswith(".")
