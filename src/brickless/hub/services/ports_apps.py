"""Protocols of what applications, subscriptions and mail need from the database; see `ports`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from brickless.hub.domain.apps import App
from brickless.hub.domain.plans import Subscription


class Apps(Protocol):
    """Applications that are not deleted, except where said."""

    async def add(self, app: App) -> bool:
        """Insert; False when an application, deleted or not, has the PRN."""

    async def find(self, name: str) -> App | None:
        """The application with this id, PRN or nick."""

    async def of(self, owner: str) -> list[App]:
        """An account's applications, oldest first."""

    async def update(self, app: App) -> None:
        """Write back every field but id, PRN and nick."""

    async def exposing(self, limit: int) -> list[App]:
        """Those that offer scopes to others, oldest first."""


@dataclass(frozen=True, slots=True)
class Code:
    """A code of an authorization on its way. `account` is who agreed, empty until somebody did."""

    id: str
    client: str
    redirect_uri: str
    challenge: str
    scope: str
    account: str
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Grant:
    """That an account lets an application act for it."""

    id: str
    client: str
    owner: str
    comment: str
    scopes: str
    created_ms: int


class Authorizations(Protocol):
    """Codes and grants."""

    async def add_code(self, code: Code) -> None:
        """Insert, and forget those that are over."""

    async def code(self, code_id: str) -> Code | None:
        """One code, over or not."""

    async def agree(self, code_id: str, account: str) -> bool:
        """Bind a code to who agreed; False when somebody did already, or it is gone."""

    async def take_code(self, code_id: str) -> Code | None:
        """Remove and return a code: only one caller ever gets it."""

    async def add_grant(self, grant: Grant) -> None:
        """Insert."""

    async def grant(self, grant_id: str) -> Grant | None:
        """One grant."""


class Subscriptions(Protocol):
    """Plans of accounts."""

    async def of(self, subject: str) -> Subscription | None:
        """The account's subscription."""

    async def put(self, subscription: Subscription) -> None:
        """Insert or replace by subject."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A message that waits. `failure` is why the last attempt did not work."""

    id: str
    recipient: str
    subject: str
    body: str
    created_ms: int
    next_ms: int
    attempts: int = 0
    failure: str = ""


class Mails(Protocol):
    """Messages that wait for a mail server."""

    async def add(self, mail: Mail) -> None:
        """Insert."""

    async def due(self, now_ms: int, *, lease_ms: int) -> Mail | None:
        """The oldest message that is due. Nobody else gets it before `lease_ms` are over."""

    async def again(self, mail: Mail) -> None:
        """Write back when it is tried next, how often it was, and why it failed."""

    async def remove(self, mail_id: str) -> None:
        """Forget a message."""

    async def waiting(self) -> int:
        """How many there are."""


class Moved(NamedTuple):
    """Bytes of objects that went out of an account and came into it."""

    sent_bytes: int
    received_bytes: int


class TrafficRecords(Protocol):
    """What accounts sent and received, by month (`2026-11`)."""

    async def add(self, owner: str, month: str, moved: Moved) -> None:
        """Add to the month's sums."""

    async def of(self, owner: str, month: str) -> Moved:
        """The month's sums."""


class Certificates(Protocol):
    """Certificates of devices. PEM, of any size that a request's head may have."""

    def roots(self, pem: bytes) -> int:
        """How many roots a bundle holds. Raises Malformed for one that holds none, or what may not issue others."""

    def serial_of(self, pem: bytes, roots: bytes, *, now_ms: int) -> str:
        """The serial number in a certificate's subject (empty without one), when one of `roots` issued it.

        Raises Malformed for what is no certificate, Forbidden for one of somebody else's or out of its time.
        """
