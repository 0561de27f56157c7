"""A device without a kernel: containers that behave as they are told, a bootloader, a PID 1, and power that can fail.

`World` is what outlives a process: the partition (a real folder), the running containers, the clock. `FakeMachine` is
what one supervisor sees of it (`device.supervise.ports.Machine`); kill a supervisor by dropping it, and give the next
one a new `FakeMachine` of the same world. `World.boot` decides as the bootloader does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import NamedTuple

from brickless.core import bootenv
from brickless.core.update_types import Policy
from brickless.device.boot.uboot import UBoot
from brickless.device.supervise.jobs import Exited, Handle, Happening, Job, Prepared, Running, Started
from brickless.device.supervise.journal import Journal, Record
from brickless.device.supervise.revisions import Revision
from brickless.device.supervise.supervisor import Limits, Supervisor
from brickless.store.trails import Storage

FIRST_PID = 100
MAX_TURNS = 10_000


class Behaviour(NamedTuple):
    """What a container does: `starts_after_s`, then, unless None, exits `exits_after_s` later with `status`.

    `refuses` is the error of its start, `prepare_error` that of
    what comes before it and takes `prepares_for_s`. `heeds_halt` says whether it ends when asked to.
    """

    starts_after_s: float = 0.1
    exits_after_s: float | None = None
    status: int = 0
    refuses: str = ""
    prepares_for_s: float | None = None
    prepare_error: str = ""
    heeds_halt: bool = True


class Process:
    """A container's monitor."""

    def __init__(self, job: Job, handle: Handle, behaviour: Behaviour, now_s: float) -> None:
        self.job = job
        self.handle = handle
        self.behaviour = behaviour
        self.start_at_s = now_s + behaviour.starts_after_s
        self.started = False
        ends = behaviour.exits_after_s
        self.exit_at_s = None if ends is None else self.start_at_s + ends
        self.status = behaviour.status


class World:
    """The device around the supervisor."""

    def __init__(self, root: str, behave: Callable[[Job], Behaviour] | None = None) -> None:
        """`behave` tells what a container does, by its job; without it all run for ever."""
        self.storage = Storage(os.path.join(root, "storage"))
        self.storage.prepare()
        self.run_dir = os.path.join(root, "run")
        self.behave = behave or (lambda _job: Behaviour())
        self.now_s = 1000.0
        self.processes: dict[str, Process] = {}
        self.mounted: set[str] = set()
        self.preparing: dict[str, tuple[float, str]] = {}
        self.exposed: list[str] = []
        self.device_faults: dict[str, list[str]] = {}
        self.lines: list[str] = []
        self.told: list[str] = []
        # Whether a debug shell is open on the console.
        self.shell = False
        self.trying = ""
        self.boots = 0
        self._next_pid = FIRST_PID
        self.pending: list[Happening] = []

    def next_pid(self) -> int:
        """A process id that was never used."""
        self._next_pid += 1
        return self._next_pid

    # -- power -------------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """What a reset forgets: processes, mounts, /run."""
        self.processes.clear()
        self.mounted.clear()
        self.preparing.clear()
        self.pending.clear()
        self.told.clear()
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def boot(self) -> tuple[str, str]:
        """Decide as the bootloader does; returns (pv_rev, pv_try) of the command line."""
        self.reset()
        self.boots += 1
        try:
            with open(os.path.join(self.storage.root, "boot", "uboot.txt"), "rb") as stream:
                env = bootenv.parse(stream.read())
        except FileNotFoundError:
            env = {}
        choice = bootenv.choose(env, self.trying)
        self.trying = choice.trying
        return choice.rev, env.get("pv_try", "")

    # -- time --------------------------------------------------------------------------------------------------------

    def due_s(self) -> float | None:
        """When the next container does something."""
        times: list[float] = [at_s for at_s, _ in self.preparing.values()]
        for process in self.processes.values():
            if not process.started:
                times.append(process.start_at_s)
            if process.exit_at_s is not None:
                times.append(process.exit_at_s)
        return min(times, default=None)

    def advance(self, until_s: float) -> None:
        """Let time pass."""
        self.now_s = max(self.now_s, until_s)
        for name, (at_s, error) in list(self.preparing.items()):
            if at_s <= self.now_s:
                del self.preparing[name]
                self.pending.append(Prepared(name, error))
        for name, process in list(self.processes.items()):
            if not process.started and process.start_at_s <= self.now_s:
                process.started = True
                self.pending.append(Started(name))
            if process.exit_at_s is not None and process.exit_at_s <= self.now_s:
                del self.processes[name]
                self.pending.append(Exited(name, process.status))

    @property
    def ending(self) -> str:
        """What the supervisor asked PID 1 for: "reboot", "poweroff" or ""."""
        return next((line for line in self.told if line in ("reboot", "poweroff")), "")


class FakeMachine:
    """See `device.supervise.ports.Machine`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.journal = Journal(world.run_dir)
        self.maps_verity = False
        self.prepared: set[str] = set()

    def now_s(self) -> float:
        """The world's clock."""
        return self.world.now_s

    def say(self, text: str) -> None:
        """Keep the line."""
        self.world.lines.append(text)

    def enter(self, revision: Revision) -> list[str]:
        """What the world says is wrong with the device under this revision."""
        return list(self.world.device_faults.get(revision.rev, ()))

    def prepare(self, job: Job) -> bool:
        """Ready at once, unless the container's behaviour says that something takes time."""
        name = job.container.name
        if name in self.prepared:
            self.prepared.discard(name)
            return True
        behaviour = self.world.behave(job)
        if behaviour.prepares_for_s is None:
            return True
        self.world.preparing[name] = (self.world.now_s + behaviour.prepares_for_s, behaviour.prepare_error)
        return False

    def cancel(self, name: str) -> None:
        """Nothing is prepared for it any more."""
        self.world.preparing.pop(name, None)

    def expose(self, job: Job, handle: Handle) -> None:
        """Note that it is visible."""
        if self._process(handle) is None:
            raise OSError("its init is gone")
        self.world.exposed.append(job.container.name)

    def mount(self, job: Job) -> None:
        """Note that the container's volumes are there."""
        self.world.mounted.add(job.container.name)

    def unmount(self, name: str) -> None:
        """Note that they are gone."""
        self.world.mounted.discard(name)

    def start(self, job: Job) -> Handle:
        """Start a process that behaves as the world says. Raises `OSError` when it is to refuse."""
        name = job.container.name
        if name in self.world.processes:
            raise RuntimeError(f"{name} runs already: two containers of one name")
        if name not in self.world.mounted:
            raise RuntimeError(f"{name} is started without its volumes")
        behaviour = self.world.behave(job)
        if behaviour.refuses:
            raise OSError(behaviour.refuses)
        handle = Handle(self.world.next_pid(), int(self.world.now_s))
        self.world.processes[name] = Process(job, handle, behaviour, self.world.now_s)
        self.journal.keep_record(Record(Running(name, job.rev, job.fingerprint, handle, started=False), 30))
        return handle

    def halt(self, name: str, handle: Handle) -> bool:
        """End the process soon, if it heeds."""
        process = self._process(handle)
        if process is None or name != process.job.container.name or not process.behaviour.heeds_halt:
            return False
        process.exit_at_s, process.status = self.world.now_s + 0.2, 0
        return True

    def kill(self, handle: Handle) -> None:
        """End the process now."""
        process = self._process(handle)
        if process is not None:
            process.exit_at_s, process.status = self.world.now_s, 9

    def _process(self, handle: Handle) -> Process | None:
        return next((process for process in self.world.processes.values() if process.handle == handle), None)

    def last_words(self, name: str) -> str:
        """What it would have said."""
        return f"last words of {name}"

    def log_to(self, rev: str) -> None:
        """There is no log."""

    def has_shell(self) -> bool:
        """Whether the world says that one is open."""
        return self.world.shell

    def tell_init(self, words: str) -> None:
        """Keep what PID 1 is told."""
        self.world.told.append(words)

    def discover(self) -> list[Running]:
        """The processes that run, as the journal has them."""
        found = []
        for record in self.journal.records():
            process = self._process(record.running.handle)
            if process is not None:
                found.append(record.running._replace(started=process.started))
        return found

    def happenings(self) -> list[Happening]:
        """What the processes did."""
        happened, self.world.pending = self.world.pending, []
        for event in happened:
            if isinstance(event, Exited):
                self.journal.drop_record(event.name)
            elif isinstance(event, Prepared) and not event.error:
                self.prepared.add(event.name)
        return happened


class FakeDevice:
    """A supervisor in a world, turned by hand."""

    def __init__(self, world: World, policy: Policy | None = None, *, goals_timeout_s: float = 120.0) -> None:
        self.world = world
        self._limits = Limits(goals_timeout_s, policy or Policy(commit_delay_s=25, hub_timeout_s=120))
        self.bootloader = UBoot(world.storage.root)
        self._cmdline_rev = "0"
        self.mark = ""
        self.supervisor = self._new()

    def _new(self) -> Supervisor:
        machine = FakeMachine(self.world)
        return Supervisor(machine, self.world.storage, self.bootloader, self._limits, mark=self.mark)

    def power_on(self, *, verify: bool = False) -> None:
        """A boot, after a power cut or the first one."""
        self._cmdline_rev, _ = self.world.boot()
        self.restart_supervisor(verify=verify)

    def restart_supervisor(self, *, verify: bool = False) -> None:
        """PID 1 starts a new supervisor; the old one is gone without a word."""
        self.supervisor = self._new()
        self.supervisor.boot(self._cmdline_rev, verify=verify)

    def step(self) -> bool:
        """One turn of the loop and the time until the next; False when nothing will happen by itself."""
        self.supervisor.tick()
        if self.world.ending:
            return True
        times = [at for at in (self.supervisor.due_s(), self.world.due_s()) if at is not None]
        if not times:
            return False
        self.world.advance(min(times))
        return True

    def run_for(self, seconds: float) -> None:
        """Let time pass; a reboot that is asked for is done."""
        end_s = self.world.now_s + seconds
        for _ in range(MAX_TURNS):
            self.supervisor.tick()
            if self.world.ending == "reboot":
                self.power_on()
                continue
            times = [at for at in (self.supervisor.due_s(), self.world.due_s()) if at is not None]
            next_s = min(times, default=end_s)
            if next_s > end_s:
                self.world.advance(end_s)
                self.supervisor.tick()
                return
            self.world.advance(next_s)
            if not times:
                return
        raise RuntimeError("the supervisor turns without end: a time that is due is never dealt with")

    def ask(self, **question: object) -> dict[str, object]:
        """A request, as the agent sends it."""
        return dict(self.supervisor.request(question))  # type: ignore[arg-type]  # questions of tests are JSON
