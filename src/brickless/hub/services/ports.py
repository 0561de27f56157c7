"""What the use cases need from outside, as Protocols. Adapters implement them; tests may too.

A `Database` gives a `Session` for one unit of work: `read()` sees one consistent state, `write()` is a transaction that
is durable when the block is left and undone when it raises.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from brickless.hub.domain.filters import StatusFilter, TextFilter
from brickless.hub.domain.values import (
    Account,
    ApiToken,
    Device,
    JoinToken,
    LogEntry,
    Step,
    StoredObject,
    Summary,
    Trail,
)
from brickless.hub.services.fleet_ports import Fleets, FleetTrails, Members
from brickless.hub.services.ports_apps import Apps, Authorizations, Mails, Subscriptions, TrafficRecords
from brickless.hub.services.ports_operators import (
    AuditEntries,
    EventStream,
    Identities,
    Organisations,
    Overview,
    Webhooks,
)


class Accounts(Protocol):
    """Accounts by any of their names. Nicks and e-mail addresses are unique whatever their case."""

    async def add(self, account: Account) -> bool:
        """Insert; False when nick or e-mail is taken."""

    async def by_id(self, record_id: str) -> Account | None:
        """The account with this id."""

    async def by_prn(self, prn: str) -> Account | None:
        """The account with this PRN."""

    async def by_nick(self, nick: str) -> Account | None:
        """The account with this nick."""

    async def by_email(self, email: str) -> Account | None:
        """The account with this e-mail address."""

    async def everyone(self, limit: int) -> list[Account]:
        """All accounts, oldest first."""

    async def shown(self, caller: str, prefix: str, *, offset: int, limit: int, exact: bool = False) -> list[Account]:
        """Accounts with a public device, and the caller's own, by nick: those that begin so, or the `exact` one."""

    async def update(self, account: Account) -> None:
        """Write back every field but id and prn."""

    async def meta(self, prn: str) -> str:
        """The account-wide user-meta as JSON text; `{}` when there is none."""


class Devices(Protocol):
    """Devices that are not garbage."""

    async def add(self, device: Device) -> bool:
        """Insert; False when the owner has a device of this nick already."""

    async def get(self, record_id: str) -> Device | None:
        """The device with this id."""

    async def by_nick(self, owner: str, nick: str) -> Device | None:
        """The owner's device of this nick."""

    async def find(
        self, owner: str, filters: tuple[TextFilter, ...], *, public_only: bool, offset: int, limit: int | None
    ) -> list[Device]:
        """The owner's devices that pass every filter, by nick."""

    async def update(self, device: Device) -> bool:
        """Write back every field but id; False when the new nick is taken."""

    async def set_meta(self, record_id: str, *, user: str | None, device: str | None, modified_ms: int) -> None:
        """Replace one or both metadata texts."""

    async def changed(self, owner: str, *, after_ms: int | None, before_ms: int | None, limit: int) -> list[Device]:
        """Devices modified strictly after or before a moment: those next to it, ascending."""

    async def ids_of(self, owner: str) -> list[str]:
        """Ids of all devices of an account."""

    async def expire(self, *, unclaimed_before_ms: int, deleted_before_ms: int) -> int:
        """Forget devices that nobody claimed since then, and what was deleted before then, with trails and steps."""

    async def touch(self, seen: Iterable[tuple[str, int, str]]) -> None:
        """Write (device id, last seen, address) in one go."""


class JoinTokens(Protocol):
    """Tokens that factories put on devices."""

    async def add(self, token: JoinToken) -> None:
        """Insert."""

    async def by_hash(self, token_hash: str) -> JoinToken | None:
        """The token of this hash, disabled or not."""

    async def of(self, owner: str) -> list[JoinToken]:
        """The account's tokens that are enabled, newest first."""

    async def get(self, record_id: str, owner: str) -> JoinToken | None:
        """One token of an account."""

    async def disable(self, record_id: str, owner: str, modified_ms: int) -> bool:
        """Disable; False when the account has no such token."""


class ApiTokens(Protocol):
    """Tokens of programs."""

    async def add(self, token: ApiToken) -> bool:
        """Insert; False when the owner has a token of this name."""

    async def get(self, record_id: str) -> ApiToken | None:
        """One token."""

    async def of(self, owner: str) -> list[ApiToken]:
        """The account's tokens, oldest first."""

    async def remove(self, record_id: str) -> None:
        """Forget it."""


class Trails(Protocol):
    """Trails and their steps."""

    async def add(self, trail: Trail) -> bool:
        """Insert; False when the device has a trail already."""

    async def get(self, trail_id: str) -> Trail | None:
        """The trail, with the owner and visibility that its device has now."""

    async def of(self, owner: str) -> list[Trail]:
        """The trails of an account's devices."""

    async def touch(self, trail_id: str, now_ms: int, *, insync: bool = False) -> None:
        """Set last-touched, and last-insync too when asked."""

    async def newest_rev(self, trail_id: str) -> int | None:
        """The highest revision number, None without any step."""

    async def add_step(self, step: Step, objects: Iterable[str]) -> bool:
        """Insert a step and what it references; False when the revision exists."""

    async def step(self, trail_id: str, rev: int) -> Step | None:
        """One step."""

    async def steps(
        self, trail_id: str, status: StatusFilter, *, after_rev: int | None, offset: int, limit: int | None
    ) -> list[Step]:
        """Steps by ascending revision."""

    async def set_progress(
        self,
        trail_id: str,
        rev: int,
        *,
        status: str,
        progress: str,
        progress_ms: int | None,
        modified_ms: int,
        source: str = "device",
    ) -> bool:
        """Replace the progress, and note it in the step's history as said by `source`; False without such a step."""

    async def set_meta(self, trail_id: str, rev: int, meta: str, modified_ms: int) -> bool:
        """Replace the step's meta; False without such a step."""

    async def set_state(
        self, trail_id: str, rev: int, *, state: bytes, sha: str, used: str, objects: Iterable[str], modified_ms: int
    ) -> None:
        """Replace the state of a step."""

    async def changed(self, owner: str, *, after_ms: int | None, before_ms: int | None, limit: int) -> list[Trail]:
        """Trails touched strictly after or before a moment: those next to it, ascending."""

    async def changed_steps(self, owner: str, *, after_ms: int | None, before_ms: int | None, limit: int) -> list[Step]:
        """Steps modified strictly after or before a moment: those next to it, ascending."""

    async def names(self, trail_id: str, sha: str) -> bool:
        """Whether any step of the trail names the object."""

    async def objects_of(self, trail_id: str) -> list[str]:
        """Every object that a step of the trail names."""

    async def summaries(
        self, owner: str, device_id: str | None, *, limit: int | None = None, without_trail: bool = False
    ) -> list[Summary]:
        """One row a device (`without_trail`: also those that have none), in one statement however many there are."""


class Objects(Protocol):
    """Object records, one for each account and SHA-256."""

    async def get(self, owner: str, sha: str) -> StoredObject | None:
        """The account's record."""

    async def many(self, owner: str, shas: Iterable[str]) -> dict[str, StoredObject]:
        """The account's records among these."""

    async def kept(self, owner: str, shas: Iterable[str]) -> dict[str, StoredObject]:
        """The account's records among these, which nobody forgets or collects before this unit of work ends."""

    async def of(self, owner: str) -> list[StoredObject]:
        """All records of an account, oldest first."""

    async def put(self, record: StoredObject) -> None:
        """Insert or replace."""

    async def put_many(self, records: Iterable[StoredObject]) -> None:
        """Insert or replace several."""

    async def held(self, owner: str, sha: str) -> StoredObject | None:
        """The account's record, which nobody changes or collects before this unit of work ends."""

    async def hold_all(self) -> None:
        """Until this unit of work ends nobody writes a record, or has one `held`. Called before anything else."""

    async def remove(self, owner: str, sha: str) -> None:
        """Forget the record; the bytes go with the next garbage collection."""

    async def in_use(self, owner: str, sha: str) -> bool:
        """Whether a step of one of the account's devices names it."""

    async def public_sources(self, shas: Iterable[str]) -> dict[str, StoredObject]:
        """Records, of any account, whose bytes exist and which a step of a public device names."""

    async def forget_unused(self, before_ms: int) -> int:
        """Forget records that no step of their owner's devices names and that did not change since `before_ms`.

        Only after `hold_all`: what a unit of work `kept` is named by its step once that ends.
        """

    async def possessed(self, shas: Iterable[str]) -> set[str]:
        """Those of the SHA-256 for which some account's record says that the bytes are here."""

    async def all_possessed(self) -> dict[str, int]:
        """Every SHA-256 for which some record says that the bytes are here, with its size."""

    async def usage_bytes(self, owner: str) -> int:
        """The sum of the sizes of an account's records."""


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What GET /logs asks for; empty tuples mean no condition. `sort` is (field, descending)."""

    owner: str
    devices: tuple[str, ...] = ()
    revs: tuple[str, ...] = ()
    plats: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    before_ms: int | None = None
    after_ms: int | None = None
    after_id: int | None = None
    sort: tuple[tuple[str, bool], ...] = ()
    start: int = 0
    page: int = 50


class Logs(Protocol):
    """Lines that devices sent."""

    async def add(self, entries: Iterable[LogEntry]) -> None:
        """Insert lines of one device; the database gives ids, which grow in the order in which they can be read."""

    async def end(self) -> int:
        """The id of the newest line, 0 without any."""

    async def find(self, query: LogQuery) -> list[LogEntry]:
        """One page."""

    async def count(self, query: LogQuery) -> int:
        """How many lines match in all."""


class Session(Protocol):
    """One unit of work."""

    accounts: Accounts
    devices: Devices
    join_tokens: JoinTokens
    api_tokens: ApiTokens
    apps: Apps
    authorizations: Authorizations
    subscriptions: Subscriptions
    traffic: TrafficRecords
    mails: Mails
    organisations: Organisations
    events: EventStream
    audit: AuditEntries
    webhooks: Webhooks
    overview: Overview
    identities: Identities
    trails: Trails
    objects: Objects
    logs: Logs
    fleets: Fleets
    members: Members
    fleet_trails: FleetTrails


class Database(Protocol):
    """Where the records live."""

    def read(self) -> AbstractAsyncContextManager[Session]:
        """A unit of work that only reads."""

    def write(self) -> AbstractAsyncContextManager[Session]:
        """A transaction; what it wrote is durable once the block is left."""


class Blobs(Protocol):
    """Bytes of objects, stored once for everybody and named by their SHA-256. Who may have them is not decided here."""

    async def has(self, sha: str) -> bool:
        """Whether the bytes are there."""

    async def size_bytes(self, sha: str) -> int | None:
        """Size, None without the bytes."""

    async def put(self, sha: str, size_bytes: int, chunks: AsyncIterator[bytes]) -> None:
        """Take exactly `size_bytes` bytes and give them their name once their hash is right.

        Raises Malformed when size or hash differ; nothing is kept then.
        """

    def names(self, *, older_than_s: float) -> AsyncIterator[str]:
        """The SHA-256 of bytes that are here for longer than that."""

    async def remove(self, sha: str, *, older_than_s: float) -> int | None:
        """Remove bytes; returns how many that freed, None when they were handed in again since, or are gone already."""

    async def fault(self, sha: str, size_bytes: int) -> str:
        """What is wrong with the bytes, empty when they are whole."""

    def read(self, sha: str, start: int, length: int) -> AsyncGenerator[bytes | bytearray, None]:
        """A range of the bytes."""


class Clock(Protocol):
    """Time."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""

    def monotonic_s(self) -> float:
        """Seconds that only grow."""


class Entropy(Protocol):
    """Randomness."""

    def record_id(self) -> str:
        """A new 24-character id."""

    def word(self, length: int) -> str:
        """Lower-case letters and digits."""

    def letters(self, length: int) -> str:
        """Lower-case letters."""

    def pet_name(self, separator: str) -> str:
        """Three words."""

    def token(self) -> str:
        """24 random bytes in standard base64."""


class Secrets(Protocol):
    """Hashes of passwords, device secrets and tokens; slow ones run outside the event loop."""

    async def hash_password(self, password: str) -> str:
        """A slow, salted hash."""

    async def verify(self, secret: str, stored: str) -> bool:
        """Whether `secret` has the hash `stored`, in whichever form; an empty `stored` matches nothing."""

    async def hash_device_secret(self, secret: str, *, generated: bool) -> str:
        """A hash for a device's secret: a fast keyed one for secrets that we generated, a slow one otherwise."""

    def hash_token(self, token: str) -> str:
        """A fast keyed hash of a random token, equal for equal tokens."""


class Claims(NamedTuple):
    """What a signed URL says."""

    method: str
    sha: str
    size_bytes: int
    name: str
    storage_id: str
    store: bool
    owner: str


class Signer(Protocol):
    """Signs and verifies tokens. Verification raises Unauthenticated (bearer) or Forbidden (the others)."""

    def bearer(self, claims: dict[str, object]) -> str:
        """An RS256 JWT."""

    def verify_bearer(self, token: str) -> dict[str, object]:
        """The claims of a valid token."""

    def object_url_token(self, claims: Claims, *, subject: str, issuer: str, now_s: int, life_s: int) -> str:
        """An HS256 JWT for the path of a signed URL."""

    def verify_object_url(self, token: str) -> Claims:
        """What a signed URL allows."""

    def sealed(self, purpose: str, claims: dict[str, object], *, now_s: int, life_s: int) -> str:
        """A short-lived HS256 JWT that only this hub reads, bound to one purpose."""

    def open_sealed(self, purpose: str, token: str) -> dict[str, object]:
        """The claims of `sealed`."""


class Events(Protocol):
    """Tells dashboards, and caches of other replicas, that a device changed."""

    def device_changed(self, owner: str, device_id: str) -> None:
        """Called after the change is durable."""

    def happened(self, account: str) -> None:
        """Called after events of the account are durable."""

    def logged(self, device: str) -> None:
        """Called after lines of the device (a PRN) are durable."""


class MailRefused(Exception):  # noqa: N818 - a server refuses, nothing went wrong in us
    """A message could not be handed over. `final`: another try would end the same way."""

    def __init__(self, why: str, *, final: bool) -> None:
        super().__init__(why)
        self.final = final


class Mailer(Protocol):
    """Mail to people. `is_local`: handing over is quick and needs no network."""

    is_local: bool

    async def send(self, to: str, subject: str, text: str) -> None:
        """Hand a message over. Raises MailRefused."""
