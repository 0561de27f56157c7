"""A disk that is full, for real: a small tmpfs in a mount namespace of the agent's own, and a limit on file sizes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from brickless.core.progress import Message
from brickless.testkit.agent import SimulatedDevice, state_of
from brickless.testkit.hub_simulator import Fault, HubSimulator, Kind

SIZE_KB = 4096
# The device's storage is copied into a tmpfs that only the agent sees; then the agent takes this shell's place.
SCRIPT = 'cp -a "$1" "$1.seed" && mount -t tmpfs -o size=%dk none "$1" && cp -a "$1.seed/." "$1" && shift && exec "$@"'


@pytest.fixture
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as simulator:
        simulator.auto_claim = True
        yield simulator


@pytest.fixture
def device(hub: HubSimulator, tmp_path: Path) -> Iterator[SimulatedDevice]:
    simulated = SimulatedDevice(tmp_path, hub, PV_REVISION_RETRIES="2", PV_STORAGE_GC_RESERVED="0")
    yield simulated
    simulated.stop()
    simulated.supervisor.stop()


def on_a_small_disk(device: SimulatedDevice, hub: HubSimulator) -> Path:
    """Starts the agent on a storage of four megabytes; returns where that is seen from here."""
    device.start("unshare", "-r", "-m", "sh", "-c", SCRIPT % SIZE_KB, "sh", device.storage.root)
    hub.wait_for(lambda h: 0 in h.steps[h.device.id], what="the factory revision at the hub")
    return Path(f"/proc/{device.pid}/root{device.storage.root}")


def fill(path: Path) -> None:
    """Writes until the disk has not a byte left."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    written = 1
    with contextlib.suppress(OSError):
        while written:
            written = os.write(fd, b"x" * 4096)
    os.close(fd)
    assert os.statvfs(path).f_bfree == 0


def works_again(hub: HubSimulator, device: SimulatedDevice) -> None:
    """The next step that fits gets as far as its trial (which this supervisor, outside, would not see)."""
    rev = hub.post(state_of(hub, b"small" * 1000))
    deadline = time.monotonic() + 15
    while device.supervisor.tried != [str(rev)]:
        assert time.monotonic() < deadline, device.log
        device.hurry()
        time.sleep(0.1)


@pytest.mark.needs("userns")
def test_an_update_that_is_larger_than_the_disk(hub: HubSimulator, device: SimulatedDevice) -> None:
    inside = on_a_small_disk(device, hub)
    rev = hub.post(state_of(hub, os.urandom(SIZE_KB * 1024)))
    progress = device.ends(rev)
    words = progress["status-msg"].split()
    assert (progress["status"], words[:2], words[3:5]) == ("WONTGO", ["Space", "required"], ["B,", "available"])
    assert int(words[5]) < SIZE_KB * 1024 <= int(words[2])
    assert device.alive
    assert os.readlink(inside / "trails/current") == "0"
    works_again(hub, device)


@pytest.mark.needs("userns")
def test_a_disk_that_somebody_else_fills_in_mid_download(hub: HubSimulator, device: SimulatedDevice) -> None:
    inside = on_a_small_disk(device, hub)
    hub.inject(Fault(Kind.CUT, "/local-s3/", number=500_000), Fault(Kind.STALL, "/objects/", skip=1))
    rev = hub.post(state_of(hub, os.urandom(2_000_000)))
    hub.wait_for(lambda h: h.counted("GET", "/local-s3/") >= 1 and h.counted("GET", "/objects/") >= 2)
    fill(inside / "filler")
    hub.heal()
    progress = device.ends(rev)
    assert progress["status"] == "WONTGO", device.log
    assert progress["status-msg"].startswith("Space required")
    assert device.alive
    assert os.readlink(inside / "trails/current") == "0"
    (inside / "filler").unlink()
    works_again(hub, device)


@pytest.mark.needs("userns")
def test_a_disk_without_a_byte_left_when_the_step_comes(hub: HubSimulator, device: SimulatedDevice) -> None:
    inside = on_a_small_disk(device, hub)
    hub.wait_for(lambda h: h.counted("PUT", "/device-meta"), what="the first metadata")
    fill(inside / "filler")
    rev = hub.post(state_of(hub, b"small" * 1000))
    progress = device.ends(rev)
    assert progress["status"] == "WONTGO", device.log
    assert progress["status-msg"].startswith("Space required")
    assert device.alive


def test_a_file_that_may_not_grow(hub: HubSimulator, device: SimulatedDevice) -> None:
    device.start("prlimit", "--fsize=300000")
    hub.wait_for(lambda h: 0 in h.steps[h.device.id], what="the factory revision at the hub")
    before = device.snapshot()
    rev = hub.post(state_of(hub, b"x" * 1_000_000))
    progress = device.ends(rev)
    assert (progress["status"], progress["status-msg"]) == ("WONTGO", Message.MAX_DOWNLOADS)
    assert "File too large" in progress["logs"]
    assert device.alive
    assert device.snapshot() == before
