"""What the use cases of operators need from outside: organisations, the audit log, events, webhooks, lists."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from brickless.hub.domain.audit import Entry
from brickless.hub.domain.events import Cursor, Event
from brickless.hub.domain.fleet_labels import Selector
from brickless.hub.domain.fleet_lists import ContainerCount, Page, Search
from brickless.hub.domain.jsontext import Value
from brickless.hub.domain.oidc import Endpoints
from brickless.hub.domain.values import Invitation, Membership
from brickless.hub.domain.webhooks import Delivery, Webhook


class Organisations(Protocol):
    """Who belongs to which organisation, and who is asked to. Organisations and members are PRNs of accounts."""

    async def role(self, org: str, member: str) -> str | None:
        """The role of an account, or of an API token of the organisation's own; None for everybody else."""

    async def set_role(self, org: str, member: str, role: str, now_ms: int) -> None:
        """Add a member, or change his role."""

    async def remove(self, org: str, member: str) -> bool:
        """End a membership; False when there was none."""

    async def members(self, org: str) -> list[Membership]:
        """Members by nick."""

    async def of(self, member: str) -> list[Membership]:
        """An account's memberships, by the organisations' nicks."""

    async def invite(self, invitation: Invitation) -> None:
        """Insert."""

    async def invitations(self, org: str) -> list[Invitation]:
        """Those that nobody accepted, newest first."""

    async def take_invitation(self, token_hash: str) -> Invitation | None:
        """Remove and return the invitation: it is accepted once."""

    async def revoke(self, org: str, record_id: str) -> bool:
        """Remove an invitation; False when there is none of this id."""

    async def dissolve(self, org: str) -> None:
        """Forget members, invitations, tokens and the account itself."""

    async def hand_over(self, device_id: str, old: str, new: str) -> None:
        """Give a device's steps, logs and the records of its objects to its new owner."""


class EventStream(Protocol):
    """What happened to an account's things, in the order in which it became true."""

    async def add(self, account: str, kind: str, subject: str, data: dict[str, Value], time_ms: int) -> None:
        """Append, in the transaction of what it tells. `subject` is the id of the thing."""

    async def after(self, account: str, cursor: Cursor, *, limit: int) -> list[Event]:
        """Events after a place, in order."""

    async def latest(self, account: str, *, limit: int) -> list[Event]:
        """The newest events, newest first."""

    async def end(self) -> Cursor:
        """The place after every account's last event."""

    async def forget(self, before_ms: int) -> int:
        """Forget what is older."""


class AuditEntries(Protocol):
    """The audit log; what appends to it is `Database.write` alone."""

    async def newest(self, account: str, *, before: int | None, limit: int) -> list[Entry]:
        """Entries before a number, newest first."""

    async def after(self, account: str, seq: int, *, limit: int) -> list[Entry]:
        """Entries after a number, oldest first."""

    async def head(self, account: str) -> tuple[int, str]:
        """Number and hash of what was appended last."""


class Webhooks(Protocol):
    """Where events go, and those on their way."""

    async def add(self, webhook: Webhook, cursor: Cursor) -> None:
        """Insert; it wants what comes after the cursor."""

    async def update(self, webhook: Webhook) -> None:
        """Write back every field."""

    async def remove(self, record_id: str) -> None:
        """Forget it and its deliveries."""

    async def get(self, account: str, record_id: str) -> Webhook | None:
        """One webhook of an account."""

    async def by_id(self, record_id: str) -> Webhook | None:
        """One webhook."""

    async def of(self, account: str) -> list[Webhook]:
        """An account's webhooks, oldest first."""

    async def behind(self) -> list[str]:
        """Ids of webhooks that are on and have not seen all events."""

    async def take(self, record_id: str) -> tuple[Webhook, Cursor] | None:
        """Hold a webhook and its place until the transaction ends; None when somebody else does."""

    async def move(self, record_id: str, cursor: Cursor) -> None:
        """Set the place."""

    async def queue(self, deliveries: Iterable[Delivery]) -> None:
        """Insert; an event that is queued for its webhook already is not queued twice."""

    async def due(self, now_ms: int, lease_ms: int, *, limit: int) -> list[Delivery]:
        """Lease what is due: counted as an attempt, and due again after the lease."""

    async def next_due_ms(self) -> int | None:
        """When the next delivery is due."""

    async def settle(self, delivery: Delivery) -> None:
        """Write back what became of it."""

    async def deliveries(self, webhook_id: str, *, limit: int) -> list[Delivery]:
        """The newest deliveries, newest first."""

    async def delivery(self, webhook_id: str, record_id: str) -> Delivery | None:
        """One delivery."""

    async def forget(self, before_ms: int) -> None:
        """Forget deliveries that are done and older."""


class Overview(Protocol):
    """A fleet as a whole, for pages."""

    async def page(self, owner: str, search: Search, selector: Selector) -> Page:
        """One page of what is searched for, by nick, and how many devices there are in all."""

    async def statuses(self, owner: str) -> dict[str, int]:
        """How many devices there are by the status of their newest revision; empty: no revision."""

    async def seen_since(self, owner: str, since_ms: int) -> int:
        """How many devices called since then, as far as it was written down."""

    async def versions(self, owner: str, *, limit: int) -> list[ContainerCount]:
        """Which versions of which containers run, the most common first."""


class Identities(Protocol):
    """Who an OpenID provider says that somebody is: (issuer, subject) belongs to one account."""

    async def account(self, issuer: str, subject: str) -> str | None:
        """PRN of the account."""

    async def link(self, issuer: str, subject: str, account: str, now_ms: int) -> bool:
        """Insert; False when it belongs to an account already."""

    async def of(self, account: str) -> bool:
        """Whether the account has one."""


class Courier(Protocol):
    """Carries webhooks."""

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
        """The answer's status (0 without one) and what went wrong (empty when the receiver took it)."""


class OidcClient(Protocol):
    """The OpenID provider. Raises Unavailable when it cannot be reached, Forbidden for answers that prove nothing."""

    async def endpoints(self) -> Endpoints:
        """Where it is."""

    async def claims(self, code: str, *, verifier: str, callback: str) -> dict[str, object]:
        """The claims of the ID token that a code stands for; its signature, issuer, audience and times are right."""


def logs_of(device: str) -> str:
    """The name under which `Bus.following` waits for lines of a device (a PRN)."""
    return f"logs {device}"


class Bus(Protocol):
    """Who waits for events, in this process."""

    @property
    def closed(self) -> bool:
        """Whether the hub stops: streams end now."""

    def following(self, *names: str) -> AbstractContextManager[asyncio.Event]:
        """An event that is set when there may be something new, and when the hub stops.

        A name is an account, for its stream, or what `logs_of` makes of a device.
        """
