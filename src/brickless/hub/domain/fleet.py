"""The values of fleets: device types, releases, rollouts and what becomes of each device in one. Times as in `values`.

A release is immutable and named by its content; a rollout brings one to the devices that a selector matches; a member
is one device of one rollout, at any time in exactly one state, with a reason and a deadline. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from brickless.hub.domain.fleet_window import Window
from brickless.hub.domain.rollout_rule import Evidence, Policy, Verdict

HOUR_S = 3600
DAY_S = 24 * HOUR_S
#: A moment that never comes.
NEVER_MS = 2**62


class RolloutState(StrEnum):
    """How a rollout as a whole stands."""

    RUNNING = "running"
    PAUSED = "paused"
    #: Every device is in a final state; devices that join later are still picked up.
    SETTLED = "settled"
    #: By the rule: the release is bad, or the failure budget is used up.
    STOPPED = "stopped"
    #: By an operator.
    ABORTED = "aborted"
    #: By an operator, or at its end: nobody joins any more.
    FINISHED = "finished"
    ROLLING_BACK = "rolling-back"
    ROLLED_BACK = "rolled-back"


#: Rollouts that may still give the release to devices.
ACTIVE = frozenset({RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.SETTLED})


class MemberState(StrEnum):
    """How one device of a rollout stands; `fleet_machine` has the transitions."""

    WAITING = "waiting"
    OFFERED = "offered"
    UPDATING = "updating"
    DEFERRED = "deferred"
    GOING_BACK = "going-back"
    UPDATED = "updated"
    FAILED = "failed"
    SILENT = "silent"
    SUPERSEDED = "superseded"
    UNFIT = "unfit"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    DECLINED = "declined"
    GONE_BACK = "gone-back"
    STUCK = "stuck"


OPEN = frozenset(
    {
        MemberState.WAITING,
        MemberState.OFFERED,
        MemberState.UPDATING,
        MemberState.DEFERRED,
        MemberState.GOING_BACK,
    }
)


#: Members that were assigned and whose verdict is still to come, as long as they have none.
UNJUDGED = OPEN - {MemberState.GOING_BACK}
#: No report about the step means anything any more.
_SETTLED = frozenset(
    {MemberState.UPDATED, MemberState.SUPERSEDED, MemberState.UNFIT, MemberState.EXPIRED, MemberState.GONE_BACK}
)


@dataclass(frozen=True, slots=True)
class DeviceType:
    """A kind of hardware. A device is of the type that its label `type` names."""

    owner: str
    name: str
    description: str
    created_ms: int
    modified_ms: int


@dataclass(frozen=True, slots=True)
class Release:
    """What a rollout brings. `state` is the canonical JSON of the entries; `id` the SHA-256 over all that it means.

    `include` and `remove` are the parts that are replaced and removed; empty `include` replaces a whole state.
    `types` limits it to devices of these types. `source` says where it was taken from, for people.
    """

    id: str
    owner: str
    name: str
    note: str
    include: tuple[str, ...]
    remove: tuple[str, ...]
    types: tuple[str, ...]
    state: bytes
    size_bytes: int
    source: str
    creator: str
    created_ms: int

    @property
    def fragment(self) -> str:
        """The parts as people write them behind a `#`."""
        return ",".join((*self.include, *(f"-{part}" for part in self.remove)))


@dataclass(frozen=True, slots=True)
class Phase:
    """One wave of a rollout: of the devices that no earlier phase took, those that match `selector`.

    At most `count` of them, or `percent` of all devices of the rollout; all of them without either. The next phase
    begins when every device of this one is judged and `soak_s` seconds went by since.
    """

    selector: str = "*"
    count: int | None = None
    percent: float | None = None
    soak_s: int = 0


@dataclass(frozen=True, slots=True)
class Spec:
    """How a rollout is done. All times in seconds.

    `deadline_s`: how long a device may take from the moment it was given the release, counted while its window is open;
    `life_s`: how long the rollout as a whole takes devices in. A device may say "not now" `max_deferrals` times, each
    for `deferral_s` at the most. Among rollouts that touch the same parts, the higher `priority` wins, then the newer.
    """

    policy: Policy = field(default_factory=Policy)
    phases: tuple[Phase, ...] = ()
    window: Window | None = None
    deadline_s: int = DAY_S
    life_s: int = 30 * DAY_S
    max_deferrals: int = 3
    deferral_s: int = DAY_S
    priority: int = 0
    rollback_on_stop: bool = False


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout at one moment.

    `assigned` counts the devices that were given the release, `frontier` is the number of the first of them that is
    not judged: `evidence` holds the verdicts before it. `closed`: nothing of it can change by itself any more.
    """

    id: str
    owner: str
    name: str
    release_id: str
    selector: str
    spec: Spec
    state: RolloutState
    reason: str
    wave: int
    wave_since_ms: int
    assigned: int
    frontier: int
    evidence: Evidence
    members: int
    synced_ms: int
    created_ms: int
    modified_ms: int
    ends_ms: int
    creator: str
    closed: bool = False

    @property
    def prn(self) -> str:
        """Who posts the steps of this rollout."""
        return f"prn:::rollouts:/{self.id}"

    def outranks(self, other: Rollout) -> bool:
        """Whether this one wins where both touch the same parts of a device."""
        return self.rank > other.rank

    @property
    def rank(self) -> tuple[int, int, str]:
        """Priority, then age, then a tie that never ties."""
        return self.spec.priority, self.created_ms, self.id


@dataclass(frozen=True, slots=True)
class Member:
    """One device of one rollout.

    `position` is its random place in its wave; `number` the place in the order of assignment, -1 before. `rev` is the
    step that it was given last (0: none), `base_rev` the revision that the release was merged into, which is what a
    roll back returns to, after the releases in `undone` were taken out of it, each by the revision beside it: parts of
    rollouts that this one outranked. `deadline_ms` is when its state ends by itself; `due_ms` when the driver must look
    at it again, `not_before_ms` when it may next be given the release. `seen` is what was heard of its step last.
    """

    rollout_id: str
    device_id: str
    state: MemberState
    reason: str
    wave: int
    position: int
    deadline_ms: int
    due_ms: int
    changed_ms: int
    not_before_ms: int = 0
    number: int = -1
    rev: int = 0
    base_rev: int = -1
    took_rev: int = 0
    deferrals: int = 0
    undone: tuple[tuple[str, int], ...] = ()
    verdict: Verdict | None = None
    seen_ms: int = 0
    seen_status: str = ""

    @property
    def busy(self) -> bool:
        """Whether a step of this rollout is on its way through the device: at most one rollout may be so."""
        if self.state is MemberState.DEFERRED:
            return self.rev > 0
        return self.state in {MemberState.OFFERED, MemberState.UPDATING, MemberState.GOING_BACK}

    @property
    def watched(self) -> bool:
        """Whether a report about its step may still change something."""
        return self.rev > 0 and self.state not in _SETTLED

    @property
    def took(self) -> bool:
        """Whether the device has, or may come to have, the release's parts."""
        return self.took_rev > 0 and self.state not in {MemberState.SUPERSEDED, MemberState.GONE_BACK}
