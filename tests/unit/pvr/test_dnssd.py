"""Local discovery: what a device says, and packets that must not harm who listens."""

from __future__ import annotations

import socket
import struct
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickless.core.errors import HostileInputError
from brickless.pvr import dnssd, scan
from brickless.pvr.dnssd import AAAA, PTR, SRV, TXT, A, Browser, Device, Record


def name(text: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in text.split(".")) + b"\0"


def record(owner: bytes, kind: int, data: bytes, class_: int = 0x8001) -> bytes:
    return owner + struct.pack("!2HIH", kind, class_, 120, len(data)) + data


def response(*records: bytes) -> bytes:
    return struct.pack("!6H", 0, 0x8400, 0, len(records), 0, 0) + b"".join(records)


def txt(**items: str) -> bytes:
    return b"".join(bytes([len(key) + 1 + len(value)]) + f"{key}={value}".encode() for key, value in items.items())


INSTANCE = "gate._ssh._tcp.local"


def announcement(id_: str = "5f1", instance: str = INSTANCE, **items: str) -> bytes:
    texts = {"pantahub": "https://api.example.org", "device-id": id_, **items}
    return response(
        record(name("_ssh._tcp.local"), PTR, name(instance)),
        record(name(instance), SRV, struct.pack("!3H", 0, 0, 8222) + name("gate.local")),
        record(name(instance), TXT, b"".join(txt(**{key: value}) for key, value in texts.items())),
        record(name("gate.local"), A, bytes([192, 168, 1, 7])),
        record(name("gate.local"), AAAA, bytes(15) + b"\1"),
    )


DEVICE = Device("5f1", "https://api.example.org", "a-b-c", "gate.local", 8222, ("192.168.1.7",), ("::1",))


def test_a_device_is_found_with_all_it_says() -> None:
    browser = Browser()
    browser.feed(announcement(challenge="a-b-c"))
    assert browser.devices() == [DEVICE]
    browser.feed(announcement())
    assert browser.devices() == [DEVICE._replace(challenge="")], "the newest text counts: it was claimed"


def test_a_device_may_come_in_several_packets_and_in_capitals() -> None:
    browser = Browser()
    browser.feed(response(record(name("_SSH._tcp.LOCAL"), PTR, name(INSTANCE))))
    assert browser.devices() == []
    browser.feed(response(record(name(INSTANCE.upper()), TXT, txt(**{"Device-ID": "9"}))))
    assert [device.id for device in browser.devices()] == ["9"]


def test_other_ssh_servers_are_no_devices() -> None:
    browser = Browser()
    browser.feed(response(record(name("_ssh._tcp.local"), PTR, name(INSTANCE)), record(name(INSTANCE), TXT, b"\0")))
    assert browser.devices() == []


def test_compressed_names_are_followed_backwards_only() -> None:
    owner = name("_ssh._tcp.local")
    pointer = struct.pack("!H", 0xC000 | 12)
    found = dnssd.parse(response(record(owner, PTR, b"\4gate" + pointer)))
    assert found == [Record("_ssh._tcp.local", PTR, INSTANCE)]


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\0" * 11,
        bytes(9001),
        response(record(b"\xc0\x0c", PTR, b"\0")),
        response(record(b"\xc0\xff", PTR, b"\0")),
        response(record(b"\x80", PTR, b"\0")),
        response(record(name("x"), PTR, name("y")))[:-2],
        struct.pack("!6H", 0, 0x8400, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF),
        struct.pack("!6H", 0, 0x8400, 0, 200, 0, 0) + name("x"),
        response(record(name(".".join(["a" * 60] * 5)), PTR, b"\0")),
        response(record(name("x"), TXT, b"\xffshort")),
    ],
    ids=["empty", "short", "huge", "loop", "forward", "label", "cut", "counts", "missing", "long-name", "text"],
)
def test_packets_that_break_a_rule_are_dropped_whole(packet: bytes) -> None:
    with pytest.raises(HostileInputError):
        dnssd.parse(packet)
    browser = Browser()
    browser.feed(packet)
    assert browser.dropped == 1


def test_questions_are_no_answers() -> None:
    assert dnssd.parse(dnssd.query()) == []


def test_a_flood_stays_within_bounds() -> None:
    browser = Browser()
    for index in range(2 * dnssd.MAX_RECORDS_KEPT // 5):
        browser.feed(announcement(str(index), f"d{index}._ssh._tcp.local"))
    assert len(browser.devices()) <= dnssd.MAX_DEVICES


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_no_bytes_break_the_reader(packet: bytes) -> None:
    Browser().feed(packet)


@given(st.data())
@settings(max_examples=200)
def test_no_damage_to_a_packet_breaks_the_reader(data: st.DataObject) -> None:
    packet = bytearray(announcement(challenge="x"))
    for _ in range(data.draw(st.integers(1, 6))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    browser = Browser()
    browser.feed(bytes(packet))
    browser.devices()


def test_a_scan_asks_and_hears_the_answer() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as responder:
        responder.bind(("127.0.0.1", 0))
        responder.settimeout(10)

        def answer() -> None:
            question, sender = responder.recvfrom(9000)
            assert question == dnssd.query()
            responder.sendto(b"\xff" * 20, sender)
            responder.sendto(announcement(challenge="a-b-c"), sender)

        thread = threading.Thread(target=answer)
        thread.start()
        told: list[Device] = []
        found = scan.scan(timeout_s=0.8, target=responder.getsockname(), found=told.append)
        thread.join()
    assert found == told == [DEVICE]
