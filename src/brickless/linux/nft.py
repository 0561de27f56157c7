"""Packet filter rules by netlink (include/uapi/linux/netfilter/nf_tables.h): one table of our own, replaced as a whole.

The programs nft and iptables-nft cost an initramfs 1.6 and 2.3 MB with their libraries; what a device needs of them is
a masquerade for each pool of addresses, and a wall between pools. IPv4.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import NamedTuple

NETLINK_NETFILTER = 12
SUBSYS_NFTABLES = 10
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NEWTABLE, DELTABLE, NEWCHAIN, NEWRULE = 0, 2, 3, 6
NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE, NLM_F_APPEND = 0x1, 0x4, 0x400, 0x800
NLMSG_ERROR = 2
NLA_F_NESTED = 0x8000
FAMILY_IPV4 = 2
HOOK_FORWARD, HOOK_POSTROUTING = 2, 4
PRIORITY_FILTER, PRIORITY_SRCNAT = 0, 100
REGISTER = 1
PAYLOAD_NETWORK_HEADER = 1
IPV4_SOURCE_AT = 12
META_IIFNAME, META_OIFNAME = 6, 7
CMP_EQ, CMP_NEQ = 0, 1
VERDICT_REGISTER, DROP = 0, 0
IFNAMSIZ = 16
TABLE = "brickless"
MODULES = ("nf_tables", "nf_nat", "nft_chain_nat", "nft_masq")
ANSWER_TIMEOUT_S = 5.0


class Masquerade(NamedTuple):
    """Packets from the network `address/prefix` that leave by another interface than `bridge` get the device's own."""

    address: bytes
    prefix: int
    bridge: str


class Wall(NamedTuple):
    """Nothing is forwarded from one interface to the other."""

    source: str
    target: str


def attribute(kind: int, data: bytes) -> bytes:
    """`struct nlattr` with its data, padded."""
    return struct.pack("=HH", len(data) + 4, kind) + data.ljust(-(-len(data) // 4) * 4, b"\0")


def nested(kind: int, *inner: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(inner))


def _text(kind: int, text: str) -> bytes:
    return attribute(kind, text.encode() + b"\0")


def _number(kind: int, number: int) -> bytes:
    return attribute(kind, struct.pack(">I", number & 0xFFFFFFFF))


def _expression(name: str, *data: bytes) -> bytes:
    return nested(1, _text(1, name), nested(2, *data))


def _compare(operation: int, value: bytes) -> bytes:
    return _expression("cmp", _number(1, REGISTER), _number(2, operation), nested(3, attribute(1, value)))


def _interface(key: int, operation: int, name: str) -> list[bytes]:
    raw = name.encode().ljust(IFNAMSIZ, b"\0")
    return [_expression("meta", _number(2, key), _number(1, REGISTER)), _compare(operation, raw)]


def _masquerade(rule: Masquerade) -> list[bytes]:
    mask = (0xFFFFFFFF << (32 - rule.prefix) & 0xFFFFFFFF).to_bytes(4, "big")
    network = bytes(octet & bits for octet, bits in zip(rule.address, mask, strict=True))
    load = [_number(1, REGISTER), _number(2, PAYLOAD_NETWORK_HEADER), _number(3, IPV4_SOURCE_AT), _number(4, 4)]
    bits = [_number(1, REGISTER), _number(2, REGISTER), _number(3, 4)]
    bits += [nested(4, attribute(1, mask)), nested(5, attribute(1, bytes(4)))]
    return [
        _expression("payload", *load),
        _expression("bitwise", *bits),
        _compare(CMP_EQ, network),
        *_interface(META_OIFNAME, CMP_NEQ, rule.bridge),
        _expression("masq"),
    ]


def _wall(rule: Wall) -> list[bytes]:
    verdict = nested(2, nested(2, _number(1, DROP)))
    return [
        *_interface(META_IIFNAME, CMP_EQ, rule.source),
        *_interface(META_OIFNAME, CMP_EQ, rule.target),
        _expression("immediate", _number(1, VERDICT_REGISTER), verdict),
    ]


def _chain(name: str, kind: str, hook: int, priority: int) -> bytes:
    return b"".join(
        (_text(1, TABLE), _text(3, name), nested(4, _number(1, hook), _number(2, priority)), _text(7, kind))
    )


def _rule(chain: str, expressions: list[bytes]) -> bytes:
    return _text(1, TABLE) + _text(2, chain) + nested(4, *expressions)


def messages(masquerades: list[Masquerade], walls: list[Wall]) -> list[tuple[int, int, bytes]]:
    """(message, flags, attributes) of one batch: our table gone, and made anew with these rules."""
    table = _text(1, TABLE)
    # Made before it is deleted: deleting what is not there would fail.
    made = [(NEWTABLE, NLM_F_CREATE, table), (DELTABLE, 0, table), (NEWTABLE, NLM_F_CREATE, table)]
    made.append((NEWCHAIN, NLM_F_CREATE, _chain("postrouting", "nat", HOOK_POSTROUTING, PRIORITY_SRCNAT)))
    made.append((NEWCHAIN, NLM_F_CREATE, _chain("forward", "filter", HOOK_FORWARD, PRIORITY_FILTER)))
    append = NLM_F_CREATE | NLM_F_APPEND
    made += [(NEWRULE, append, _rule("postrouting", _masquerade(rule))) for rule in masquerades]
    made += [(NEWRULE, append, _rule("forward", _wall(rule))) for rule in walls]
    return made


def _message(kind: int, flags: int, number: int, family: int, resource: int, body: bytes) -> bytes:
    payload = struct.pack(">BBH", family, 0, resource) + body
    return struct.pack("=IHHII", len(payload) + 16, kind, flags | NLM_F_REQUEST, number, 0) + payload


def batch(parts: list[tuple[int, int, bytes]]) -> bytes:
    """All messages as one transaction; the n-th asks for an answer under the number n, counted from 1."""
    out = [_message(BATCH_BEGIN, 0, 0, 0, SUBSYS_NFTABLES, b"")]
    for number, (kind, flags, body) in enumerate(parts, 1):
        out.append(_message(SUBSYS_NFTABLES << 8 | kind, flags | NLM_F_ACK, number, FAMILY_IPV4, 0, body))
    out.append(_message(BATCH_END, 0, len(parts) + 1, 0, SUBSYS_NFTABLES, b""))
    return b"".join(out)


def replace(masquerades: list[Masquerade], walls: list[Wall]) -> None:
    """Replace our table: all rules or none. Raises `OSError` with what the kernel refused."""
    parts = messages(masquerades, walls)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as door:
        door.bind((0, 0))
        door.settimeout(ANSWER_TIMEOUT_S)
        door.send(batch(parts))
        answered = 0
        while answered < len(parts):
            for number, code in answers(door.recv(65536)):
                answered += 1
                if code:
                    raise OSError(code, f"{os.strerror(code)} (packet filter rules, message {number} of {len(parts)})")


def answers(data: bytes) -> list[tuple[int, int]]:
    """(number of the message, errno) of each acknowledgement."""
    found: list[tuple[int, int]] = []
    while len(data) >= 16:
        length, kind, _, number, _ = struct.unpack_from("=IHHII", data)
        if length < 16 or length > len(data):
            raise OSError(errno.EBADMSG, "a netlink message does not end where it says")
        if kind == NLMSG_ERROR and length >= 20:
            found.append((number, -struct.unpack_from("=i", data, 16)[0]))
        data = data[-(-length // 4) * 4 :]
    return found
