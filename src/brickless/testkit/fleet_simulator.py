"""Fleets in virtual time: the hub's real services and the devices' real update machine, seeded, without sockets.

`Simulation` is a world of devices around one hub: it polls, delivers, delays, doubles and loses, cuts sites off,
restarts the hub in the middle of transactions, and after every look of the driver checks what must always hold. The
scenarios are in `fleet_campaign`. Everything is drawn from one seed, so a failure is the same failure again.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from brickless.core import canonical
from brickless.hub.domain import progress as progresses
from brickless.hub.domain import scopes
from brickless.hub.domain.filters import StatusFilter
from brickless.hub.domain.fleet import NEVER_MS, OPEN, Rollout
from brickless.hub.domain.fleet_release import entries_of
from brickless.hub.domain.jsontext import parse_object
from brickless.hub.domain.policy import Policy
from brickless.hub.domain.state import check
from brickless.hub.domain.values import CallerType, Device, Identity, Step, Trail
from brickless.hub.services.fleet_driver import FleetDriver
from brickless.hub.services.fleets import Fleets, ReleaseDraft
from brickless.hub.services.parts import Parts
from brickless.hub.services.polls import PollCache
from brickless.hub.services.rollouts import RolloutDraft, Rollouts
from brickless.hub.services.trails import StepPage, Trails
from brickless.testkit.fleet_device import Luck, SimDevice
from brickless.testkit.fleet_memory import MemoryDatabase, Revs

T = TypeVar("T")
SPEC = "pantavisor-service-system@1"
OWNER = "prn:::accounts:/" + "a" * 24
START_MS = 1_767_225_600_000  # 2026-01-01
HOUR_S, DAY_S = 3600.0, 86_400.0
_TICK_MS, _IDLE_TICK_MS = 60_000, 600_000
_ACTIONABLE = StepPage(status=StatusFilter(True, progresses.ACTIONABLE))


class Crash(Exception):  # noqa: N818 - the power cut of a hub, not a fault of ours
    """The hub dies in the middle of a transaction."""


class Broken(AssertionError):  # noqa: N818 - what must always hold does not
    """An invariant does not hold."""


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing: everything it needs is in memory."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return cast(T, end.value)
    coroutine.close()
    raise RuntimeError("a service waited for something that is not in memory")


@dataclass(frozen=True)
class Faults:
    """What goes wrong around the devices: chances, and means in hours."""

    background: float = 0.002  # of devices whose update fails or whose life ends with it, whatever the release
    double: float = 0.01
    late: float = 0.02
    late_h: float = 2.0
    cut_site_every_h: float = 12.0
    cut_site_h: float = 3.0
    hub_restart_every_h: float = 24.0
    crash: float = 0.002
    not_now: float = 0.02
    revive: float = 0.3


class _Clock:
    """`services.ports.Clock` in virtual time."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def now_ms(self) -> int:
        return self._simulation.now_ms

    def monotonic_s(self) -> float:
        return self._simulation.now_ms / 1000


class Simulation:
    """One hub, one account, `count` devices at ten sites."""

    def __init__(self, seed: int, count: int, faults: Faults | None = None) -> None:
        self.seed = seed
        self.faults = faults or Faults()
        self.chance = random.Random(seed)  # noqa: S311 - seeded on purpose
        self.now_ms = self.start_ms = START_MS
        self.db = MemoryDatabase()
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = itertools.count()
        self._ids = random.Random(seed + 1)  # noqa: S311 - seeded on purpose
        self.cut: dict[str, int] = {}
        self.devices: dict[str, SimDevice] = {}
        #: Release's marker -> chance of failure, and the share of failures that are silence.
        self.bad: dict[str, tuple[float, float]] = {}
        #: Devices that failed because of a release, by its marker: the truth, whatever the hub believes.
        self.failed: dict[str, set[str]] = {}
        self.markers: dict[str, dict[str, Any]] = {}
        self._markers_of: dict[bytes, frozenset[str]] = {}
        self.posted: dict[str, int] = {}
        self._checked = 0
        self._heard = True
        self._next_tick_ms = self.now_ms
        self.ticks = 0
        self.caller = self._identity(OWNER, CallerType.USER)
        self._boot_hub()
        for number in range(count):
            self.add_device(number)
        self.db.on_write = self._maybe_crash
        self._plan_faults()

    # -- the hub -----------------------------------------------------------------------------------------------------

    def _boot_hub(self) -> None:
        unused: Any = None
        self.parts = Parts(
            db=self.db, blobs=unused, clock=_Clock(self), entropy=cast(Any, self), secrets=unused, signer=unused,
            events=self, post=unused, polls=PollCache(), presence=unused, traffic=unused, logins=unused, claims=unused,
            registrations=unused, policy=Policy(),
        )  # fmt: skip
        self.trails = Trails(self.parts)
        self.fleets = Fleets(self.parts, self.trails)
        self.driver = FleetDriver(self.parts, lambda _zone: lambda _now_ms: 0, holder=self.record_id())
        self.rollouts = Rollouts(self.parts, self.driver.wake)

    def _maybe_crash(self) -> None:
        if self.chance.random() < self.faults.crash:
            raise Crash

    def record_id(self) -> str:
        """A seeded id."""
        return f"{self._ids.getrandbits(96):024x}"

    def device_changed(self, owner: str, device_id: str) -> None:
        """See `services.ports.Events`: a device that was given something finds it at its next poll."""
        del owner
        device = self.devices.get(device_id)
        if device is not None and not device.dead and self.db.revs[device_id].newest > device.seen_rev:
            self.after(self.chance.uniform(0, device.poll_s), lambda: self._poll(device))

    def happened(self, account: str) -> None:
        """See `services.ports.Events`."""

    def logged(self, device: str) -> None:
        """See `services.ports.Events`."""

    @staticmethod
    def _identity(prn: str, kind: CallerType, owner: str = "") -> Identity:
        return Identity(prn, prn, prn, kind.value, "user", owner, frozenset({scopes.ALL}), 2**40, 0)

    def ask(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """An operator's request, sent again when the hub died of it."""
        while True:
            try:
                return run(make())
            except Crash:
                self._boot_hub()

    # -- devices -----------------------------------------------------------------------------------------------------

    def add_device(self, number: int, **labels: str) -> SimDevice:
        """A claimed device with its factory revision, straight into the database."""
        record_id, site = self.record_id(), f"site-{number % 10}"
        device = SimDevice(self, number, record_id, site)
        device.token = self._identity(f"prn:::devices:/{record_id}", CallerType.DEVICE, OWNER)
        self.devices[record_id] = device
        state = check(
            {
                "#spec": SPEC,
                "app/one.json": {"release": "0"},
                "_config/app/two.json": {"release": "0"},
                "other/three.json": {"release": "0"},
                "own/model.json": {"model": number % 5},
            }
        )
        record = Device(record_id, f"d{number:05d}", OWNER, "", "", False, "{}", "{}", self.now_ms, self.now_ms)
        self.db.devices[record_id] = record
        self.db.newest_ms = max(self.db.newest_ms, self.now_ms)
        self.db.labels[record_id] = {"site": site, "canary": "yes" if number % 100 == 0 else "no", **labels}
        self.db.trails[record_id] = Trail(record_id, OWNER, False, state.raw, "null", self.now_ms, self.now_ms)
        done = canonical.dumps(progresses.fresh(progresses.DONE)).decode()
        self.db.steps[record_id, 0] = Step(
            record_id, 0, OWNER, "", "factory", state.raw, state.sha, "{}", "null", progresses.DONE, done, self.now_ms,
            self.now_ms, self.now_ms, self.now_ms,
        )  # fmt: skip
        self.db.revs[record_id] = Revs()
        return device

    def _poll(self, device: SimDevice) -> None:
        if device.dead:
            return
        if not self.online(device):
            self.after(device.poll_s, lambda: self._poll(device))
            return
        steps = self.ask(lambda: self.trails.steps(device.token, device.id, _ACTIONABLE))
        if not steps:
            return
        if steps[-1].status == progresses.NEW and not device.busy and self.chance.random() < self.faults.not_now:
            asked: dict[str, canonical.JsonValue] = {
                "status": "QUEUED",
                "not-now": {"for-s": 7200, "reason": "a patient is connected"},
            }
            self._deliver(device, steps[-1].rev, canonical.dumps(asked))
            self.after(7200, lambda: self._poll(device))
            return
        device.seen_rev = max(device.seen_rev, steps[-1].rev)
        device.offered([one.rev for one in steps])
        if device.busy:
            self.after(device.poll_s * 4, lambda: self._poll(device))

    # -- fleet_device.World ------------------------------------------------------------------------------------------

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Do it later."""
        heapq.heappush(self._events, (self.now_ms + int(seconds * 1000), next(self._sequence), act))

    def uniform(self, low: float, high: float) -> float:
        """A seeded number."""
        return self.chance.uniform(low, high)

    def online(self, device: SimDevice) -> bool:
        """Whether the hub can be reached from there."""
        return self.cut.get(device.site, 0) <= self.now_ms

    def luck(self, device: SimDevice, rev: int) -> Luck:
        """By the device, the release and the seed: a device that cannot take a release never can."""
        markers = self.markers_of(self.db.steps[device.id, rev].state) - self.markers_of(
            self.db.steps[device.id, device.rev].state
        )
        for marker in sorted(markers):
            rate, silent = self.bad.get(marker, (0.0, 0.0))
            draw = random.Random(f"{self.seed} {device.id} {marker}")  # noqa: S311 - seeded on purpose
            if draw.random() < rate:
                self.failed.setdefault(marker, set()).add(device.id)
                return Luck.DIES if draw.random() < silent else Luck.FAILS
        if self.chance.random() < self.faults.background:
            return Luck.DIES if self.chance.random() < 0.3 else Luck.FAILS
        return Luck.WELL

    def died(self, device: SimDevice) -> None:
        """Some are found dead, and turned off and on, days later."""
        if self.chance.random() < self.faults.revive:
            self.after(self.chance.uniform(1, 10) * DAY_S, device.revive)

    def runs(self, device: SimDevice, rev: int) -> None:
        """Nobody runs half of a release."""
        self._check_state(self.db.steps[device.id, rev].state, f"device {device.id} runs revision {rev}")

    def report(self, device: SimDevice, rev: int, progress: bytes) -> None:
        """Reports arrive, late at times, twice at times; what cannot be sent is kept, the newest of each revision."""
        if not self.online(device):
            device.unsent[rev] = progress
            return
        if self.chance.random() < self.faults.late:
            self.after(
                self.chance.uniform(0, self.faults.late_h) * HOUR_S, lambda: self._deliver(device, rev, progress)
            )
            return
        self._deliver(device, rev, progress)
        if self.chance.random() < self.faults.double:
            self.after(
                self.chance.uniform(0, self.faults.late_h) * HOUR_S, lambda: self._deliver(device, rev, progress)
            )

    def _deliver(self, device: SimDevice, rev: int, progress: bytes) -> None:
        body = parse_object(progress, max_bytes=100_000)
        self.ask(lambda: self.trails.report(device.token, device.id, rev, body))
        self._heard = True

    # -- faults ------------------------------------------------------------------------------------------------------

    def _plan_faults(self) -> None:
        def cut_site() -> None:
            site = f"site-{self.chance.randrange(10)}"
            hours = self.chance.expovariate(1 / self.faults.cut_site_h)
            self.cut[site] = max(self.cut.get(site, 0), self.now_ms + int(min(hours, 12) * HOUR_S * 1000))
            self.after((self.cut[site] - self.now_ms) / 1000 + 1, lambda: self._back(site))
            self.after(self.chance.expovariate(1 / self.faults.cut_site_every_h) * HOUR_S, cut_site)

        def restart() -> None:
            self._boot_hub()
            self._heard = True
            self.after(self.chance.expovariate(1 / self.faults.hub_restart_every_h) * HOUR_S, restart)

        self.after(self.chance.uniform(0, self.faults.cut_site_every_h) * HOUR_S, cut_site)
        self.after(self.chance.uniform(0, self.faults.hub_restart_every_h) * HOUR_S, restart)

    def _back(self, site: str) -> None:
        if self.cut.get(site, 0) > self.now_ms:
            return
        for device in self.devices.values():
            if device.site == site and not device.dead:
                device.reconnected()

    # -- time --------------------------------------------------------------------------------------------------------

    def until(self, days: float, done: Callable[[], bool] = lambda: False) -> None:
        """Let the time go on, at most to that day since the beginning, or until `done` after a look of the driver."""
        end_ms = self.start_ms + int(days * DAY_S * 1000)
        while self.now_ms < end_ms:
            event_ms = self._events[0][0] if self._events else NEVER_MS
            tick_ms = self._next_tick_ms
            if self._heard:
                tick_ms = min(tick_ms, self.now_ms + _TICK_MS)
                self._next_tick_ms = tick_ms
            self.now_ms = max(self.now_ms, min(event_ms, tick_ms, end_ms))
            if event_ms <= tick_ms and event_ms <= end_ms:
                heapq.heappop(self._events)[2]()
            elif tick_ms <= end_ms:
                self._tick()
                if done():
                    return

    def _tick(self) -> None:
        self._heard = False
        self.ticks += 1
        self.driver.wake()
        try:
            again_ms = run(self.driver.tick())
        except Crash:
            self._boot_hub()
            again_ms = self.now_ms
            self._heard = True
        self._next_tick_ms = self.now_ms + (0 if again_ms <= self.now_ms else _IDLE_TICK_MS)
        if again_ms <= self.now_ms:
            self._next_tick_ms = self.now_ms + 1000
        self._check()

    # -- releases and rollouts ---------------------------------------------------------------------------------------

    def release(self, marker: str, fragment: str) -> str:
        """A release whose every entry bears its marker; returns its id."""
        parts = {
            path: {"release": marker}
            for path in ("app/one.json", "_config/app/two.json", "other/three.json")
            if any(path.startswith(part + "/") for part in fragment.split(","))
        }
        self.markers[marker] = parts
        state: dict[str, Any] = {"#spec": SPEC, **parts}
        draft = ReleaseDraft(state=state, fragment=fragment, name=f"release-{marker}")
        return self.ask(lambda: self.fleets.create_release(self.caller, draft)).id

    def forget_release(self, marker: str) -> None:
        """Its rollout was over before another one began: what devices have of it is their own past, parts of it too."""
        del self.markers[marker]
        self._markers_of.clear()

    def roll_out(self, draft: RolloutDraft) -> str:
        """Begin a rollout; returns its id."""
        name = draft.name or f"rollout-{len(self.db.rollouts)}"
        draft = draft._replace(name=name)
        while True:
            try:
                return run(self.rollouts.create(self.caller, draft)).rollout.id
            except Crash:
                self._boot_hub()

    def abort(self, rollout_id: str) -> None:
        """Abort, and remember that nothing may be posted for it any more."""
        self.ask(lambda: self.rollouts.abort(self.caller, rollout_id))
        self.posted[rollout_id] = self._steps_of(rollout_id)

    def roll_back(self, rollout_id: str) -> None:
        """Send everybody back."""
        self.posted.pop(rollout_id, None)
        self.ask(lambda: self.rollouts.roll_back(self.caller, rollout_id))

    def post_by_hand(self, device: SimDevice) -> None:
        """A person changes something of the device's own, on top of what it runs."""
        entries = entries_of(self.db.steps[device.id, self.db.revs[device.id].done].state)
        entries["own/by-hand.json"] = {"at": self.now_ms}
        state = check(entries)
        self.ask(
            lambda: self.trails.post(
                self.caller, device.id, rev=-1, message="by hand", state=state, meta={}, autolink=False
            )
        )

    def rollout(self, rollout_id: str) -> Rollout:
        """How it stands."""
        return self.db.rollouts[rollout_id]

    def _steps_of(self, rollout_id: str) -> int:
        committer = self.rollout(rollout_id).prn
        return sum(step.committer == committer for step in self.db.steps.values())

    # -- what must always hold ---------------------------------------------------------------------------------------

    def markers_of(self, state: bytes) -> frozenset[str]:
        """The releases that a state has whole. Raises Broken for one that it has a part of."""
        known = self._markers_of.get(state)
        if known is not None:
            return known
        entries, whole = entries_of(state), set()
        for marker, parts in self.markers.items():
            here = [path for path, value in parts.items() if entries.get(path) == value]
            if here and len(here) != len(parts):
                raise Broken(f"a state has only {here} of the release {marker}")
            if here:
                whole.add(marker)
        self._markers_of[state] = frozenset(whole)
        return self._markers_of[state]

    def _check_state(self, state: bytes, what: str) -> None:
        try:
            self.markers_of(state)
        except Broken as error:
            raise Broken(f"{what}: {error}") from error

    def _check(self) -> None:
        """Every step ever posted is whole; every member is in one state and, while that is open, has a deadline."""
        for step in itertools.islice(self.db.steps.values(), self._checked, None):
            if step.state not in self._markers_of:
                self._check_state(step.state, f"revision {step.rev} of device {step.trail_id}")
        self._checked = len(self.db.steps)
        for rollout_id, posted in self.posted.items():
            if self._steps_of_fast(rollout_id) != posted:
                raise Broken(f"rollout {rollout_id} posted a step after it was aborted")
        if self.ticks % 50 == 0:
            self.check_members()

    def _steps_of_fast(self, rollout_id: str) -> int:
        return self._steps_of(rollout_id) if self.ticks % 50 == 0 else self.posted[rollout_id]

    def check_members(self, *, overdue_ms: int = 3_600_000) -> None:
        """Members against the states' promises."""
        for index in self.db.indexes.values():
            for member in index.members.values():
                if member.state in OPEN:
                    if not self.now_ms - overdue_ms < member.deadline_ms < NEVER_MS or not member.reason:
                        raise Broken(f"{member} is open and nothing ends it")
                elif member.due_ms != NEVER_MS:
                    raise Broken(f"{member} is final and still due")

    def digest(self) -> str:
        """A hash of everything that the hub knows in the end: equal for equal seeds."""
        total = hashlib.sha256()
        for rollout_id in sorted(self.db.indexes):
            for device_id, member in sorted(self.db.indexes[rollout_id].members.items()):
                total.update(f"{device_id} {member.state} {member.rev} {member.verdict}\n".encode())
        return total.hexdigest()
