"""Names of things: `prn:<domain>:<service>:<resource>` (contract section 0.5) and 24-character ids. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from brickless.hub.domain.errors import Malformed

DEFAULT_DOMAIN = "api.pantahub.com"
ID_PATTERN = re.compile(r"[0-9a-f]{24}\Z")
ANONYMOUS = "prn:pantahub.com:auth:/anon"
DEVICE_PREFIX = "prn:::devices:/"
_APIS = "prn:pantahub.com:apis:/"


class Prn(NamedTuple):
    """A parsed PRN; `id` is what follows the first slash of the resource."""

    domain: str
    service: str
    id: str


def parse(text: str) -> Prn:
    """Parse a PRN. Raises Malformed when it has not exactly four parts or its resource lacks the leading slash.

    Accounts and devices of the hub are written `prn:::accounts:/<id>`: with one more colon than the four parts need.
    """
    parts = text.split(":")
    if len(parts) == 5 and not parts[1] and not parts[2]:
        del parts[1]
    if len(parts) != 4 or parts[0] != "prn" or not parts[3].startswith("/"):
        raise Malformed(f"{text[:100]!r} is not a PRN")
    return Prn(parts[1] or DEFAULT_DOMAIN, parts[2], parts[3][1:])


def is_id(text: str) -> bool:
    """Whether `text` is a record id: 24 lower-case hex characters."""
    return ID_PATTERN.match(text) is not None


def require_id(text: str) -> str:
    """`text` when it is a record id, else Malformed."""
    if not is_id(text):
        raise Malformed(f"{text[:60]!r} is not an id: 24 lower-case hex characters are expected")
    return text


def account(record_id: str) -> str:
    """PRN of an account."""
    return f"prn:::accounts:/{record_id}"


def demo_account(nick: str) -> str:
    """PRN of a demo account."""
    return f"prn:pantahub.com:auth:/{nick}"


def anonymous(record_id: str) -> str:
    """PRN of one anonymous visitor."""
    return f"{ANONYMOUS}-{record_id}"


def is_anonymous(text: str) -> bool:
    """Whether a PRN is that of an anonymous visitor."""
    return text.startswith(ANONYMOUS)


def session(record_id: str) -> str:
    """PRN of a session account."""
    return f"prn:::sessions:/{record_id}"


def device(record_id: str) -> str:
    """PRN of a device."""
    return DEVICE_PREFIX + record_id


def join_token(record_id: str) -> str:
    """PRN of a device join token."""
    return f"prn:::devices-tokens:/{record_id}"


def api_token(record_id: str) -> str:
    """PRN of a personal API token."""
    return f"prn:::auth-tokens:/{record_id}"


def api_token_id(text: str) -> str | None:
    """The id in an API token's PRN, None when `text` is anything else."""
    prefix = api_token("")
    return text[len(prefix) :] if text.startswith(prefix) and is_id(text[len(prefix) :]) else None


def app(slug: str) -> str:
    """PRN of a third-party application."""
    return f"{_APIS}{slug}"


def is_app(text: str) -> bool:
    """Whether a login name is that of a third-party application."""
    return text.startswith(_APIS)


def device_id(text: str) -> str | None:
    """The id in a device's PRN, None when `text` is anything else."""
    if not text.startswith(DEVICE_PREFIX) or not is_id(text[len(DEVICE_PREFIX) :]):
        return None
    return text[len(DEVICE_PREFIX) :]
