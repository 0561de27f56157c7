"""Judges the crash states of a recording: all of them, or a sample; saves what is wrong with how to see it again."""

from __future__ import annotations

import json
import queue
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from brickless.core.errors import UserError
from brickless.main.chaos.identity import check_identity
from brickless.main.chaos.ledger import Ledger
from brickless.main.chaos.record import Case, Recording
from brickless.testkit.crashlab import states
from brickless.testkit.crashlab.images import Images
from brickless.testkit.crashlab.judge import Check, Verdict, judge
from brickless.testkit.crashlab.states import CrashState
from brickless.testkit.crashlab.views import VIEWS, View

WORKERS = 2
# Verdicts that are waited for; each image takes as much memory as the disk has data.
WAITING = 2
MAX_SAVED = 20
# What a sample has at least of each case, where there are as many.
OF_EACH_CASE = 6
# Gets the number of states that are judged, and of those that are bad.
Progress = Callable[[int, int], None]


class Finding(NamedTuple):
    """A disk that is neither old nor new, and the command that shows it again."""

    case: str
    state: str
    faults: tuple[str, ...]
    command: str


class Counts(NamedTuple):
    """What a campaign did: states judged and bad ones by case, disks that were really booted and failed to."""

    cases: dict[str, int]
    findings: tuple[Finding, ...]
    booted: int = 0
    unbootable: int = 0

    def summary(self) -> dict[str, Any]:
        """As the last line of the command."""
        return {
            "states": sum(self.cases.values()),
            "bad": len(self.findings),
            "booted": self.booted,
            "unbootable": self.unbootable,
            "cases": self.cases,
        }


def plan(recording: Recording, *, sample: int | None, seed: int) -> list[tuple[Case, CrashState]]:
    """The states to judge with the case of each, in the order of `durable`; the same seed gives the same ones.

    A sample has some of each case, short as it may be, and is otherwise drawn from all.
    """
    cases = recording.cases()
    chosen = states.choose(recording.entries(), recording.sector, seed=seed)
    planned = [(_case(cases, state), state) for state in chosen]
    return planned if sample is None else _drawn(planned, sample, seed)


def _drawn(planned: Sequence[tuple[Case, CrashState]], sample: int, seed: int) -> list[tuple[Case, CrashState]]:
    chance = random.Random(seed)  # noqa: S311 - a sample that can be drawn again, no secret
    shuffled = list(planned)
    chance.shuffle(shuffled)
    taken: dict[str, int] = {}
    first: list[tuple[Case, CrashState]] = []
    others: list[tuple[Case, CrashState]] = []
    for one in shuffled:
        name = one[0].name
        taken[name] = taken.get(name, 0) + 1
        (first if taken[name] <= OF_EACH_CASE else others).append(one)
    return sorted((first + others)[:sample], key=lambda one: one[1])


def _case(cases: Sequence[Case], state: CrashState) -> Case:
    """The case during which the power went: what had been issued last belongs to it."""
    for case in cases:
        if state.end <= case.end:
            return case
    # What the device still wrote after the last case had ended allows what that case allows.
    return cases[-1]


def judge_all(
    recording: Recording,
    planned: Sequence[tuple[Case, CrashState]],
    work: Path,
    *,
    ledger: Ledger | None = None,
    workers: int = WORKERS,
    progress: Progress | None = None,
) -> Counts:
    """Build and judge each state; `work` must be empty or missing, lies best in memory, and is gone afterwards.

    What `ledger` knows is not judged again, the rest is written down there. `progress` gets the number of states that
    are judged and of those that are bad, after each.
    """
    work.mkdir(parents=True, exist_ok=True)
    known = {} if ledger is None else dict(ledger.known)
    counts: dict[str, int] = {}
    findings: list[Finding] = []
    for case, state in planned:
        if str(state) in known:
            counts[case.name] = counts.get(case.name, 0) + 1
            findings += _findings(recording, case, state, tuple(known[str(state)]["faults"]))
    todo = [(case, state) for case, state in planned if str(state) not in known]
    images: queue.SimpleQueue[Path] = queue.SimpleQueue()
    for number in range(workers + WAITING):
        images.put(work / f"state-{number}.img")
    with ThreadPoolExecutor(workers) as pool:
        for case, state, future in _submit(recording, todo, work, pool, images):
            verdict = future.result()
            counts[case.name] = counts.get(case.name, 0) + 1
            findings += _findings(recording, case, state, verdict.faults)
            if ledger is not None:
                ledger.add({"case": case.name, "state": str(state), "faults": verdict.faults})
            if progress is not None:
                progress(sum(counts.values()), len(findings))
    shutil.rmtree(work)
    return Counts(counts, tuple(findings))


def _submit(
    recording: Recording,
    planned: Sequence[tuple[Case, CrashState]],
    work: Path,
    pool: ThreadPoolExecutor,
    free: queue.SimpleQueue[Path],
) -> Iterator[tuple[Case, CrashState, Future[Verdict]]]:
    """Keep the judges busy with the images that are `free`; the results come in order."""
    waiting: list[tuple[Case, CrashState, Future[Verdict]]] = []
    view = VIEWS[recording.view]
    with Images(recording.base, recording.entries(), work / "running.img") as images:
        for case, state in planned:
            image = free.get()
            images.build(state, image)
            waiting.append((case, state, pool.submit(_judge, image, case, view, free)))
            while waiting and (waiting[0][2].done() or len(waiting) >= WAITING):
                yield waiting.pop(0)
    yield from waiting


def _judge(image: Path, case: Case, view: View, free: queue.SimpleQueue[Path]) -> Verdict:
    try:
        return judge(image, case.expected, checks(case), view)
    finally:
        free.put(image)


def checks(case: Case) -> list[Check]:
    """What a case asks of a disk beyond what the judge asks of all."""
    return [check_identity] if case.identity else []


def _findings(recording: Recording, case: Case, state: CrashState, faults: tuple[str, ...]) -> list[Finding]:
    command = f"brickless chaos --recording {recording.folder} --state {state}"
    return [Finding(case.name, str(state), faults, command)] if faults else []


def one(recording: Recording, state: CrashState, image: Path) -> tuple[Case, Verdict]:
    """Build one state as `image`, which stays as it was built, and judge a copy of it. Raises `UserError`."""
    entries = recording.entries()
    if state.end > len(entries):
        raise UserError("bad-crash-state", f"The recording has {len(entries)} writes and flushes, {state} is beyond.")
    case = _case(recording.cases(), state)
    with Images(recording.base, entries, image.with_suffix(".running")) as images:
        images.build(state, image)
    judged = image.with_suffix(".judged")
    shutil.copyfile(image, judged)
    try:
        return case, judge(judged, case.expected, checks(case), VIEWS[recording.view])
    finally:
        judged.unlink()


def save(recording: Recording, counts: Counts, folder: Path) -> Path | None:
    """Keep the recording and the findings in `folder`, so that they outlive the lab; None when nothing was found."""
    if not counts.findings:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    for path in [recording.base, *recording.logs(), recording.folder / "cases.json"]:
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    listed = [
        {**finding._asdict(), "command": f"brickless chaos --recording {folder} --state {finding.state}"}
        for finding in counts.findings[:MAX_SAVED]
    ]
    (folder / "findings.json").write_text(json.dumps(listed, indent=1) + "\n")
    return folder
