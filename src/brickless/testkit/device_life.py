"""A device's life without a kernel: the real supervisor, killed or cut off at named points, and what it told the disk.

Adds to `testkit.fake_linux` what a campaign of random lives needs: points by name at which the power goes or the
process dies, the history of every revision's status, and questions that must always have the same answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from brickless.core import bootenv, canonical
from brickless.core.canonical import JsonValue
from brickless.core.progress import FINAL, Message, Progress, Status, parse_progress
from brickless.core.state import parse_state
from brickless.core.update_types import HubGate, Policy
from brickless.device.boot.variables import Variables
from brickless.device.supervise import revisions
from brickless.device.supervise.jobs import Handle, Job
from brickless.device.supervise.supervisor import RefusedError, Supervisor
from brickless.store.atomic import Files
from brickless.store.trails import FACTORY, Storage
from brickless.testkit.fake_linux import Behaviour, FakeDevice, FakeMachine, World
from brickless.testkit.power_cut import PowerCutError

GROUPS: JsonValue = [
    {"name": "root", "status_goal": "STARTED", "timeout": 30, "restart_policy": "system"},
    {"name": "app", "status_goal": "STARTED", "timeout": 30, "restart_policy": "container"},
]
RECOVERY: JsonValue = {"policy": "on-failure", "max_retries": 2, "retry_delay": 1, "backoff_policy": "reboot"}
# By the first word of a version: how a container of that version behaves.
BEHAVIOURS: Mapping[str, Behaviour] = {
    "good": Behaviour(),
    "slow": Behaviour(starts_after_s=8.0),
    "deaf": Behaviour(heeds_halt=False),
    "waits": Behaviour(prepares_for_s=3.0),
    "crashes": Behaviour(exits_after_s=1.0, status=3 << 8),
    "ends": Behaviour(exits_after_s=12.0),
    "late": Behaviour(starts_after_s=90.0),
    "refuses": Behaviour(refuses="no such program"),
    "lacks": Behaviour(prepares_for_s=1.0, prepare_error="no such disk"),
}
POINTS = tuple(
    f"{when} {what}"
    for what in ("progress", "done", "current", "set_try", "commit", "give_up", "fail", "start", "mount", "tell")
    for when in ("before", "after")
)
SETTLE_S = 400.0
MAX_ROUNDS = 40


class Points:
    """Where the device dies next. One point at a time; it is past once it has struck."""

    def __init__(self) -> None:
        self.armed = ""

    def around(self, what: str, do: Callable[[], None]) -> None:
        """Do it, unless the point before it is armed; die behind it if that one is."""
        self._at(f"before {what}")
        do()
        self._at(f"after {what}")

    def _at(self, name: str) -> None:
        if self.armed == name:
            self.armed = ""
            raise PowerCutError


class QuickFiles(Files):
    """The disk keeps what is written at once: power cuts between system calls are another test's."""

    def fsync(self, fd: int) -> None:
        """Nothing is pending."""


class WatchedStorage(Storage):
    """Dies at points, and notes every status that a revision's progress takes."""

    __slots__ = ("history", "points")

    def __init__(self, root: str, points: Points) -> None:
        super().__init__(root, files=QuickFiles())
        self.points = points
        self.history: dict[str, list[Status]] = {}

    def write_progress(self, rev: str, data: bytes) -> None:
        """See Storage."""

        def write() -> None:
            super(WatchedStorage, self).write_progress(rev, data)
            self.history.setdefault(rev, []).append(parse_progress(data).status)

        self.points.around("progress", write)

    def mark_done(self, rev: str) -> None:
        """See Storage."""
        self.points.around("done", lambda: super(WatchedStorage, self).mark_done(rev))

    def set_current(self, rev: str) -> None:
        """See Storage."""
        self.points.around("current", lambda: super(WatchedStorage, self).set_current(rev))


class FileRecord:
    """The boot variables in one file, written at once."""

    def __init__(self, root: str) -> None:
        self.path = os.path.join(root, "boot", "uboot.txt")

    def load(self) -> Mapping[str, str]:
        """See `device.boot.variables.Record`."""
        try:
            with open(self.path, "rb") as stream:
                return bootenv.parse(stream.read())
        except FileNotFoundError:
            return {}

    def store(self, variables: Mapping[str, str]) -> None:
        """See `device.boot.variables.Record`."""
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        with open(self.path, "wb") as stream:
            stream.write(bootenv.render(variables))


class WatchedBoot(Variables):
    """The real order of boot variables, with points."""

    __slots__ = ("_points",)

    def __init__(self, root: str, points: Points) -> None:
        super().__init__(FileRecord(root), lambda: None)
        self._points = points

    def set_try(self, rev: str) -> None:
        """See Variables."""
        self._points.around("set_try", lambda: super(WatchedBoot, self).set_try(rev))

    def commit(self, rev: str) -> None:
        """See Variables."""
        self._points.around("commit", lambda: super(WatchedBoot, self).commit(rev))

    def give_up(self) -> None:
        """See Variables."""
        self._points.around("give_up", lambda: super(WatchedBoot, self).give_up())

    def fail(self) -> None:
        """See Variables."""
        self._points.around("fail", lambda: super(WatchedBoot, self).fail())


class WatchedMachine(FakeMachine):
    """A fake kernel with points."""

    def __init__(self, world: World, points: Points) -> None:
        super().__init__(world)
        self.points = points

    def start(self, job: Job) -> Handle:
        """See FakeMachine."""
        made: list[Handle] = []
        self.points.around("start", lambda: made.append(super(WatchedMachine, self).start(job)))
        return made[0]

    def mount(self, job: Job) -> None:
        """See FakeMachine."""
        self.points.around("mount", lambda: super(WatchedMachine, self).mount(job))

    def tell_init(self, words: str) -> None:
        """See FakeMachine."""
        self.points.around("tell", lambda: super(WatchedMachine, self).tell_init(words))


class Life(FakeDevice):
    """One device, its revisions, and who handed them over for a trial."""

    def __init__(self, folder: str) -> None:
        self.points = Points()
        self.versions: dict[str, str] = {}
        world = World(folder, lambda job: BEHAVIOURS[self.versions[job.fingerprint].partition(":")[0]])
        self.disk = WatchedStorage(world.storage.root, self.points)
        world.storage = self.disk
        # What the agent has handed over and still waits for the end of.
        self.awaited: list[str] = []
        self.supervisor_dies = False
        self.hub_is_up = True
        policy = Policy(commit_delay_s=25, hub_timeout_s=120, hub_gate=HubGate.REACHED)
        super().__init__(world, policy)
        self.bootloader = WatchedBoot(world.storage.root, self.points)  # type: ignore[assignment]  # of the same base
        self.install(FACTORY, {"net": "good:0", "db": "good:0", "web": "good:0"})
        self.power_on()
        self.run_for(SETTLE_S)

    def _new(self) -> Supervisor:
        return Supervisor(
            WatchedMachine(self.world, self.points), self.world.storage, self.bootloader, self._limits, mark=self.mark
        )

    def restart_supervisor(self, *, verify: bool = False) -> None:
        """See FakeDevice; the agent tells a new supervisor at once whether the hub is there."""
        super().restart_supervisor(verify=verify)
        self.supervisor.request({"op": "hub", "reachable": self.hub_is_up})

    def hub(self, *, reachable: bool) -> None:
        """The agent reaches the hub, or does not."""
        self.hub_is_up = reachable
        self.ask(op="hub", reachable=reachable)

    def install(self, rev: str, versions: Mapping[str, str]) -> None:
        """What an agent does before a trial: the revision is wholly on the disk."""
        entries: dict[str, JsonValue] = {"#spec": "pantavisor-service-system@1", "device.json": {"groups": GROUPS}}
        for name, version in versions.items():
            group = "root" if name == "net" else "app"
            manifest: dict[str, JsonValue] = {"name": name, "group": group, "config": "config.json"}
            if name == "db":
                manifest["auto_recovery"] = RECOVERY
            entries[f"{name}/run.json"] = manifest
            entries[f"{name}/config.json"] = {"version": version}
        state = parse_state(canonical.dumps(entries))
        for name, version in versions.items():
            self.versions[revisions.fingerprint(state, name)] = version
        self.world.storage.install(rev, state)

    # -- what happens to it ------------------------------------------------------------------------------------------

    def go(self, action: Callable[[], object]) -> None:
        """Do something to the device; when it dies at a point, it comes back as it would."""
        try:
            action()
        except PowerCutError:
            if self.supervisor_dies:
                self.restart_supervisor()
            else:
                self.power_on()

    def hand_over(self, rev: str, *, waits: bool = True) -> None:
        """Ask for a trial. The agent waits where the supervisor is busy; a local command ends there, with an error."""

        def ask() -> None:
            self.ask(op="try", rev=rev)

        if rev not in self.awaited:
            self.awaited.append(rev)
            self.disk.history[rev] = []
            queued = Progress.of(Status.QUEUED, Message.QUEUED % (1, 10))
            Storage.write_progress(self.disk, rev, queued.to_json())
        try:
            self.go(ask)
        except RefusedError as error:
            # Busy, or the revision runs already: the agent asks again, or reads the end in the progress.
            if not waits:
                self.awaited.remove(rev)
                self.disk.write_progress(rev, Progress.of(Status.ERROR, Message.INTERNAL, logs=str(error)).to_json())

    def look(self) -> None:
        """The agent looks how its trials stand: those that have ended are not waited for any more."""
        self.awaited = [rev for rev in self.awaited if not self.is_over(rev)]

    def is_over(self, rev: str) -> bool:
        """Whether the revision's progress is final and of this attempt."""
        return bool(self.disk.history[rev]) and revisions.is_final(revisions.progress_of(self.disk, rev))

    def settle(self) -> None:
        """Let all come to rest: no more faults, the hub there, the agent asking again for what was given back."""
        self.points.armed = ""
        for _ in range(MAX_ROUNDS):
            self.hub(reachable=True)
            self.run_for(SETTLE_S)
            self.look()
            if not self.awaited:
                return
            self.hand_over(self.awaited[0])
        raise AssertionError(f"revisions {self.awaited} never end: {self.disk.history}, {self.world.lines[-20:]}")

    # -- what must always hold ---------------------------------------------------------------------------------------

    def check_bootable(self) -> None:
        """What the bootloader would take now is whole, and so is the way back from it."""
        stored = self.bootloader.read()
        for rev in {stored.rev, stored.try_ or stored.rev, FACTORY}:
            found = revisions.load(self.disk, rev)
            if self.disk.missing(found.state):
                raise AssertionError(f"the bootloader names revision {rev}, which lacks objects")

    def check_unmixed(self) -> None:
        """Without a trial, and with nothing on its way out, all that runs is of the running revision."""
        status = self.ask(op="status")
        engine = self.supervisor._engine
        if status["trying"] is not None or not engine.is_quiet or self.world.ending or not engine.rev:
            return
        wanted = {job.container.name: job.fingerprint for job in revisions.load(self.disk, engine.rev).jobs}
        for name, process in self.world.processes.items():
            if wanted.get(name) != process.job.fingerprint:
                raise AssertionError(f"{name} of revision {process.job.rev} runs in revision {engine.rev}")

    def check_rest(self) -> None:
        """Once all has come to rest, what runs is what the bootloader boots, and nothing is left to be tried."""
        stored, status = self.bootloader.read(), self.ask(op="status")
        found = (stored.try_, status["trying"], status["rev"], self.disk.current())
        if found != ("", None, stored.rev, stored.rev):
            raise AssertionError(f"(try, trying, running, current) is {found}, the bootloader boots {stored.rev}")

    def check_history(self) -> None:
        """No attempt has two ends: what follows a final status is that status again."""
        for rev, history in self.disk.history.items():
            ends = [at for at, status in enumerate(history) if status in FINAL]
            if ends and set(history[ends[0] :]) != {history[ends[0]]}:
                raise AssertionError(f"revision {rev} ended more than once: {[str(status) for status in history]}")
