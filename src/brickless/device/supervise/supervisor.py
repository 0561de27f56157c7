"""The supervisor: boots a revision, drives its trial to a commit or a rollback, and takes requests in between.

What an update does and when is decided by `core.update`, how containers stand by `engine`; here both meet the disk,
the bootloader and PID 1. Everything may end at any point: what is on the disk, in the bootloader's variables and in
the journal (`/run`) is enough to go on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

from brickless.core import transition, update
from brickless.core.canonical import JsonValue
from brickless.core.errors import BricklessError, HostileInputError
from brickless.core.paths import check_revision
from brickless.core.progress import Message, Progress, Status
from brickless.core.state import State
from brickless.core.update_types import Booted, HubGate, ObjectBroken, Phase, Policy, Refused, TrialStarted
from brickless.device.boot.backend import Bootloader
from brickless.device.supervise import describe, revisions
from brickless.device.supervise.engine import Engine, Failure
from brickless.device.supervise.journal import Session, Tried
from brickless.device.supervise.ports import Machine
from brickless.device.supervise.revisions import Revision
from brickless.device.supervise.trial import Standing, Trial
from brickless.device.supervise.unit import Goal, Unit
from brickless.store.trails import FACTORY, Storage

# A revision that is committed and cannot run: long enough to be read on a console, and to spare the flash.
BAD_REVISION_DELAY_S = 30.0


class RefusedError(BricklessError):
    """A request that cannot be served now; the message says why."""


class BrokenObjectsError(HostileInputError):
    """Files of a revision that do not hash to what its state says."""


class Limits(NamedTuple):
    """Times from the configuration, in seconds."""

    goals_timeout_s: float
    policy: Policy
    # Whether a container whose manifest does not speak of roles may manage the device (PV_ROLES_DEFAULT_MGMT).
    default_mgmt: bool = False


class Supervisor:
    """One device. `tick` after each event and at `due_s`. It is the `Hands` of its trial."""

    __slots__ = (
        "_announced",
        "_boot",
        "_confirm_at_s",
        "_ending",
        "_engine",
        "_hub_reachable",
        "_limits",
        "_machine",
        "_mark",
        "_reboot_at_s",
        "_revision",
        "_storage",
        "_trial",
        "judge",
        "on_configure",
        "on_event",
        "on_revision",
    )

    def __init__(self, machine: Machine, storage: Storage, boot: Bootloader, limits: Limits, *, mark: str = "") -> None:
        """`mark` is what the bootloader called this boot, "" when it does not count them."""
        self._machine = machine
        self._storage = storage
        self._boot = boot
        self._limits = limits
        self._engine = Engine(machine, limits.goals_timeout_s)
        self._revision: Revision | None = None
        self._trial: Trial | None = None
        self._hub_reachable = False
        self._mark = mark
        self._confirm_at_s: float | None = None
        self._reboot_at_s: float | None = None
        # What PID 1 is told at that time: reboot, or poweroff.
        self._ending = "reboot"
        # Judges a state's signatures: (message that refuses it or "", reason or remark). None: they are not looked at.
        self.judge: Callable[[State], tuple[str, str]] | None = None
        self.on_revision: Callable[[Revision], None] = _nothing
        self.on_configure: Callable[[], None] = _no_change
        # Called with what happened (device.md 3.10) and the revision.
        self.on_event: Callable[[str, str], None] = _no_event
        # The revision whose goals were reached, once that was told.
        self._announced = ""

    # -- boot ------------------------------------------------------------------------------------------------------

    def boot(self, wanted: str, *, verify: bool) -> None:
        """Start the revision that the bootloader chose, or go on with the one that an earlier supervisor ran."""
        session = self._machine.journal.session()
        if session is not None:
            self._resume(session)
            return
        stored = self._boot.read()
        trying = bool(wanted == stored.try_ and wanted != stored.rev)
        if trying:
            self._boot_trial(wanted, stored.rev, verify=verify)
            return
        revision = self._first_good(revisions.fallbacks(self._storage, wanted, stored.rev), verify=verify)
        self._close_old_tries(wanted, stored.try_)
        if revision is None:
            self._reboot_in(BAD_REVISION_DELAY_S)
            return
        self._settle(revision.rev, Booted(revision.rev))
        self._machine.journal.keep_session(Session(revision.rev))
        self._enter(revision, trial=False)

    def _boot_trial(self, rev: str, previous: str, *, verify: bool) -> None:
        """The bootloader tries `rev`: nothing else will do, and whatever is wrong with it ends in the way back."""
        self._machine.tell_init("trial 1")
        trial = self._begin(rev, previous)
        trial.send(Booted(rev, trying=True))
        if self._reboot_at_s is not None:
            return
        try:
            revision = self._whole(rev, verify=verify)
        except BrokenObjectsError as error:
            trial.send(ObjectBroken(str(error)))
            return
        except (OSError, HostileInputError) as error:
            trial.send(Refused(_boot_message(error), str(error)))
            return
        self._machine.journal.keep_session(Session(rev, Tried(rev, previous, reboot=True)))
        self._enter(revision, trial=True)

    def _resume(self, session: Session) -> None:
        """Another supervisor ran before us since the boot: its containers may still run, its trial is taken up."""
        self._machine.say(f"supervisor started again at revision {session.rev}")
        tried = session.trial
        if tried is not None:
            ended = revisions.progress_of(self._storage, tried.rev)
            if ended is not None and ended.is_final and self._resume_ended(tried, ended.status):
                return
        revision = revisions.load(self._storage, session.rev)
        if tried is None:
            self._enter(revision, trial=False)
            return
        trial = self._begin(tried.rev, tried.previous)
        if tried.reboot:
            trial.send(Booted(tried.rev, trying=True))
            if self._reboot_at_s is None:
                self._enter(revision, trial=True)
        else:
            trial.send(TrialStarted(reboot=False, detail="the supervisor was started again"))

    def _resume_ended(self, tried: Tried, status: Status) -> bool:
        """A trial whose end is on the disk has no second one: what was left to do is done. False: that is a reboot."""
        if status is Status.DONE:
            rev = tried.rev
            self._settle(rev, Booted(rev))
        elif tried.reboot:
            return False
        else:
            rev = tried.previous
            self.fail_try(rev)
        self._machine.journal.keep_session(Session(rev))
        self._enter(revisions.load(self._storage, rev), trial=False)
        return True

    def _begin(self, rev: str, previous: str) -> Trial:
        stored = revisions.progress_of(self._storage, rev)
        again = stored is not None and stored.is_final and stored.status is not Status.ERROR
        # Going back to the factory's revision needs nobody's leave: no hub knows of it.
        policy = self._limits.policy._replace(hub_gate=HubGate.OFF) if rev == FACTORY else self._limits.policy
        state = update.start(rev, previous=previous, stored=stored, policy=policy, again=again)
        self._trial = Trial(self, state)
        return self._trial

    def _first_good(self, candidates: list[str], *, verify: bool) -> Revision | None:
        """The first revision that is whole; each one that is not is named with its fault."""
        for rev in candidates:
            try:
                revision = self._whole(rev, verify=verify)
            except (OSError, HostileInputError) as error:
                self._machine.say(f"revision {rev} cannot run: {error}")
                continue
            if rev != candidates[0]:
                self._machine.say(f"revision {rev} runs in place of {candidates[0]}")
            return revision
        self._machine.say(
            f"no revision can run: tried {', '.join(candidates)}; rebooting in {BAD_REVISION_DELAY_S:g} s"
        )
        return None

    def _whole(self, rev: str, *, verify: bool) -> Revision:
        """Read a revision and check what must be before it runs: the hashes with `verify`, signatures always."""
        revision = revisions.load(self._storage, rev)
        if not verify and self.judge is None:
            return revision
        skip = revisions.mapped_by_verity(revision.state) if self._machine.maps_verity else revisions.NOTHING
        faults, notes = revisions.check_apart(self._storage, revision, revisions.Checks(verify, skip, self.judge))
        for note in notes:
            self._machine.say(f"revision {rev} {note}")
        if faults:
            raise BrokenObjectsError(" ".join(faults[:3]))
        return revision

    def _close_old_tries(self, running: str, tried: str) -> None:
        """On a boot that is no try: what was tried before ended, one way or the other (device.md 3.3)."""
        known = self._storage.revisions()
        if tried and tried != running and tried in known:
            self._settle(tried, Booted(running, fell_back=True))
        elif tried:
            self._boot.fail()
        for rev in revisions.unfinished(self._storage, running):
            self._settle(rev, Booted(running))

    def _settle(self, rev: str, booted: Booted) -> None:
        """Bring one revision's markers up to date after a boot; what the disk refuses is said."""
        stored = revisions.progress_of(self._storage, rev)
        trial = Trial(self, update.start(rev, previous=booted.running, stored=stored, policy=self._limits.policy))
        trial.send(booted)

    def _enter(self, revision: Revision, *, trial: bool) -> None:
        """Make a revision the running one and bring its containers up; those that run already are adopted."""
        self._revision = revision
        self._machine.log_to(revision.rev)
        self._machine.tell_init(f"trial {int(trial)}")
        if self._storage.current() != revision.rev:
            self._storage.set_current(revision.rev)
        self.on_revision(revision)
        self._machine.say(f"revision {revision.rev} started")
        first = not self._engine.rev
        faults = self._machine.enter(revision)
        self._engine.converge(revision.rev, revision.state.groups, revision.jobs, trial=trial)
        self._device_faults(faults, trial=trial)
        if first:
            self._engine.adopt(self._machine.discover())
        self._engine.tick()

    def _device_faults(self, faults: list[str], *, trial: bool) -> None:
        """What a revision asks of the device and does not get fails its trial; once it is committed it is said."""
        for fault in faults:
            self._machine.say(f"revision {self._engine.rev}: {fault}")
        if faults and trial:
            self._engine.failures.append(Failure("device", "; ".join(faults)))

    # -- time ------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Take in what happened and do what is due."""
        for event in self._machine.happenings():
            self._engine.happened(event)
        self._engine.tick()
        if self._reboot_at_s is not None:
            if self._machine.now_s() >= self._reboot_at_s and self._engine.is_quiet:
                self._reboot_at_s = None
                self._machine.tell_init(self._ending)
            return
        self._announce()
        if self._trial is None:
            self._watch_committed()
            return
        self._trial.tick(self._standing())
        if self._trial.finished:
            self._end_trial()

    def _announce(self) -> None:
        """Tell once that a revision has reached its goals; the first one of a boot ends the boot."""
        rev = self._engine.rev
        if not rev or rev == self._announced or self._engine.goal() > Goal.ACHIEVED:
            return
        if not self._announced:
            self.on_event("system-boot-done", rev)
        self._announced = rev
        self.on_event("system-done", rev)

    def due_s(self) -> float | None:
        """When `tick` must be called at the latest."""
        times = [self._engine.due_s(), None if self._trial is None else self._trial.due_s()]
        if self._reboot_at_s is not None and self._engine.is_quiet:
            times.append(self._reboot_at_s)
        if self._trial is None and self._reboot_at_s is None:
            times.append(self._confirm_at_s)
        return min((at for at in times if at is not None), default=None)

    @property
    def reached(self) -> bool:
        """Whether the running revision's containers are where they should be."""
        return self._engine.goal() <= Goal.ACHIEVED

    @property
    def scopes(self) -> frozenset[str]:
        """What must not be slept through now (device.md 5.12)."""
        held = {
            "boot": not self._announced,
            "update": self._trial is not None,
            "shutdown": self._reboot_at_s is not None,
        }
        return frozenset(scope for scope, holds in held.items() if holds)

    def _standing(self) -> Standing:
        engine = self._engine
        failed = [f"{failure.name}: {failure.reason}" for failure in engine.failures]
        late = engine.late()
        if self._trial is not None:
            # One that keeps ending was not too slow: its exits are the reason, not the time.
            failed += [_crash_loop(unit) for unit in late if unit.last_exit]
        return Standing(
            reached=self.reached,
            stable=engine.is_stable,
            failed="; ".join(failed),
            late=", ".join(f"{unit.name} is {unit.status.name}" for unit in late),
            quiet=engine.is_quiet,
        )

    def _end_trial(self) -> None:
        self._trial = None
        self._engine.trial = False
        self._machine.journal.keep_session(Session(self._engine.rev))
        self._machine.tell_init("trial 0")

    def _watch_committed(self) -> None:
        """Without a trial: a container that nothing brings back takes the device down, slowly (device.md 3.8)."""
        standing = self._standing()
        failed = standing.failed
        if self._mark:
            self._confirm_in_time(well=standing.reached and not failed)
        if failed:
            self._machine.say(f"revision {self._engine.rev} failed, {failed}: rebooting in {BAD_REVISION_DELAY_S:g} s")
            self._reboot_in(BAD_REVISION_DELAY_S)

    def _confirm_in_time(self, *, well: bool) -> None:
        """Tell a bootloader that counts boots that this one went well, once, and only when it has for a while."""
        now_s = self._machine.now_s()
        if not well:
            self._confirm_at_s = None
        elif self._confirm_at_s is None:
            self._confirm_at_s = now_s + self._limits.policy.commit_delay_s
        elif now_s >= self._confirm_at_s:
            self._confirm()

    def _confirm(self) -> None:
        mark, self._mark = self._mark, ""
        self._confirm_at_s = None
        try:
            self._boot.confirm(mark)
        except OSError as error:
            self._machine.say(f"the bootloader cannot be told that all is well: {error}")

    def _reboot_in(self, delay_s: float) -> None:
        self._reboot_at_s = self._machine.now_s() + delay_s
        if delay_s == 0:
            self._engine.stop_all()

    # -- hands of a trial ------------------------------------------------------------------------------------------

    def now_s(self) -> float:
        """Seconds of a clock that only goes forward."""
        return self._machine.now_s()

    def persist(self, rev: str, progress: Progress) -> None:
        """Write a revision's progress. Only the last word of a failed one is not waited for: the way back is."""
        before = revisions.progress_of(self._storage, rev)
        try:
            self._storage.write_progress(rev, progress.to_json())
        except OSError as error:
            if progress.status is not Status.ERROR:
                raise
            self._machine.say(f"revision {rev}: its error cannot be stored: {error}")
        if progress.status is Status.ERROR:
            self._machine.say(f"revision {rev} ERROR {progress.message}: {_detail(progress)}")
        elif before is None or before.status is not progress.status:
            self._machine.say(f"revision {rev} {progress.status.value}")

    def set_try(self, rev: str) -> None:
        """Have the bootloader try the revision at the next boot."""
        self._boot.set_try(rev)
        self.on_event("system-install-update", rev)

    def reboot(self, reason: str) -> None:
        """Stop the containers and start the device anew."""
        self._machine.say(f"rebooting: {reason}")
        if self._trial is not None and self._trial.state.phase is Phase.ROLLING_BACK:
            self._give_up()
        self._reboot_in(0.0)

    def _give_up(self) -> None:
        try:
            self._boot.give_up()
        except OSError as error:
            # The bootloader tries it again, as often as its bound says, and each time it ends here.
            self._machine.say(f"the bootloader cannot be told: {error}")

    def transition(self, rev: str) -> None:
        """Make `rev` the running revision, in place."""
        trial = self._trial
        if trial is None:
            raise RuntimeError(f"no trial leads to revision {rev}")
        revision = self._load(rev)
        self._machine.journal.keep_session(Session(rev, Tried(rev, trial.state.previous, reboot=False)))
        self._enter(revision, trial=True)

    def commit(self, rev: str) -> None:
        """Make `rev` the revision that the bootloader boots."""
        self._boot.commit(rev)

    def mark_done(self, rev: str) -> None:
        """Write the revision's done marker, once."""
        if not self._storage.is_done(rev):
            self._storage.mark_done(rev)

    def fail_try(self, previous: str) -> None:
        """Clear the bootloader's try; it boots `previous`."""
        if self._boot.read().rev == previous:
            self._boot.fail()
        else:
            self._boot.commit(previous)

    def roll_back(self, rev: str) -> None:
        """Make the previous revision the running one again, in place."""
        revision = self._load(rev)
        self._machine.journal.keep_session(Session(rev))
        self._enter(revision, trial=False)

    def _load(self, rev: str) -> Revision:
        try:
            return revisions.load(self._storage, rev)
        except HostileInputError as error:
            raise OSError(f"revision {rev} cannot be read: {error}") from error

    # -- requests --------------------------------------------------------------------------------------------------

    def request(self, question: dict[str, JsonValue]) -> dict[str, JsonValue]:
        """One question of the agent or of the control socket. Raises `RefusedError`, and what the disk refuses."""
        op, name = question.get("op"), question.get("name")
        if op == "status":
            return self._status()
        if op == "try":
            return self._try(question.get("rev"), reboot=question.get("reboot") is True)
        if op == "hub":
            return self._hub(question.get("reachable") is True)
        if isinstance(op, str) and op in ("ready", "stop", "start", "restart") and isinstance(name, str):
            return self._container(op, name)
        if isinstance(op, str) and op in ("reboot", "poweroff"):
            return self._power(op, str(question.get("message") or ""))
        if op == "configure":
            self.on_configure()
            return {"ok": True}
        if op == "defer-reboot":
            return self._defer(question.get("seconds"))
        raise RefusedError(f"The supervisor does not know {str(op)[:40]!r}")

    def _defer(self, seconds: JsonValue) -> dict[str, JsonValue]:
        if not self._machine.has_shell():
            raise RefusedError("No debug shell is open that a reboot could wait for")
        if not isinstance(seconds, int) or isinstance(seconds, bool) or not 0 <= seconds < 10**6:
            raise RefusedError("The request names no number of seconds")
        self._machine.tell_init(f"defer {seconds}")
        return {"ok": True}

    def _hub(self, reachable: bool) -> dict[str, JsonValue]:
        self._hub_reachable = reachable
        if self._trial is not None:
            self._trial.hub(reachable=reachable)
        return {"ok": True}

    def _try(self, rev: JsonValue, *, reboot: bool) -> dict[str, JsonValue]:
        """Hand a revision over for its trial: from here on its progress is ours. `reboot` asks for a reboot anyway."""
        if not isinstance(rev, str):
            raise RefusedError("The request names no revision")
        check_revision(rev)
        current = self._revision
        if self._trial is not None or self._reboot_at_s is not None or current is None:
            busy = self._trial.state.rev if self._trial is not None else self._engine.rev
            raise RefusedError(f"Revision {busy} is being tried or left: try again later")
        if rev == current.rev:
            raise RefusedError(f"Revision {rev} is running already")
        try:
            revision = revisions.load(self._storage, rev)
        except FileNotFoundError as error:
            raise RefusedError(f"Revision {rev} is not installed: {error}") from error
        missing = self._storage.missing(revision.state)
        if missing:
            raise RefusedError(f"Revision {rev} lacks the object {missing[0][1]} of {missing[0][0]}")
        way = transition.plan(current.state, revision.state, force_reboot="it was asked for" if reboot else "")
        how = "by a reboot" if way.reboot else "in place"
        self._machine.say(f"revision {rev} requested, {how}: {'; '.join(way.reasons) or 'nothing differs'}")
        trial = self._begin(rev, current.rev)
        trial.send(TrialStarted(way.reboot, "; ".join(way.reasons)))
        if self._hub_reachable:
            trial.hub(reachable=True)
        return {"ok": True, "reboot": way.reboot}

    def _container(self, op: str, name: str) -> dict[str, JsonValue]:
        if op == "ready":
            known = self._engine.ready(name)
        elif op == "start":
            known = self._engine.start(name)
        else:
            known = self._engine.stop(name, restart=op == "restart")
        if not known:
            raise RefusedError(f"There is no container {name[:64]!r} to {op}")
        self._engine.tick()
        return {"ok": True}

    def use(self, limits: Limits) -> None:
        """Other times from now on; a trial that runs keeps its own."""
        self._limits = limits
        self._engine.default_timeout_s = limits.goals_timeout_s

    def _power(self, op: str, message: str) -> dict[str, JsonValue]:
        self._ending = op
        self._machine.say(f"{op} on request{': ' if message else ''}{message}")
        self._reboot_in(0.0)
        return {"ok": True}

    def _status(self) -> dict[str, JsonValue]:
        """How everything stands. `status` is that of device metadata; `containers`, `groups` as in 6.2."""
        engine, now_s = self._engine, self._machine.now_s()
        units = list(engine.units)
        default_mgmt = self._limits.default_mgmt
        return {
            "ok": True,
            "rev": engine.rev,
            "trying": self._trial.state.rev if self._trial is not None else None,
            "goal": engine.goal().name,
            "status": describe.status_of(units, now_s).name,
            "containers": [describe.container(unit, default_mgmt=default_mgmt) for unit in units],
            "groups": describe.groups(engine.groups, units, now_s),
        }


def _crash_loop(unit: Unit) -> str:
    times = f"{unit.retries} times" if unit.retries > 1 else "once"
    return f"{unit.name}: it ended {times} and did not reach its goal within {unit.timeout_s:g} s, {unit.last_exit}"


def _boot_message(error: Exception) -> str:
    if isinstance(error, revisions.RefusedSignatureError):
        return error.status
    if isinstance(error, FileNotFoundError):
        return Message.NO_STATE
    return Message.BAD_STATE if isinstance(error, HostileInputError) else Message.INTERNAL


def _detail(progress: Progress) -> str:
    """The reason that the progress carries, in words."""
    try:
        entry = json.loads(progress.logs.partition("\n")[0] or "{}")
    except ValueError:
        return progress.logs
    return str(entry.get("msg", "")) if isinstance(entry, dict) else ""


def _no_event(_what: str, _rev: str) -> None:
    pass


def _no_change() -> None:
    """Nobody reads the configuration anew."""


def _nothing(_revision: Revision) -> None:
    """No one asked to be told."""


def revision_of(cmdline: str) -> str:
    """`pv_rev` of the kernel's command line (device.md 3.2): the factory revision when it is absent or no name."""
    for word in cmdline.split():
        key, _, value = word.partition("=")
        if key == "pv_rev" and value:
            try:
                check_revision(value)
            except HostileInputError:
                return FACTORY
            return value
    return FACTORY


def mark_of(cmdline: str) -> str:
    """`pv_mark` of the kernel's command line: what the bootloader calls this boot; "" when it does not count boots."""
    words = dict(word.partition("=")[::2] for word in cmdline.split())
    mark = words.get("pv_mark", "")
    return mark if mark.isascii() and mark.isdigit() and len(mark) <= 4 else ""


def quickboot(cmdline: str, environ: dict[str, str]) -> bool:
    """Whether the pass over all objects is to be skipped: `pv_quickboot` with a value (device.md 2.4)."""
    words = dict(word.partition("=")[::2] for word in cmdline.split())
    return bool(words.get("pv_quickboot") or environ.get("pv_quickboot"))
