"""Random lives of a device: updates, rollbacks, exits, hub and network faults, and deaths at every named point.

`BRICKLESS_LIVES=n` runs n lives of 60 turns in place of the few that a test run has time for.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from brickless.core.progress import Status
from brickless.device.config import Config
from brickless.device.supervise.supervisor import RefusedError
from brickless.device.update.garbage import Garbage
from brickless.store.trails import FACTORY
from brickless.testkit.device_life import BEHAVIOURS, POINTS, Life

LIVES = int(os.environ.get("BRICKLESS_LIVES", "0"))
GOOD = ("good:1", "good:2", "slow:1", "deaf:1", "waits:1")
# Good ones more often, or hardly any update would be committed.
VERSIONS = st.sampled_from([*GOOD, *GOOD, *(f"{word}:1" for word in sorted(BEHAVIOURS))])


class Lives(RuleBasedStateMachine):
    """Turns of a life; after each the invariants, at its end everything has ended well."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="life-")
        self.life = Life(self.folder)
        self.revisions = [FACTORY]
        self.newest = 0

    @rule(net=st.sampled_from(["good:0", "good:0", "good:1", "crashes:1", "late:1"]), db=VERSIONS, web=VERSIONS)
    def update(self, net: str, db: str, web: str) -> None:
        """A new revision comes: in place when `net` stays, else by a reboot."""
        self.newest += 1
        rev = str(self.newest)
        self.life.install(rev, {"net": net, "db": db, "web": web})
        self.revisions.append(rev)
        self.life.hand_over(rev)

    @rule(data=st.data())
    def try_again(self, data: st.DataObject) -> None:
        """Somebody asks for a revision that is there already: the way to go back."""
        self.life.look()
        rev = data.draw(st.sampled_from(self.revisions))
        if rev not in self.life.awaited and self.life.ask(op="status")["rev"] != rev:
            self.life.go(lambda: self.life.hand_over(rev, waits=False))

    @rule(point=st.sampled_from(POINTS), supervisor=st.booleans())
    def arm(self, point: str, supervisor: bool) -> None:
        """The next time the device comes to this point, its power goes, or its supervisor alone dies."""
        self.life.points.armed = point
        self.life.supervisor_dies = supervisor

    @rule(seconds=st.sampled_from([1.0, 7.0, 26.0, 40.0, 130.0]))
    def time_passes(self, seconds: float) -> None:
        self.life.go(lambda: self.life.run_for(seconds))

    @rule(reachable=st.booleans())
    def hub(self, reachable: bool) -> None:
        self.life.go(lambda: self.life.hub(reachable=reachable))

    @precondition(lambda self: bool(self.life.world.processes))
    @rule(data=st.data(), status=st.sampled_from([0, 3 << 8, 9]))
    def a_container_exits(self, data: st.DataObject, status: int) -> None:
        process = self.life.world.processes[data.draw(st.sampled_from(sorted(self.life.world.processes)))]
        process.exit_at_s, process.status = self.life.world.now_s, status
        self.life.go(lambda: self.life.run_for(0.5))

    @rule()
    def power_cut(self) -> None:
        self.life.go(self.life.power_on)

    @rule()
    def reboot(self) -> None:
        self.life.go(lambda: self.life.ask(op="reboot"))
        self.life.go(lambda: self.life.run_for(20.0))

    @rule()
    def the_supervisor_dies(self) -> None:
        self.life.go(self.life.restart_supervisor)

    @rule(name=st.sampled_from(["db", "web"]), op=st.sampled_from(["stop", "start", "restart"]))
    def somebody_stops_and_starts(self, name: str, op: str) -> None:
        with suppress(RefusedError):  # on the way to a reboot there is none
            self.life.go(lambda: self.life.ask(op=op, name=name))

    @rule()
    def collect_garbage(self) -> None:
        config = Config()
        Garbage(self.life.disk, config, os.path.join(self.folder, "private")).collect(self.life.awaited)
        self.revisions = [rev for rev in self.revisions if rev in self.life.disk.revisions()]

    @invariant()
    def what_boots_is_whole(self) -> None:
        self.life.check_bootable()

    @invariant()
    def revisions_are_not_mixed(self) -> None:
        self.life.check_unmixed()

    @invariant()
    def nothing_ends_twice(self) -> None:
        self.life.check_history()

    def teardown(self) -> None:
        """Left in peace, every step has an end, and what runs is what the bootloader boots."""
        try:
            self.life.settle()
            self.life.check_history()
            self.life.check_rest()
            self.life.check_unmixed()
            self.life.check_bootable()
        finally:
            shutil.rmtree(self.folder)


TestLives = pytest.mark.timeout(900 if LIVES else 120)(Lives.TestCase)
TestLives.settings = settings(
    max_examples=LIVES or 40,
    stateful_step_count=60 if LIVES else 25,
    deadline=None,
    # The few are the same ones in every run, and a failure among them is told at once.
    derandomize=not LIVES,
    phases=list(Phase) if LIVES else [Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_a_life_in_which_all_goes_well(tmp_path: object) -> None:
    """The lives above would be worth nothing if no update of theirs were ever committed."""
    life = Life(str(tmp_path))
    for rev, net in (("1", "good:0"), ("2", "good:1")):
        life.install(rev, {"net": net, "db": "good:1", "web": f"good:{rev}"})
        life.hand_over(rev)
        life.settle()
        assert life.disk.history[rev][-1] is Status.DONE
        assert life.bootloader.read().rev == rev


@pytest.mark.parametrize("supervisor", [False, True], ids=["power", "supervisor"])
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("version", ["good:1", "crashes:1"])
@pytest.mark.parametrize("net", ["good:0", "good:1"], ids=["in-place", "reboot"])
def test_each_point_strikes_once_in_an_update(
    tmp_path: object, point: str, supervisor: bool, version: str, net: str
) -> None:
    """Every named point, on both ways and with both ends: the step ends once, and something good runs."""
    life = Life(str(tmp_path))
    life.install("1", {"net": net, "db": "good:0", "web": version})
    life.points.armed, life.supervisor_dies = point, supervisor
    life.hand_over("1")
    for _ in range(20):
        life.go(lambda: life.run_for(20.0))
        life.check_bootable()
        life.check_unmixed()
    life.settle()
    life.check_history()
    life.check_rest()
    # A power cut in the boot of a trial is a failed boot to a bootloader that tries once: the way back is right then.
    ends = {Status.DONE} if version == "good:1" else {Status.ERROR}
    if net == "good:1" and not supervisor:
        ends.add(Status.ERROR)
    end = life.disk.history["1"][-1]
    assert end in ends
    assert life.bootloader.read().rev == ("1" if end is Status.DONE else "0")
