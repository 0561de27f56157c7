"""The records of the hub as frozen values. Times are integer milliseconds since 1970-01-01 UTC; 0 means never. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class CallerType(StrEnum):
    """The `type` claim of a token."""

    USER = "USER"
    SESSION = "SESSION"
    SERVICE = "SERVICE"
    CLIENT = "CLIENT"
    ORG = "ORG"
    DEVICE = "DEVICE"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls, from a verified token. `owner` is the account whose things the caller acts on.

    Whoever acts for an organisation has the organisation's name as `prn` and his own as `actor`; `member_role` is his
    role there now. Both are empty for everybody else.
    """

    login: str
    nick: str
    prn: str
    type: str
    role: str
    owner: str
    scopes: frozenset[str]
    expires_s: int
    issued_s: int
    actor: str = ""
    member_role: str = ""

    @property
    def person(self) -> str:
        """PRN of who really calls: the member, when he acts for an organisation."""
        return self.actor or self.prn

    @property
    def is_device(self) -> bool:
        """Whether a device calls."""
        return self.type == CallerType.DEVICE

    @property
    def is_person(self) -> bool:
        """Whether an account's user or a session calls."""
        return self.type in {CallerType.USER, CallerType.SESSION}

    @property
    def account(self) -> str:
        """PRN of the account whose resources the caller works with; empty for an unclaimed device."""
        return self.owner if self.is_device else self.prn


@dataclass(frozen=True, slots=True)
class Account:
    """A person, a service or an organisation that owns things."""

    id: str
    prn: str
    nick: str
    email: str
    type: str
    role: str
    password_hash: str
    challenge: str
    meta: str
    profile: str
    created_ms: int
    modified_ms: int


@dataclass(frozen=True, slots=True)
class Device:
    """A device. `user_meta` and `device_meta` are JSON texts with sorted keys; `owner` is empty until it is claimed."""

    id: str
    nick: str
    owner: str
    secret_hash: str
    challenge: str
    public: bool
    user_meta: str
    device_meta: str
    created_ms: int
    modified_ms: int
    garbage: bool = False
    last_seen_ms: int = 0
    real_ip: str = ""
    #: How it must prove who owns it (`domain.ownership`), as JSON; empty when it need not.
    ovmode: str = ""

    @property
    def prn(self) -> str:
        """Name of the device."""
        return f"prn:::devices:/{self.id}"


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What a factory puts on its devices so that they are claimed at registration. Only a hash of it is stored."""

    id: str
    nick: str
    owner: str
    token_hash: str
    default_user_meta: str
    disabled: bool
    created_ms: int
    modified_ms: int
    ovmode: str = ""


@dataclass(frozen=True, slots=True)
class ApiToken:
    """What a program logs in with in a person's name. Only a hash of its secret is stored."""

    id: str
    owner: str
    name: str
    type: str
    secret_hash: str
    scopes: str
    created_ms: int
    modified_ms: int
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Membership:
    """One account's role in one organisation, with the nicks of both; `org` and `account` are PRNs."""

    org: str
    org_nick: str
    account: str
    account_nick: str
    role: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class Invitation:
    """An offer of a role to whoever holds its token. Only a hash of the token is stored."""

    id: str
    org: str
    email: str
    role: str
    token_hash: str
    inviter: str
    created_ms: int
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Trail:
    """The revisions of one device; its id is the device's id. `owner` and `public` are the device's own, now."""

    id: str
    owner: str
    public: bool
    factory_state: bytes
    used_objects: str
    last_insync_ms: int
    last_touched_ms: int

    @property
    def device(self) -> str:
        """PRN of the device."""
        return f"prn:::devices:/{self.id}"


@dataclass(frozen=True, slots=True)
class Step:
    """One revision on a trail. `state`, `meta`, `progress`, `progress_log` and `used_objects` are canonical JSON."""

    trail_id: str
    rev: int
    owner: str
    committer: str
    commit_msg: str
    state: bytes
    state_sha: str
    meta: str
    used_objects: str
    status: str
    progress: str
    progress_ms: int
    step_ms: int
    created_ms: int
    modified_ms: int
    #: JSON array of what was reported, oldest first (`domain.progress.logged`).
    progress_log: str = "[]"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """The record of an object in one account. `has_bytes`: this account proved possession, or linked a public one."""

    owner: str
    sha: str
    name: str
    size_bytes: int
    mime_type: str
    has_bytes: bool
    linked: bool
    created_ms: int
    modified_ms: int


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line that a device sent."""

    id: int
    device: str
    owner: str
    created_ms: int
    tsec: int
    tnano: int
    rev: str
    plat: str
    src: str
    lvl: str
    msg: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What a fleet list shows of one device. A device without a trail has -1 as its revisions and no `reported`.

    `reported` is the step about which the device spoke last, `done_rev` the newest that it reached.
    """

    device: Device
    trail_touched_ms: int
    newest_rev: int
    newest_sha: str
    newest_step_ms: int
    newest_progress: str
    done_rev: int
    reported: Step | None = field(default=None)
