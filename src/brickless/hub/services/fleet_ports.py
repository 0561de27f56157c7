"""What the use cases of fleets need from the database, as Protocols; adapters in SQL, and one in memory in testkit.

No method costs more statements for a larger fleet, except in batches; those that take many devices say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from brickless.hub.domain.fleet import DeviceType, Member, MemberState, Release, Rollout
from brickless.hub.domain.rollout_rule import Verdict
from brickless.hub.domain.values import Step


class Labelled(NamedTuple):
    """A device as selectors see it."""

    device_id: str
    nick: str
    labels: dict[str, str]
    modified_ms: int = 0
    gone: bool = False


class Head(NamedTuple):
    """Where a device's trail stands."""

    device_id: str
    owner: str
    newest_rev: int
    newest_status: str
    newest_committer: str
    done_rev: int
    device_meta: str


class News(NamedTuple):
    """What a member's step says now; `newest_rev` is the newest of its trail."""

    member: Member
    status: str
    progress: str
    progress_ms: int
    newest_rev: int


class Judged(NamedTuple):
    """What the rule must know of a member that was assigned and is judged, or never will be (`verdict` is None)."""

    number: int
    verdict: Verdict | None


class Verdicts(NamedTuple):
    """`run`: members in the order of assignment up to the first that is not judged; `early_bad`: failures beyond it."""

    run: list[Judged]
    early_bad: int


class Fleets(Protocol):
    """Labels, device types, releases and rollouts, always of one account."""

    async def labelled(
        self, owner: str, *, since_ms: int = 0, after: str = "", limit: int | None = None, gone: bool = False
    ) -> list[Labelled]:
        """The account's devices by nick: those modified at or after a moment, with a nick after `after`.

        `gone`: also those that were deleted.
        """

    async def labels(self, device_ids: Iterable[str]) -> dict[str, dict[str, str]]:
        """Labels of these devices, those that have some."""

    async def put_labels(self, labels: Mapping[str, Mapping[str, str]], now_ms: int) -> None:
        """Replace the labels of these devices; their devices count as modified."""

    async def types(self, owner: str) -> list[DeviceType]:
        """The account's device types by name."""

    async def put_type(self, value: DeviceType) -> None:
        """Insert or replace."""

    async def remove_type(self, owner: str, name: str) -> bool:
        """Forget; False without it."""

    async def add_release(self, release: Release, objects: Iterable[str]) -> bool:
        """Insert with what it names; False when id or name is taken."""

    async def release(self, owner: str, name: str) -> Release | None:
        """The release of this id or name."""

    async def releases(self, owner: str, *, offset: int, limit: int) -> list[Release]:
        """The account's releases, newest first."""

    async def remove_release(self, owner: str, record_id: str) -> None:
        """Forget."""

    async def release_in_use(self, owner: str, record_id: str) -> bool:
        """Whether a rollout brings it."""

    async def add_rollout(self, rollout: Rollout) -> bool:
        """Insert; False when the name is taken."""

    async def rollout(self, record_id: str) -> Rollout | None:
        """One rollout; inside a transaction it is held until the end."""

    async def named(self, owner: str, name: str) -> Rollout | None:
        """The account's rollout of this name."""

    async def rollouts(self, owner: str, *, offset: int, limit: int) -> list[Rollout]:
        """The account's rollouts, newest first."""

    async def open_rollouts(self, owner: str | None = None) -> list[Rollout]:
        """Every rollout that is not closed, of one account or of all, oldest first."""

    async def save(self, rollout: Rollout) -> None:
        """Write back."""

    async def lease(self, name: str, holder: str, *, now_ms: int, until_ms: int) -> bool:
        """Take or keep the lease; False while another one holds it."""

    async def holds(self, name: str, holder: str) -> bool:
        """Whether the lease is still this holder's; nobody can take it until the transaction ends."""


class Members(Protocol):
    """Devices of rollouts."""

    async def add(self, members: Sequence[Member]) -> None:
        """Insert those that are not there yet."""

    async def get(self, rollout_id: str, device_ids: Iterable[str]) -> dict[str, Member]:
        """These members, those that exist."""

    async def page(
        self, rollout_id: str, *, state: MemberState | None, after: str, limit: int
    ) -> list[tuple[Member, str]]:
        """Members with their nicks, by device id."""

    async def of_device(self, device_id: str) -> list[Member]:
        """A device in all its rollouts, newest change first."""

    async def counts(self, rollout_ids: Iterable[str]) -> dict[str, dict[MemberState, int]]:
        """How many members are in each state, by rollout."""

    async def save(self, members: Sequence[Member]) -> None:
        """Write back, in one go."""

    async def news(self, rollout_id: str | None, limit: int) -> list[News]:
        """Watched members whose step says something else than was seen, or whose trail went on without them.

        None: of every closed rollout.
        """

    async def due(self, rollout_id: str, now_ms: int, limit: int) -> list[Member]:
        """Members whose moment has come, earliest first."""

    async def next_due_ms(self, rollout_id: str) -> int:
        """The earliest moment at which a member must be looked at."""

    async def queue(self, rollout_id: str, *, wave: int, now_ms: int, limit: int) -> list[Member]:
        """Waiting members up to a wave whose turn may be now: those given it before first, then in order."""

    async def next_turn_ms(self, rollout_id: str, *, wave: int) -> int:
        """The earliest moment at which a waiting member up to a wave may be given the release."""

    async def verdicts(self, rollout_id: str, frontier: int) -> Verdicts:
        """What became of the members assigned at or after `frontier`; those under way are not read one by one."""

    async def open_in(self, rollout_id: str, *, wave: int | None = None) -> int:
        """How many members are not in a final state, up to a wave or in all."""

    async def last_wave(self, rollout_id: str) -> int:
        """The highest wave of any member, -1 without members."""

    async def halt(self, rollout_id: str, reason: str, now_ms: int) -> int:
        """Withdraw everybody who was not given the release yet, in one statement."""

    async def in_state(self, rollout_id: str, states: Iterable[MemberState], limit: int) -> list[Member]:
        """Members in any of the states, at most `limit`."""

    async def took(self, rollout_id: str, now_ms: int, limit: int) -> list[Member]:
        """Members that have, or may come to have, the release's parts, and may be sent back now."""

    async def elsewhere(self, rollout_id: str, device_ids: Iterable[str], *, since_ms: int) -> list[Member]:
        """What these devices are in other rollouts that are not closed or were closed since then; and where busy."""


class FleetTrails(Protocol):
    """The trails of many devices at once."""

    async def heads(self, device_ids: Iterable[str]) -> dict[str, Head]:
        """Where they stand; inside a transaction they are held, so that nobody posts meanwhile."""

    async def hashes(self, revs: Iterable[tuple[str, int]]) -> dict[tuple[str, int], str]:
        """The state's hash of each (trail, revision)."""

    async def state(self, trail_id: str, rev: int) -> bytes:
        """The state of one revision, `{}` without it."""

    async def add_steps(self, steps: Sequence[Step], objects: Mapping[str, tuple[str, ...]]) -> None:
        """Insert steps, each the newest of its trail; `objects` are what a state of that hash names."""

    async def cancel_new(self, revs: Iterable[tuple[str, int]], *, progress: str, now_ms: int) -> set[tuple[str, int]]:
        """Cancel those steps that no device has touched; returns which."""
