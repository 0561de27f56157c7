"""Really boots a disk that a power cut left, to the end: the device serves a page of the old or of the new revision.

There is no hub: a device that is offline at boot still runs, and a trial that is under way is decided without one
(PH_UPDATER_HUB_GATE=0 on the kernel's command line), or comes back by itself.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx

from brickless.core.errors import BricklessError
from brickless.main.chaos import campaign
from brickless.main.chaos.record import Case, Recording
from brickless.main.hubapi import wait_until
from brickless.main.lab import WEB_PORT, free_port
from brickless.testkit.crashlab.images import Images
from brickless.testkit.crashlab.judge import judge
from brickless.testkit.crashlab.states import CrashState
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
    *,
    progress: Callable[[Booted], None] | None = None,
) -> list[Booted]:
    """Boot each state in a folder of its own below `work`, two at a time; `progress` gets each result."""
    work.mkdir(parents=True, exist_ok=True)
    slots = threading.BoundedSemaphore(WORKERS + 1)
    futures = []
    with (
        ThreadPoolExecutor(WORKERS) as pool,
        Images(recording.base, recording.entries(), work / "running.img") as images,
    ):
        for number, (case, state) in enumerate(planned):
            slots.acquire()
            folder = work / f"device-{number}"
            folder.mkdir()
            images.build(state, folder / "disk.img")
            futures.append(pool.submit(_boot, folder, case, state, slots))
            if progress is not None:
                futures[-1].add_done_callback(lambda done: progress(done.result()))
        return [future.result() for future in futures]


def _boot(folder: Path, case: Case, state: CrashState, slots: threading.BoundedSemaphore) -> Booted:
    try:
        return boot(folder, case, state)
    finally:
        slots.release()


def boot(folder: Path, case: Case, state: CrashState, on_line: Callable[[str], None] | None = None) -> Booted:
    """Boot `disk.img` in `folder` until no trial is under way and it serves a page that the case allows.

    Then its disk is judged once more. The folder is left without its disk.
    """
    port = free_port()
    faults: list[str] = []
    page = ""
    started_s = time.monotonic()
    with EmulatedDevice(folder, forwards=[Forward(port, WEB_PORT)], options=OPTIONS, on_line=on_line) as twin:
        try:
            page = wait_until(lambda: _page(twin, port, case), BOOT_TIMEOUT_S, f"the device serves one of {case.pages}")
        except BricklessError as error:
            faults.append(f"{error}{twin.console.tail()}")
        boots = len(twin.boots)
    took_s = time.monotonic() - started_s
    faults += judge(folder / "disk.img", case.expected, campaign.checks(case)).faults
    (folder / "disk.img").unlink()
    return Booted(case.name, str(state), page.strip(), boots, took_s, tuple(faults))


def _page(twin: EmulatedDevice, port: int, case: Case) -> str | None:
    """What it serves, once it is one of the pages that it may serve and the last boot is not, or no more, a trial."""
    if not twin.is_on:
        raise BricklessError("the device is off")
    if not twin.boots:
        return None
    last = twin.boots[-1]
    ended = re.compile(rf"revision {re.escape(last.rev)} (DONE|UPDATED)")
    if last.attempt and not any(ended.search(line.text) for line in twin.console.lines()):
        return None
    try:
        response = httpx.get(f"http://127.0.0.1:{port}/", timeout=5.0, trust_env=False)
    except httpx.HTTPError:
        return None
    return response.text if response.status_code == OK and response.text in case.pages else None
