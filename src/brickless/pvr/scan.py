"""Looking for devices on the local network (pvr.md 7.8): sends the question, listens, hands packets to `dnssd`."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack

from brickless.pvr.dnssd import MAX_PACKET_BYTES, Browser, Device, query

GROUP = "224.0.0.251"
PORT = 5353
TIMEOUT_S = 15.0
# The question is asked again, at growing distances: packets get lost, and radios sleep (RFC 6762, 5.2).
_ASK_AT_S = (0.0, 1.0, 3.0, 7.0)
MAX_PACKETS = 20000


def scan(
    *,
    timeout_s: float = TIMEOUT_S,
    target: tuple[str, int] = (GROUP, PORT),
    found: Callable[[Device], None] = lambda _: None,
) -> list[Device]:
    """Ask and listen for `timeout_s`; `found` hears of each device once, as soon as it is complete.

    Raises OSError when there is no network to ask.
    """
    browser = Browser()
    told: set[str] = set()
    with ExitStack() as stack:
        sockets = [stack.enter_context(opened) for opened in _sockets(target)]
        start = time.monotonic()
        asks = [start + delay for delay in _ASK_AT_S if delay < timeout_s]
        packets = 0
        while (now := time.monotonic()) < start + timeout_s and packets < MAX_PACKETS:
            if asks and now >= asks[0]:
                asks.pop(0)
                sockets[0].sendto(query(), target)
            until = min([start + timeout_s, *asks[:1]])
            ready, _, _ = select.select(sockets, [], [], max(0.0, until - now))
            for one in ready:
                browser.feed(one.recv(MAX_PACKET_BYTES + 1))
                packets += 1
            for device in browser.devices() if ready else ():
                if device.id not in told and (device.ipv4 or device.ipv6):
                    told.add(device.id)
                    found(device)
    rest = browser.devices()
    for device in rest:
        if device.id not in told:
            found(device)
    return rest


def _sockets(target: tuple[str, int]) -> list[socket.socket]:
    """The socket that asks (answers by unicast come back to it), and one in the group for who answers everybody."""
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asking.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
    opened = [asking]
    if target != (GROUP, PORT):
        return opened
    listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(("", PORT))
        listening.setsockopt(
            socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("4s4s", socket.inet_aton(GROUP), b"\0" * 4)
        )
    except OSError:
        # Another responder on this machine may hold the port; answers by unicast still reach us.
        listening.close()
        return opened
    return [*opened, listening]
