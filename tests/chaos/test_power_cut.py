"""The power of a real (emulated) device is cut at random moments of its updates: old or new, and it says which.

QEMU is killed with SIGKILL: what the guest had not brought to the disk is gone. The moments come from a seed, which is
printed with them; `POWER_CUT_SEED` and `POWER_CUTS` choose another series.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from brickless.core import canonical
from brickless.core.state import parse_state
from brickless.image import factory, storage
from brickless.image.bsp import Bsp
from brickless.main.artefacts import GROUP_TIMEOUT_S, STABLE_S, Artefacts
from brickless.main.developer import Developer
from brickless.main.lab import USER, Lab, LabDevice
from brickless.main.talk import Talk
from brickless.store.objects import ObjectStore
from brickless.testkit import busybox
from brickless.twin import disk

ROOT = Path(__file__).parents[2]
CUTS = int(os.environ.get("POWER_CUTS", "20"))
SEED = int(os.environ.get("POWER_CUT_SEED", "20261124"))
BOOT_TIMEOUT_S = 180.0
STEP_TIMEOUT_S = 240.0
# From the post to the commit an update of an app takes about 8 s here, one with a reboot about 14 s.
UPDATE_S = {"app": 9.0, "reboot": 15.0}
CONFIG = {"PV_UPDATER_COMMIT_DELAY": "2"}
POLL = {"PH_UPDATER_INTERVAL": "1"}
PAGE = "_config/web/www/index.html"
FAST_LANES = 2


class Cut(NamedTuple):
    """One power cut: which kind of update, when (seconds after the post), and how the step ended."""

    number: int
    kind: str
    after_s: float
    status: str
    message: str
    page: str


class PageArtefacts(Artefacts):
    """Disks whose factory revision serves a page from its configuration."""

    def disk(self, out: Path, board: Bsp, config: Mapping[str, str], *, size_mb: int = 512) -> None:
        """See `Artefacts.disk`."""

        def fill(objects: ObjectStore) -> bytes:
            squashfs = busybox.rootfs(out.with_name("web.squashfs"), self.folder)
            extra = busybox.container(objects, "web", "/bin/httpd -f -p 80 -h /www", squashfs)
            extra[PAGE] = objects.add([b"page 0\n"])
            groups = factory.stock_groups(timeout_s=GROUP_TIMEOUT_S, stable_s=STABLE_S)
            return factory.revision(objects, board, self.folder, groups=groups, extra=extra)

        storage.build(out, fill=fill, size_mb=size_mb, config=config)


def change(repository: Path, number: int, kind: str) -> None:
    """The next page; for `reboot` also something that belongs to no container."""
    (repository / PAGE).write_text(f"page {number}\n")
    if kind == "reboot":
        (repository / "bsp" / "drivers.json").write_text(
            json.dumps({"#spec": "driver-aliases@1", "all": {f"cut{number}": ["loop"]}})
        )


def cut_power(lab: Lab, developer: Developer, device: LabDevice, repository: Path, cut: tuple[int, str, float]) -> Cut:
    """Post an update, cut the power `after_s` later, switch on again, and wait until the device says what became."""
    number, kind, after_s = cut
    before = device.page()
    change(repository, number, kind)
    developer.commit(repository, f"cut {number}")
    rev = developer.post(repository, f"cut {number}")
    threading.Event().wait(after_s)  # the moment is what is being tested
    device.twin.kill()
    device.twin.start()
    step = lab.api.wait_for_step(device.known, rev, STEP_TIMEOUT_S)
    expected = f"page {number}" if step.status in {"DONE", "UPDATED"} else (before or "page").strip()
    page = device.wait_for_page(expected, BOOT_TIMEOUT_S).strip()
    assert step.status in {"DONE", "UPDATED", "ERROR", "WONTGO"}, f"cut {number}: {step}"
    assert step.message, f"cut {number} ended as {step.status} without a reason"
    return Cut(number, kind, after_s, step.status, step.message, page)


def check_disk(device: LabDevice) -> None:
    """With the power off: the file system recovers, and every revision that may boot is whole."""
    disk.replay_journal(device.twin.disk)
    environment = disk.read(device.twin.disk, "boot/uboot.txt") or b""
    assert environment.startswith(b"pv_"), f"the bootloader's environment is {environment[:40]!r}"
    rev = environment.split(b"pv_rev=", 1)[1].split(b"\0", 1)[0].decode()
    raw = disk.read(device.twin.disk, f"trails/{rev}/.pvr/json")
    assert raw is not None, f"the committed revision {rev} has no state"
    state = parse_state(raw, require_bsp=True)
    for path, sha in state.objects.items():
        content = disk.read(device.twin.disk, f"objects/{sha}")
        assert content is not None, f"revision {rev}: the object of {path} is missing"
        assert canonical.sha256_hex(content) == sha, f"revision {rev}: the object of {path} is broken"


def run_lane(
    lab: Lab, name: str, cuts: list[tuple[int, str, float]], done: list[Cut], faults: list[BaseException]
) -> None:
    """All cuts of one device; runs in a thread beside the others."""
    try:
        device = next(one for one in lab.devices if one.name == name)
        developer = Developer(lab.state / f"desk-{name}", lab.api, lab.talk)
        repository = developer.clone(name, USER)
        # One by one, so that a fault leaves what came before it in the report.
        done.extend(cut_power(lab, developer, device, repository, cut) for cut in cuts)
        device.twin.kill()
        check_disk(device)
    except BaseException as error:
        faults.append(error)
        raise


def report(done: list[Cut], took_s: float) -> None:
    """The moments and what became of them, also when all is well."""
    print(f"\nseed {SEED}")
    for cut in sorted(done):
        print(f"cut {cut.number:3} {cut.kind:6} after {cut.after_s:5.2f} s: {cut.status:7} {cut.page}  {cut.message}")
    print(f"{len(done)} power cuts in {took_s:.0f} s")


@pytest.mark.needs("qemu")
@pytest.mark.timeout(1200)
def test_power_cut_at_random_moments_leaves_the_old_or_the_new_revision(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED)
    plan = []
    for number in range(1, CUTS + 1):
        kind = "reboot" if number % 3 == 0 else "app"
        plan.append((number, kind, round(chance.uniform(0.0, UPDATE_S[kind]), 2)))
    done: list[Cut] = []
    faults: list[BaseException] = []
    with Lab(tmp_path / "lab", PageArtefacts(ROOT / ".cache", config=CONFIG), Talk()) as lab:
        for lane in range(FAST_LANES):
            lab.register(lab.add(f"lane{lane}", config=POLL))
        lanes = [
            threading.Thread(target=run_lane, args=(lab, f"lane{n}", plan[n::FAST_LANES], done, faults))
            for n in range(FAST_LANES)
        ]
        started_s = time.monotonic()
        for thread in lanes:
            thread.start()
        for thread in lanes:
            thread.join()
        with capsys.disabled():
            report(done, time.monotonic() - started_s)
    assert not faults, faults
    assert len(done) == CUTS
