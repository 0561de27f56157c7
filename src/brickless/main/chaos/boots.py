"""Really boots a disk that a power cut left, to the end: the device serves a page of the old or of the new revision.

There is no hub: a device that is offline at boot still runs. A trial that is under way is decided without one on the
emulated device (PH_UPDATER_HUB_GATE=0 on the kernel's command line); a board comes back from it by itself.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from brickless.core.errors import BricklessError
from brickless.main.chaos import campaign
from brickless.main.chaos.ledger import Ledger
from brickless.main.chaos.record import Case, Recording
from brickless.main.chaos.rigs import EmulatorRig, board_twin
from brickless.main.hubapi import wait_until
from brickless.main.lab import WEB_PORT, free_port
from brickless.testkit.crashlab.images import Images
from brickless.testkit.crashlab.judge import judge
from brickless.testkit.crashlab.states import CrashState
from brickless.testkit.crashlab.views import VIEWS
from brickless.twin.board import Board
from brickless.twin.device import EmulatedDevice
from brickless.twin.qemu import Forward

BOOT_TIMEOUT_S = 300.0
WORKERS = 2
OPTIONS = "PH_UPDATER_HUB_GATE=0"
OK = 200


class Booted(NamedTuple):
    """One disk that was booted: what it served ("" when nothing), how often it booted, what is wrong."""

    case: str
    state: str
    page: str
    boots: int
    seconds: float
    faults: tuple[str, ...]


def boot_all(
    recording: Recording,
    planned: Sequence[tuple[Case, CrashState]],
    work: Path,
    cache: Path,
    *,
    ledger: Ledger | None = None,
    workers: int = WORKERS,
    progress: Callable[[Booted], None] | None = None,
) -> list[Booted]:
    """Boot each state in a folder of its own below `work`, a few at a time; `progress` gets each result.

    What `ledger` knows is not booted again and counts, all of it; the rest is written down there.
    """
    work.mkdir(parents=True, exist_ok=True)
    known = {} if ledger is None else dict(ledger.known)
    before = [_read(entry) for entry in known.values()]
    todo = [(case, state) for case, state in planned if str(state) not in known]
    slots = threading.BoundedSemaphore(workers + 1)
    futures = []
    view = recording.view
    with (
        ThreadPoolExecutor(workers) as pool,
        Images(recording.base, recording.entries(), work / "running.img") as images,
    ):
        for number, (case, state) in enumerate(todo):
            slots.acquire()
            folder = work / f"device-{number}"
            folder.mkdir()
            images.build(state, folder / "disk.img")
            futures.append(pool.submit(_boot, machine(view, folder, cache), case, state, slots, ledger))
            if progress is not None:
                futures[-1].add_done_callback(lambda done: progress(done.result()))
        return before + [future.result() for future in futures]


def _boot(
    rebooted: Rebooted, case: Case, state: CrashState, slots: threading.BoundedSemaphore, ledger: Ledger | None
) -> Booted:
    try:
        booted = boot(rebooted, case, state)
    finally:
        slots.release()
    if ledger is not None:
        ledger.add(booted._asdict())
    return booted


def _read(entry: Mapping[str, Any]) -> Booted:
    """A line of the ledger."""
    return Booted(**{**entry, "faults": tuple(entry["faults"])})


class Rebooted:
    """A machine with the disk that a power cut left, not yet switched on."""

    def __init__(self, view: str, folder: Path, twin: EmulatedDevice | Board, port: int) -> None:
        """`port` leads to its port 80."""
        self.view = view
        self.folder = folder
        self.twin = twin
        self.port = port

    def starts(self) -> list[tuple[str, int]]:
        """Revision and attempt (0: no try) of each boot so far."""
        if isinstance(self.twin, EmulatedDevice):
            return [(one.rev, one.attempt) for one in self.twin.boots]
        return [(one.rev, one.attempt) for one in self.twin.starts()]

    def page(self, case: Case) -> str | None:
        """What it serves, once it is a page that it may serve and the last boot is not, or no more, a trial."""
        if isinstance(self.twin, EmulatedDevice) and not self.twin.is_on:
            raise BricklessError("the device is off")
        starts = self.starts()
        if not starts:
            return None
        rev, attempt = starts[-1]
        ended = re.compile(rf"revision {re.escape(rev)} (DONE|UPDATED)")
        if attempt and not any(ended.search(line.text) for line in self.twin.console.lines()):
            return None
        try:
            response = httpx.get(f"http://127.0.0.1:{self.port}/", timeout=5.0, trust_env=False)
        except httpx.HTTPError:
            return None
        return response.text if response.status_code == OK and response.text in case.pages else None


def machine(view: str, folder: Path, cache: Path, on_line: Callable[[str], None] | None = None) -> Rebooted:
    """The machine of a recording with `disk.img` in `folder`."""
    port = free_port()
    forwards = [Forward(port, WEB_PORT)]
    twin: EmulatedDevice | Board
    if view == EmulatorRig.view:
        twin = EmulatedDevice(folder, forwards=forwards, options=OPTIONS, on_line=on_line)
    else:
        twin = board_twin(folder, folder / "disk.img", view, cache, forwards=forwards, services=[], on_line=on_line)
    return Rebooted(view, folder, twin, port)


def boot(rebooted: Rebooted, case: Case, state: CrashState) -> Booted:
    """Boot it until no trial is under way and it serves a page that the case allows, then judge its disk once more.

    The folder is left without its disk.
    """
    faults: list[str] = []
    page = ""
    started_s = time.monotonic()
    with rebooted.twin as twin:
        try:
            page = wait_until(lambda: rebooted.page(case), BOOT_TIMEOUT_S, f"the device serves one of {case.pages}")
        except BricklessError as error:
            faults.append(f"{error}{twin.console.tail()}")
        boots = len(rebooted.starts())
    took_s = time.monotonic() - started_s
    image = rebooted.folder / "disk.img"
    faults += judge(image, case.expected, campaign.checks(case), VIEWS[rebooted.view]).faults
    image.unlink()
    image.with_suffix(".storage").unlink(missing_ok=True)
    return Booted(case.name, str(state), page.strip(), boots, took_s, tuple(faults))
