"""The kernel's wakelock: held while anything must not be slept through, told once where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from brickless.core import canonical
from brickless.core.state import parse_state
from brickless.device.supervise.awake import Awake, held
from brickless.testkit.fake_linux import FakeDevice, World


class Power:
    """A folder like /sys/power, whose files keep what was written last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "power"
        self.private = folder / "private"
        self.said: list[str] = []
        self.folder.mkdir()
        self.private.mkdir()
        for name in ("wake_lock", "wake_unlock"):
            (self.folder / name).touch()

    def awake(self, mode: str = "locks") -> Awake:
        return Awake(mode, str(self.folder), str(self.private), self.said.append)

    def written(self) -> tuple[str, str]:
        """What was locked and unlocked since the last look."""
        found = [(self.folder / name).read_text() for name in ("wake_lock", "wake_unlock")]
        for name in ("wake_lock", "wake_unlock"):
            (self.folder / name).write_text("")
        return found[0], found[1]


@pytest.fixture
def power(tmp_path: Path) -> Power:
    return Power(tmp_path)


def test_the_lock_is_held_from_the_first_scope_to_the_last(power: Power) -> None:
    awake = power.awake()
    for scopes, written in (
        ({"boot"}, ("pantavisor", "")),
        ({"boot", "update"}, ("", "")),
        ({"update"}, ("", "")),
        (set(), ("", "pantavisor")),
        (set(), ("", "")),
        ({"shutdown"}, ("pantavisor", "")),
    ):
        awake.hold(frozenset(scopes))
        assert power.written() == written, scopes
        assert held(str(power.private)) == scopes


def test_one_that_was_left_held_is_let_go(power: Power) -> None:
    """The kernel keeps the lock of a supervisor that died."""
    power.awake().hold(frozenset())
    assert power.written() == ("", "pantavisor")


@pytest.mark.parametrize("mode", ["locks", "disabled"])
def test_without_locks_nothing_is_done(power: Power, mode: str) -> None:
    if mode == "locks":
        (power.folder / "wake_lock").unlink()
    power.awake(mode).hold(frozenset({"boot"}))
    assert held(str(power.private)) == frozenset()
    assert (power.folder / "wake_unlock").read_text() == ""
    assert power.said == []


def test_a_kernel_that_refuses_is_told_once(power: Power) -> None:
    (power.folder / "wake_lock").unlink()
    (power.folder / "wake_lock").mkdir()
    awake = power.awake()
    for scope in ("boot", "update"):
        awake.hold(frozenset({scope}))
    assert len(power.said) == 1
    assert "wakelock cannot be used" in power.said[0]


def test_what_a_supervisor_does_not_sleep_through(tmp_path: Path) -> None:
    world = World(str(tmp_path))
    manifest = {"name": "web", "config": "c.json"}
    entries = {"#spec": "pantavisor-service-system@1", "device.json": {"groups": [{"name": "app"}]}}
    for rev in ("0", "1"):
        state = {**entries, "web/run.json": manifest, "web/c.json": {"version": rev}}
        world.storage.install(rev, parse_state(canonical.dumps(state)))  # type: ignore[arg-type]  # it is JSON
    device = FakeDevice(world)
    device.power_on()
    assert device.supervisor.scopes == {"boot"}
    device.run_for(60)
    assert device.supervisor.scopes == frozenset()
    device.ask(op="try", rev="1")
    assert "update" in device.supervisor.scopes
    device.ask(op="hub", reachable=True)
    device.run_for(200)
    assert device.supervisor.scopes == frozenset()
    device.ask(op="reboot")
    assert device.supervisor.scopes == {"shutdown"}
