"""`brickless chaos`: record, judge, boot a sample, and say it in one JSON object as the last line."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from brickless.main.chaos import boots, campaign, cases
from brickless.main.chaos.campaign import Counts, Finding
from brickless.main.chaos.ledger import BOOTED, JUDGED, Ledger
from brickless.main.chaos.record import Case, Recording
from brickless.main.chaos.scene import Scene
from brickless.main.talk import Talk
from brickless.testkit.crashlab import states
from brickless.testkit.crashlab.states import CrashState

# Images live in memory: each state is built and read whole.
MEMORY = Path("/dev/shm")  # noqa: S108 - folders with names of our own are made in it
PROGRESS_EVERY = 200


def scratch() -> Path:
    """A new folder for images, in memory where there is such a place."""
    return Path(tempfile.mkdtemp(prefix="brickless-chaos-", dir=MEMORY if MEMORY.is_dir() else None))


class Plan(NamedTuple):
    """What a campaign does: of each machine in `views` `lives` recordings, of each `sample` states (None: all) judged.

    `boot` states are booted in all. The same recording, sample and seed give the same states. `workers` states are
    judged or booted at a time. With `resume` it goes on with the recordings that are kept and with what their ledgers
    say.
    """

    views: tuple[str, ...] = ("emulator",)
    lives: int = 1
    sample: int | None = None
    boot: int = 0
    seed: int = 1
    workers: int = campaign.WORKERS
    resume: bool = False


def run(cache: Path, found: Path, talk: Talk, plan: Plan, *, keep: Path | None = None) -> Counts:
    """Record, judge, boot. Findings are saved in `found`, recordings and ledgers in `keep`."""
    counts = Counts({}, ())
    recorded = [(view, life) for life in range(plan.lives) for view in plan.views]
    for number, (view, life) in enumerate(recorded):
        work = scratch()
        try:
            folder = (keep or work / "recording") / f"{view}-{life}"
            recording = Recording(folder)
            if not (plan.resume and recording.is_whole):
                talk.step(f"recording a life of the {view}, {number + 1} of {len(recorded)}")
                shutil.rmtree(folder, ignore_errors=True)
                recording = cases.record(work / "lab", Scene(cache, config=cases.CONFIG), talk, folder, view)
            share = plan.boot // len(recorded) + (number < plan.boot % len(recorded))
            one = plan._replace(boot=share, seed=plan.seed + life)
            counts = _sum(counts, _judge(recording, work, cache, found / folder.name, talk, one))
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return counts


def judge_kept(recording: Recording, cache: Path, found: Path, talk: Talk, plan: Plan) -> Counts:
    """The campaign on a recording that was kept."""
    work = scratch()
    try:
        return _judge(recording, work, cache, found, talk, plan)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _judge(recording: Recording, work: Path, cache: Path, found: Path, talk: Talk, plan: Plan) -> Counts:
    """Judge the states of a recording, then boot some of them."""
    planned = campaign.plan(recording, sample=plan.sample, seed=plan.seed)
    judged, started = (Ledger(recording.folder / name, resume=plan.resume) for name in (JUDGED, BOOTED))
    talk.step(f"judging {len(planned)} states of {len(recording.entries())} writes and flushes, seed {plan.seed}")
    if judged.known:
        talk.say(f"{len(judged.known)} of them were judged before")
    tell = _teller(talk, len(planned))
    counts = campaign.judge_all(recording, planned, work / "judge", ledger=judged, workers=plan.workers, progress=tell)
    chosen = pick(planned, plan.boot, plan.seed)
    talk.step(f"booting {len(chosen)} of them")
    booted = boots.boot_all(
        recording,
        chosen,
        work / "boots",
        cache,
        ledger=started,
        workers=plan.workers,
        progress=lambda one: talk.say(_booted(one)),
    )
    findings = [*counts.findings, *(_finding(recording, one) for one in booted if one.faults)]
    counts = counts._replace(
        findings=tuple(findings), booted=len(booted), unbootable=sum(not one.page for one in booted)
    )
    for finding in counts.findings:
        talk.say(f"BAD {finding.case} {finding.state}: {'; '.join(finding.faults)}\n    {finding.command}")
    saved = campaign.save(recording, counts, found)
    if saved is not None:
        talk.say(f"the recording and what was found are kept in {saved}")
    return counts


def _sum(one: Counts, other: Counts) -> Counts:
    names = dict.fromkeys([*one.cases, *other.cases])
    return Counts(
        {name: one.cases.get(name, 0) + other.cases.get(name, 0) for name in names},
        one.findings + other.findings,
        one.booted + other.booted,
        one.unbootable + other.unbootable,
    )


def pick(planned: Sequence[tuple[Case, CrashState]], number: int, seed: int) -> list[tuple[Case, CrashState]]:
    """Which states are booted: spread over the cases, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - a sample that can be drawn again, no secret
    by_case: dict[str, list[tuple[Case, CrashState]]] = {}
    for case, state in planned:
        by_case.setdefault(case.name, []).append((case, state))
    for group in by_case.values():
        chance.shuffle(group)
    turns = max((len(group) for group in by_case.values()), default=0)
    order = [group[turn] for turn in range(turns) for group in by_case.values() if turn < len(group)]
    return sorted(order[:number], key=lambda one: one[1])


def show(recording: Recording, cache: Path, name: str, talk: Talk, *, boot: bool) -> Counts:
    """One state of a recording, judged and, if asked, booted."""
    state = states.parse(name)
    work = scratch()
    try:
        image = work / "disk.img"
        case, verdict = campaign.one(recording, state, image)
        talk.say(f"{case.name} {state}: boots {', '.join(verdict.boots) or 'nothing'}")
        faults = verdict.faults
        if boot:
            rebooted = boots.machine(recording.view, work, cache, lambda line: talk.console(case.name, line))
            booted = boots.boot(rebooted, case, state)
            talk.say(_booted(booted))
            faults += booted.faults
        command = f"brickless chaos --recording {recording.folder} --state {state}"
        findings = (Finding(case.name, str(state), faults, command),) if faults else ()
        return Counts({case.name: 1}, findings, int(boot), int(boot and not booted.page))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def last_line(counts: Counts) -> str:
    """What scripts read."""
    return json.dumps(counts.summary())


def _teller(talk: Talk, total: int) -> campaign.Progress:
    def tell(done: int, bad: int) -> None:
        if done % PROGRESS_EVERY == 0 or done == total:
            talk.say(f"{done} of {total} states, {bad} bad")

    return tell


def _finding(recording: Recording, one: boots.Booted) -> Finding:
    command = f"brickless chaos --recording {recording.folder} --state {one.state} --boot 1"
    return Finding(one.case, one.state, one.faults, command)


def _booted(one: boots.Booted) -> str:
    said = repr(one.page) if one.page else "NOTHING"
    return f"booted {one.case} {one.state}: serves {said} after {one.boots} boots and {one.seconds:.1f} s"
