"""The supervisor: boots a revision, drives its trial to a commit or a rollback, and takes requests in between.

The order on the disk at the end of a trial is that of `boot.uboot`: progress first, then the bootloader, then
`.pv/done`. A trial that the bootloader started fails by a reboot; one in place fails by a `converge` back, and by a
reboot only if that fails as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from brickless.core import transition
from brickless.core.canonical import JsonValue
from brickless.core.errors import BricklessError, HostileInputError
from brickless.core.paths import check_revision
from brickless.core.progress import Message, Progress, Status
from brickless.device.boot.backend import Bootloader
from brickless.device.supervise import revisions, verdict
from brickless.device.supervise.engine import Engine
from brickless.device.supervise.journal import Session, Trial
from brickless.device.supervise.machine import LinuxMachine
from brickless.device.supervise.revisions import Revision
from brickless.device.supervise.unit import Goal, Unit
from brickless.store.trails import FACTORY, Storage

# A revision that is committed and cannot run: long enough to be read on a console, and to spare the flash.
BAD_REVISION_DELAY_S = 30.0


class RefusedError(BricklessError):
    """A request that cannot be served now; the message says why."""


class Limits(NamedTuple):
    """Times from the configuration, in seconds."""

    goals_timeout_s: float
    commit_delay_s: float
    network_timeout_s: float


class Supervisor:
    """One device. `tick` after each event and at `due_s`."""

    __slots__ = (
        "_boot",
        "_engine",
        "_hub_away_since_s",
        "_hub_ever",
        "_limits",
        "_machine",
        "_message",
        "_reboot_at_s",
        "_revision",
        "_rolled_back",
        "_storage",
        "_testing_since_s",
        "_trial",
        "_trial_since_s",
        "on_revision",
    )

    def __init__(self, machine: LinuxMachine, storage: Storage, boot: Bootloader, limits: Limits) -> None:
        self._machine = machine
        self._storage = storage
        self._boot = boot
        self._limits = limits
        self._engine = Engine(machine, limits.goals_timeout_s)
        self._revision: Revision | None = None
        self._trial: Trial | None = None
        self._trial_since_s = 0.0
        self._testing_since_s = 0.0
        self._message = ""
        self._hub_ever = False
        self._hub_away_since_s: float | None = machine.now_s()
        self._rolled_back = False
        self._reboot_at_s: float | None = None
        self.on_revision: Callable[[Revision], None] = _nothing

    # -- boot ------------------------------------------------------------------------------------------------------

    def boot(self, wanted: str, *, verify: bool) -> None:
        """Start the revision that the bootloader chose, or go on with the one that an earlier supervisor ran."""
        session = self._machine.journal.session()
        if session is not None:
            self._resume(session)
            return
        stored = self._boot.read()
        trying = bool(wanted == stored.try_ and wanted != stored.rev)
        trial = Trial(wanted, stored.rev, reboot=True) if trying else None
        self._trial = trial
        revision = self._first_good(wanted, stored.rev, verify=verify)
        if revision is None:
            self._reboot_in(BAD_REVISION_DELAY_S)
            return
        if trial is None:
            self._close_failed_tries(wanted, stored.try_)
            self._settle_committed(revision.rev)
        else:
            self._write_progress(trial.rev, Status.INPROGRESS, Message.TRYING)
        self._run(revision, trial, keep_session=True)

    def _resume(self, session: Session) -> None:
        """Another supervisor ran before us since the boot: its containers may still run."""
        revision = revisions.load(self._storage, session.rev)
        self._machine.say(f"supervisor started again at revision {session.rev}")
        self._run(revision, session.trial, keep_session=False)

    def _first_good(self, wanted: str, committed: str, *, verify: bool) -> Revision | None:
        """The wanted revision if it is whole; on trial nothing else will do, otherwise the best that is left."""
        candidates = [wanted] if self._trial is not None else revisions.fallbacks(self._storage, wanted, committed)
        for rev in candidates:
            try:
                revision = self._whole(rev, verify=verify)
            except (OSError, HostileInputError) as error:
                self._machine.say(f"revision {rev} cannot run: {error}")
                if self._trial is not None:
                    self._record_error(rev, _boot_message(error), str(error))
                    self._machine.say(f"revision {rev} ERROR {error}")
                    self._reboot_in(0.0)
                    return None
                continue
            if rev != wanted:
                self._machine.say(f"revision {rev} runs in place of {wanted}")
            return revision
        self._machine.say(
            f"no revision can run: tried {', '.join(candidates)}; rebooting in {BAD_REVISION_DELAY_S:g} s"
        )
        return None

    def _whole(self, rev: str, *, verify: bool) -> Revision:
        revision = revisions.load(self._storage, rev)
        if verify:
            faults, healed = revisions.verify_apart(self._storage, rev)
            for note in healed:
                self._machine.say(f"revision {rev} healed: {note}")
            if faults:
                raise BrokenObjectsError(" ".join(faults[:3]))
        return revision

    def _close_failed_tries(self, running: str, tried: str) -> None:
        """On the boot after a failed try: its error first, then the bootloader's variable (device.md 3.3)."""
        for rev in revisions.unfinished(self._storage, running):
            self._record_error(rev, Message.UNEXPECTED_ROLLBACK, "the device came back without it")
            self._machine.say(f"revision {rev} ERROR {Message.UNEXPECTED_ROLLBACK}")
        if not tried:
            return
        if tried != running and tried in self._storage.revisions():
            progress = revisions.progress_of(self._storage, tried)
            if not revisions.is_final(progress):
                self._record_error(tried, Message.UNEXPECTED_ROLLBACK, "the bootloader fell back")
                self._machine.say(f"revision {tried} ERROR {Message.UNEXPECTED_ROLLBACK}")
        self._boot.fail()

    def _settle_committed(self, rev: str) -> None:
        """Bring the markers of a committed revision up to date: the factory's, and what a power cut left undone."""
        progress = revisions.progress_of(self._storage, rev)
        if rev == FACTORY and (progress is None or progress.status is not Status.DONE):
            self._write_progress(rev, Status.DONE, Message.FACTORY)
        elif progress is None or progress.status is not Status.DONE:
            self._write_progress(rev, Status.DONE, Message.DONE)
        if not self._storage.is_done(rev):
            self._storage.mark_done(rev)

    def _run(self, revision: Revision, trial: Trial | None, *, keep_session: bool) -> None:
        now_s = self._machine.now_s()
        self._trial, self._trial_since_s, self._testing_since_s = trial, now_s, now_s
        if keep_session:
            self._machine.journal.keep_session(Session(revision.rev, trial))
        self._machine.tell_init(f"trial {int(trial is not None)}")
        self._enter(revision)
        self._engine.adopt(self._machine.discover())
        self._engine.tick()

    def _enter(self, revision: Revision) -> None:
        """Make a revision the running one and bring its containers up."""
        self._revision = revision
        self._machine.disks = revision.state.disks
        self._machine.log_to(revision.rev)
        if self._storage.current() != revision.rev:
            self._storage.set_current(revision.rev)
        self.on_revision(revision)
        self._machine.say(f"revision {revision.rev} started")
        self._engine.converge(revision.rev, revision.state.groups, revision.jobs, trial=self._trial is not None)

    # -- time ------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Take in what happened and do what is due."""
        for event in self._machine.happenings():
            self._engine.happened(event)
        self._engine.tick()
        now_s = self._machine.now_s()
        if self._reboot_at_s is not None:
            if now_s >= self._reboot_at_s and self._engine.is_quiet:
                self._reboot_at_s = None
                self._machine.tell_init("reboot")
            return
        if self._trial is not None:
            self._judge(self._trial, now_s)
        else:
            self._watch_committed()

    def due_s(self) -> float | None:
        """When `tick` must be called at the latest."""
        times = [self._engine.due_s(), self._verdict_due_s()]
        if self._reboot_at_s is not None:
            times.append(self._reboot_at_s if self._engine.is_quiet else None)
        return min((at for at in times if at is not None), default=None)

    def _verdict_due_s(self) -> float | None:
        if self._trial is None or self._reboot_at_s is not None:
            return None
        now_s = self._machine.now_s()
        found = verdict.judge(self._facts(self._trial, now_s))
        if isinstance(found, verdict.Wait):
            return None if found.within_s is None else now_s + found.within_s
        return now_s

    def _watch_committed(self) -> None:
        """Without a trial: a container that nothing brings back takes the device down, slowly (device.md 3.8)."""
        if self._rolled_back and self._engine.goal() <= Goal.ACHIEVED:
            self._rolled_back = False
        failed = [f"{failure.name}: {failure.reason}" for failure in self._engine.failures]
        if self._rolled_back and not failed:
            failed = [f"{unit.name} did not come back" for unit in self._engine.late()]
        if failed:
            self._machine.say(f"revision {self._engine.rev} failed, {'; '.join(failed)}")
            self._reboot_in(0.0 if self._rolled_back else BAD_REVISION_DELAY_S)

    def _reboot_in(self, delay_s: float) -> None:
        self._reboot_at_s = self._machine.now_s() + delay_s
        if delay_s == 0:
            self._engine.stop_all()

    # -- the trial -------------------------------------------------------------------------------------------------

    def _facts(self, trial: Trial, now_s: float) -> verdict.Facts:
        since_s = self._engine.reached_s()
        held_s = None if since_s is None else now_s - max(since_s, self._testing_since_s)
        away_s = self._hub_away_since_s
        needed = not trial.rev.startswith("locals/")
        return verdict.Facts(
            testing=trial.testing,
            goal=self._engine.goal(),
            late=tuple(unit.name for unit in self._engine.late()),
            failures=tuple(f"{failure.name}: {failure.reason}" for failure in self._engine.failures),
            stable=self._engine.is_stable,
            held_s=held_s,
            elapsed_s=now_s - self._trial_since_s,
            hub_ever=self._hub_ever,
            hub_away_s=None if away_s is None or not needed else now_s - max(away_s, self._trial_since_s),
            hub_needed=needed,
            network_timeout_s=self._limits.network_timeout_s,
            commit_delay_s=self._limits.commit_delay_s,
        )

    def _judge(self, trial: Trial, now_s: float) -> None:
        found = verdict.judge(self._facts(trial, now_s))
        if isinstance(found, verdict.Test):
            self._begin_testing(trial, now_s)
        elif isinstance(found, verdict.Commit):
            self._commit(trial)
        elif isinstance(found, verdict.Refuse):
            self._fail(trial, found)
        elif found.message == Message.TESTING_STABLE:
            self._write_progress(trial.rev, Status.TESTING, found.message)

    def _begin_testing(self, trial: Trial, now_s: float) -> None:
        self._trial = trial._replace(testing=True)
        self._testing_since_s = now_s
        self._machine.journal.keep_session(Session(trial.rev, self._trial))
        message = Message.TESTING_REBOOT if trial.reboot else Message.TESTING_NONREBOOT
        self._write_progress(trial.rev, Status.TESTING, message)
        self._machine.say(f"revision {trial.rev} TESTING for {self._limits.commit_delay_s:g} s")

    def _commit(self, trial: Trial) -> None:
        self._write_progress(trial.rev, Status.DONE, Message.DONE)
        self._boot.commit(trial.rev)
        self._storage.mark_done(trial.rev)
        self._trial = None
        self._engine.trial = False
        self._machine.journal.keep_session(Session(trial.rev))
        self._machine.tell_init("trial 0")
        self._machine.say(f"revision {trial.rev} DONE")

    def _fail(self, trial: Trial, refusal: verdict.Refuse) -> None:
        self._record_error(trial.rev, refusal.message, refusal.reason)
        self._machine.say(f"revision {trial.rev} ERROR {refusal.message}: {refusal.reason}")
        if trial.reboot:
            self._trial = None
            self._reboot_in(0.0)
            return
        self._trial = None
        self._rolled_back = True
        try:
            previous = revisions.load(self._storage, trial.previous)
        except (OSError, HostileInputError) as error:
            self._machine.say(f"revision {trial.previous} cannot come back in place: {error}")
            self._reboot_in(0.0)
            return
        self._machine.journal.keep_session(Session(trial.previous))
        self._machine.tell_init("trial 0")
        self._enter(previous)
        self._engine.tick()

    # -- progress --------------------------------------------------------------------------------------------------

    def _write_progress(self, rev: str, status: Status, message: str, *, logs: str = "") -> None:
        before = revisions.progress_of(self._storage, rev)
        if before is not None and (before.status, before.message) == (status, message):
            return
        progress = Progress.of(status, message, retries=before.retries if before is not None else 0, logs=logs)
        self._storage.write_progress(rev, progress.to_json())

    def _record_error(self, rev: str, message: str, reason: str) -> None:
        """The one final status of a try that failed. A disk that refuses is said: the reboot does not wait for it."""
        import json

        entry = {"tsec": int(self._machine.now_s()), "tnano": 0, "platform": "pantavisor", "lvl": "ERROR"}
        line = json.dumps({**entry, "src": "supervisor", "msg": reason[:1000]}) + "\n"
        try:
            self._write_progress(rev, Status.ERROR, message, logs=line)
        except OSError as error:
            self._machine.say(f"revision {rev}: its error cannot be stored: {error}")

    # -- requests --------------------------------------------------------------------------------------------------

    def request(self, question: dict[str, JsonValue]) -> dict[str, JsonValue]:
        """One question of the agent or of the control socket. Raises `RefusedError`, and what the disk refuses."""
        op, name = question.get("op"), question.get("name")
        if op == "status":
            return self._status()
        if op == "try":
            return self._try(question.get("rev"))
        if op == "hub":
            return self._hub(question.get("reachable") is True)
        if isinstance(op, str) and op in ("ready", "stop", "start", "restart") and isinstance(name, str):
            return self._container(op, name)
        if isinstance(op, str) and op in ("reboot", "poweroff"):
            return self._power(op)
        raise RefusedError(f"The supervisor does not know {str(op)[:40]!r}")

    def _hub(self, reachable: bool) -> dict[str, JsonValue]:
        if reachable:
            self._hub_ever, self._hub_away_since_s = True, None
        elif self._hub_away_since_s is None:
            self._hub_away_since_s = self._machine.now_s()
        return {"ok": True}

    def _try(self, rev: JsonValue) -> dict[str, JsonValue]:
        """Hand a revision over for its trial: from here on its progress is ours."""
        if not isinstance(rev, str):
            raise RefusedError("The request names no revision")
        check_revision(rev)
        current = self._revision
        if self._trial is not None or self._reboot_at_s is not None or current is None:
            busy = self._trial.rev if self._trial is not None else self._engine.rev
            raise RefusedError(f"Revision {busy} is being tried or left: try again later")
        if rev == current.rev:
            raise RefusedError(f"Revision {rev} is running already")
        try:
            revision = revisions.load(self._storage, rev)
            way = transition.plan(current.state, revision.state)
            missing = self._storage.missing(revision.state)
        except FileNotFoundError as error:
            raise RefusedError(f"Revision {rev} is not installed: {error}") from error
        if missing:
            raise RefusedError(f"Revision {rev} lacks the object {missing[0][1]} of {missing[0][0]}")
        self._machine.say(
            f"revision {rev} requested: {'reboot' if way.reboot else 'in place'}; {'; '.join(way.reasons)}"
        )
        if way.reboot:
            self._write_progress(rev, Status.INPROGRESS, Message.REBOOTING)
            self._boot.set_try(rev)
            self._reboot_in(0.0)
        else:
            self._begin_in_place(current, revision)
        return {"ok": True, "reboot": way.reboot}

    def _begin_in_place(self, current: Revision, revision: Revision) -> None:
        self._write_progress(revision.rev, Status.INPROGRESS, Message.TRANSITIONING)
        now_s = self._machine.now_s()
        trial = Trial(revision.rev, current.rev, reboot=False)
        self._trial, self._trial_since_s = trial, now_s
        self._machine.journal.keep_session(Session(revision.rev, trial))
        self._machine.tell_init("trial 1")
        self._enter(revision)
        self._engine.tick()

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

    def _power(self, op: str) -> dict[str, JsonValue]:
        if op == "poweroff":
            self._engine.stop_all()
            self._machine.tell_init("poweroff")
        else:
            self._reboot_in(0.0)
        return {"ok": True}

    def _status(self) -> dict[str, JsonValue]:
        rev = self._engine.rev
        return {
            "ok": True,
            "rev": rev,
            "trying": self._trial.rev if self._trial is not None else None,
            "goal": self._engine.goal().name,
            "containers": [_describe(unit) for unit in self._engine.units],
        }


class BrokenObjectsError(HostileInputError):
    """Files of a revision that do not hash to what its state says."""


def _boot_message(error: Exception) -> str:
    if isinstance(error, BrokenObjectsError):
        return Message.BAD_OBJECT
    if isinstance(error, FileNotFoundError):
        return Message.NO_STATE
    return Message.BAD_STATE if isinstance(error, HostileInputError) else Message.INTERNAL


def _describe(unit: Unit) -> dict[str, JsonValue]:
    container = unit.job.container
    return {
        "name": unit.name,
        "group": container.group,
        "status": unit.status.name,
        "status_goal": str(container.status_goal),
        "restart_policy": str(container.restart_policy),
        "roles": list(container.roles),
        "retries": unit.retries,
        "stable": unit.is_stable,
        "user_stopped": unit.user_stopped,
        "pid": unit.handle.pid if unit.handle is not None else 0,
    }


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


def quickboot(cmdline: str, environ: dict[str, str]) -> bool:
    """Whether the pass over all objects is to be skipped: `pv_quickboot` with a value (device.md 2.4)."""
    words = dict(word.partition("=")[::2] for word in cmdline.split())
    return bool(words.get("pv_quickboot") or environ.get("pv_quickboot"))
