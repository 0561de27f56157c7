"""Webhooks: what is sent, how it is signed, when it is tried again, and where it may never go. Pure.

The headers and the signature are those of the Standard Webhooks specification, so that a receiver finds a library for
them in its language; the body is one CloudEvent in structured JSON.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from brickless.hub.domain.errors import Malformed

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
PENDING, DELIVERED, FAILED = "pending", "delivered", "failed"
#: Seconds from a failed attempt to the next: nine attempts within about a day and a half.
BACKOFF_S = (5, 30, 120, 600, 1800, 2 * 3600, 8 * 3600, 24 * 3600)
MAX_URL_CHARS = 1000
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where an account's events go. The secret is derived from `salt` and the hub's key: it lies in no database."""

    id: str
    account: str
    url: str
    kinds: str
    salt: str
    enabled: bool
    creator: str
    created_ms: int
    modified_ms: int

    @property
    def patterns(self) -> tuple[str, ...]:
        """Which kinds of events it wants."""
        return tuple(self.kinds.split())


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one webhook. `status` is the last answer's, 0 for none; no `error`: all went well."""

    id: str
    webhook_id: str
    event_id: str
    kind: str
    payload: str
    state: str
    attempts: int
    due_ms: int
    status: int
    error: str
    created_ms: int
    done_ms: int


def secret_text(key: bytes) -> str:
    """The secret as receivers' libraries take it."""
    return f"whsec_{base64.b64encode(key).decode()}"


def headers(key: bytes, message_id: str, time_s: int, body: bytes) -> dict[str, str]:
    """The headers that prove who sends, and when: id, timestamp and signature."""
    signed = f"{message_id}.{time_s}.".encode() + body
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {
        "content-type": CONTENT_TYPE,
        "webhook-id": message_id,
        "webhook-timestamp": str(time_s),
        "webhook-signature": f"v1,{signature}",
        "user-agent": "brickless-hub",
    }


def check_url(url: str) -> None:
    """Raise Malformed for what is no address of a web server, or holds a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Malformed("This is not an address") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or len(url) > MAX_URL_CHARS or not url.isprintable():
        raise Malformed("An address such as https://example.com/hook is expected")
    if parts.username is not None or parts.password is not None or parts.fragment or port == 0:
        raise Malformed("The address must not hold a name, a password or a fragment; the signature proves who sends")


def next_due_ms(attempts: int, now_ms: int) -> int | None:
    """When to try again after this many attempts; None when it is given up."""
    return now_ms + BACKOFF_S[attempts - 1] * 1000 if attempts <= len(BACKOFF_S) else None


def _inside(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else address


def reachable(address: Address, scheme: str, allowed: tuple[Network, ...]) -> bool:
    """Whether a webhook may go to this address: public ones over TLS, and whatever the operator allowed.

    Everything else (loopback, private, link-local with the clouds' metadata, multicast, reserved) could reach what
    only the hub can reach.
    """
    if any(address.version == network.version and address in network for network in allowed):
        return True
    inside = _inside(address)
    return scheme == "https" and address.is_global and inside.is_global and not inside.is_multicast
