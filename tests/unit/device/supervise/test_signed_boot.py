"""Signatures are looked at before a revision runs: at every boot, whatever ran before."""

from __future__ import annotations

from pathlib import Path

import pytest

from brickless.core import canonical
from brickless.core.progress import Message, Status
from brickless.core.state import State, parse_state
from brickless.device.config import Sources, load
from brickless.device.supervise import revisions
from brickless.device.supervise.main import is_to_be_hashed, signature_judge
from brickless.testkit.fake_linux import FakeDevice, World

REFUSED = (Message.NOT_COVERED, "web/run.json is covered by no signature")


def state(version: str) -> bytes:
    return canonical.dumps(
        {
            "#spec": "pantavisor-service-system@1",
            "device.json": {"groups": [{"name": "root", "restart_policy": "system"}]},
            "web/run.json": {"name": "web", "config": "c.json"},
            "web/c.json": {"version": version},
        }
    )


class Device(FakeDevice):
    """A device whose policy refuses the revisions with a version in `refused`."""

    refused: tuple[str, ...] = ()

    def restart_supervisor(self, *, verify: bool = False) -> None:
        self.supervisor = self._new()
        self.supervisor.judge = self._judge
        self.supervisor.boot(self._cmdline_rev, verify=verify)

    def _judge(self, found: State) -> tuple[str, str]:
        version = found.jsons["web/c.json"]
        return REFUSED if isinstance(version, dict) and version["version"] in self.refused else ("", "")


@pytest.fixture
def device(tmp_path: Path) -> Device:
    world = World(str(tmp_path))
    for rev in ("0", "1", "2"):
        world.storage.install(rev, parse_state(state(rev)))
    made = Device(world)
    made.power_on()
    made.run_for(60)
    made.ask(op="hub", reachable=True)
    return made


def test_a_tried_revision_that_is_refused_is_rolled_back_and_says_why(device: Device) -> None:
    device.refused = ("1",)
    device.ask(op="try", rev="1")
    device.run_for(120)
    progress = revisions.progress_of(device.world.storage, "1")
    assert progress is not None
    assert (progress.status, progress.message) == (Status.ERROR, Message.NOT_COVERED)
    assert REFUSED[1] in progress.logs
    assert device.ask(op="status")["rev"] == "0"
    assert not any("revision 1 started" in line for line in device.world.lines), "nothing of it ran"


def test_a_committed_revision_that_is_refused_does_not_run(device: Device) -> None:
    device.ask(op="try", rev="1")
    device.run_for(30)
    device.ask(op="hub", reachable=True)
    device.run_for(120)
    assert device.ask(op="status")["rev"] == "1"
    device.refused = ("1",)
    device.power_on()
    device.run_for(10)
    assert device.ask(op="status")["rev"] == "0"
    assert f"revision 1 cannot run: {REFUSED[1]}." in device.world.lines


def test_where_all_are_refused_the_device_says_so_and_tries_again_slowly(device: Device) -> None:
    device.refused = ("0", "1", "2")
    boots = device.world.boots
    device.power_on()
    device.run_for(100)
    assert not device.world.processes
    assert any(line.startswith("no revision can run") for line in device.world.lines)
    assert 2 <= device.world.boots - boots <= 5


def test_strict_hashes_whatever_the_boot_loader_says(tmp_path: Path) -> None:
    file = tmp_path / "pantavisor.config"
    for mode, hashed in (("strict", True), ("lenient", False)):
        file.write_text(f"PV_SECUREBOOT_MODE={mode}\n")
        settings = load(Sources(environ={}, file=str(file)))
        assert is_to_be_hashed(settings, "pv_quickboot=1") is hashed
        assert is_to_be_hashed(settings, "")
        assert signature_judge(settings) is not None
    file.write_text("PV_SECUREBOOT_MODE=disabled\n")
    assert signature_judge(load(Sources(environ={}, file=str(file)))) is None
