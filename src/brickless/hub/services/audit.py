"""The audit log: who changed what, from where. Entries are written by `Database.write` itself, with the change.

`recording` says for the current task what is under way; the first transaction that changes a row appends the entry, in
the same transaction: there is no change without its entry and no entry without its change. Nothing removes entries,
and the database refuses to change them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from brickless.hub.domain import audit
from brickless.hub.domain.audit import Entry
from brickless.hub.domain.errors import Forbidden
from brickless.hub.domain.values import Identity
from brickless.hub.services.parts import Parts

#: Mutating routes that leave no entry, each for a reason. Everything else does; a test enumerates the routes.
UNRECORDED: dict[str, str] = {
    "POST /auth/login": "changes nothing: a token is a signature",
    "POST /auth/recover": "changes nothing: it mails a signature",
    "POST /auth/x509/login": "changes nothing: a token is a signature",
    "POST /auth/sessions": "changes nothing: a token is a signature",
    "POST /orgs/{org}/token": "changes nothing: a token is a signature",
    "POST /logs/cursor": "reads",
    "POST /fleets/preview": "reads",
    "POST /logs/": "telemetry of devices; the lines themselves are the record",
    "PUT /devices/{id}/device-meta": "telemetry of devices",
    "PATCH /devices/{id}/device-meta": "telemetry of devices",
    "PUT /trails/{id}/steps/{rev}/progress": "telemetry of devices; the step keeps it, events tell it",
    "PUT /local-s3/{id}": "bytes of an object whose announcement has an entry",
    "PUT /s3/{id}": "bytes of an object whose announcement has an entry",
}
#: Routes that read by their method and may change something all the same.
CHANGING_READS = frozenset({"GET /auth/verify", "GET /dash-ui/oidc/callback"})
_MAX_TARGET_CHARS = 300
_PAGE = 1000


@dataclass(slots=True)
class Doing:
    """What is under way. `account` is whose log the entry belongs to; empty is the hub's own."""

    action: str
    target: str
    address: str
    time_ms: int
    account: str = ""
    actor: str = ""
    actor_nick: str = ""
    #: One entry a request is enough: what else it writes belongs to the same change.
    written: bool = False

    def by(self, caller: Identity) -> None:
        """Name who does it."""
        self.account, self.actor = caller.account, caller.person
        self.actor_nick = caller.login if caller.actor else caller.nick


_CURRENT: ContextVar[Doing | None] = ContextVar("audit", default=None)


def current() -> Doing | None:
    """What is under way in this task and must be recorded."""
    return _CURRENT.get()


@contextmanager
def recording(doing: Doing | None) -> Iterator[Doing | None]:
    """Record each change in the block as a part of `doing`; None records nothing."""
    token = _CURRENT.set(doing)
    try:
        yield doing
    finally:
        _CURRENT.reset(token)


def begun(action: str, params: dict[str, str], *, address: str, time_ms: int) -> Doing | None:
    """The record of a request that may change something; None for one that leaves no entry."""
    if action in UNRECORDED:
        return None
    target = " ".join(f"{name}={value}" for name, value in params.items())[:_MAX_TARGET_CHARS]
    return Doing(action, target, address, time_ms)


def acting(account: str, *, actor: str, action: str, target: str, time_ms: int) -> Doing:
    """The record of what the hub does by itself in an account's name, such as a rollout's next phase."""
    return Doing(action, target[:_MAX_TARGET_CHARS], "", time_ms, account, actor, "hub")


def by(caller: Identity) -> None:
    """Name who does what is under way."""
    doing = _CURRENT.get()
    if doing is not None:
        doing.by(caller)


def about(account: str, target: str = "") -> None:
    """Say whose thing changes, where the caller's own account is not it, and add what the address did not name."""
    doing = _CURRENT.get()
    if doing is not None:
        doing.account = doing.account or account
        doing.target = f"{doing.target} {target}".strip()[:_MAX_TARGET_CHARS]


def named(**things: object) -> None:
    """Add what the address does not name: what a request makes, or whom its body is about."""
    about("", " ".join(f"{name}={value}" for name, value in things.items()))


def belongs_to(account: str) -> None:
    """Put what is under way into this account's log, whoever does it."""
    doing = _CURRENT.get()
    if doing is not None:
        doing.account = account


class AuditLog:
    """Reading and proving the log. There is no use case that changes it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @staticmethod
    def _account(caller: Identity, *, hub: bool) -> str:
        if not caller.is_person:
            raise Forbidden("Only people read the audit log")
        if hub and (caller.role != "admin" or caller.actor):
            raise Forbidden("Only administrators read the hub's own log")
        return "" if hub else caller.account

    async def entries(self, caller: Identity, *, before: int | None, limit: int, hub: bool = False) -> list[Entry]:
        """Entries of the caller's account, newest first, older than the entry number `before`."""
        account = self._account(caller, hub=hub)
        async with self._parts.db.read() as session:
            return await session.audit.newest(account, before=before, limit=limit)

    async def verify(self, caller: Identity, *, hub: bool = False) -> tuple[int, str, str]:
        """How many entries there are, the newest hash, and what is wrong with the chain (empty when it is sound)."""
        account = self._account(caller, hub=hub)
        entries: list[Entry] = []
        async with self._parts.db.read() as session:
            while page := await session.audit.after(account, len(entries), limit=_PAGE):
                entries.extend(page)
            head = await session.audit.head(account)
        found = audit.fault(entries)
        newest = entries[-1].hash if entries else audit.GENESIS
        if not found and head != (len(entries), newest):
            found = f"the newest entries are missing: {head[0]} were written, {len(entries)} are here"
        return len(entries), newest, found
