"""Boots, updates, rollbacks and restarts of a whole supervisor, against a device without a kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from brickless.core import bootenv, canonical
from brickless.core.progress import Message, Status
from brickless.core.state import parse_state
from brickless.core.update_types import HubGate, Policy
from brickless.device.config import Sources, load
from brickless.device.supervise import revisions
from brickless.device.supervise.heartbeat import commit_delay_s
from brickless.device.supervise.jobs import Job
from brickless.device.supervise.supervisor import RefusedError, mark_of, quickboot, revision_of
from brickless.testkit.fake_linux import Behaviour, FakeDevice, World

GROUPS = [
    {"name": "root", "status_goal": "STARTED", "timeout": 30, "restart_policy": "system"},
    {"name": "app", "status_goal": "STARTED", "timeout": 30, "restart_policy": "container"},
]
CRASH = Behaviour(exits_after_s=1.0, status=3 << 8)


def state(versions: dict[str, str], **run: object) -> bytes:
    """A revision: `versions` maps a container to what its configuration says; `net` is in the group root."""
    entries: dict[str, object] = {"#spec": "pantavisor-service-system@1", "device.json": {"groups": GROUPS}}
    for name, version in versions.items():
        manifest = {"name": name, "group": "root" if name == "net" else "app", "config": "config.json"}
        entries[f"{name}/run.json"] = {**manifest, **(run if name == "web" else {})}
        entries[f"{name}/config.json"] = {"version": version}
    return canonical.dumps(entries)


REVISIONS = {
    "0": {"net": "1", "db": "1", "web": "1"},
    "1": {"net": "1", "db": "1", "web": "2"},
    "2": {"net": "1", "db": "1", "web": "broken"},
    "3": {"net": "2", "db": "1", "web": "2"},
    "4": {"net": "broken", "db": "1", "web": "2"},
}


def behave(job: Job) -> Behaviour:
    return CRASH if job.fingerprint in BROKEN else Behaviour()


BROKEN = {
    job.fingerprint
    for versions in REVISIONS.values()
    for job in (
        Job(
            parse_state(state(versions)).containers[name], "", revisions.fingerprint(parse_state(state(versions)), name)
        )
        for name in versions
        if versions[name] == "broken"
    )
}


@pytest.fixture
def device(tmp_path: Path) -> FakeDevice:
    world = World(str(tmp_path), behave)
    for rev, versions in REVISIONS.items():
        world.storage.install(rev, parse_state(state(versions)))
    made = FakeDevice(world)
    made.power_on()
    made.run_for(5)
    made.ask(op="hub", reachable=True)
    return made


def status_of(device: FakeDevice, rev: str) -> tuple[Status, str]:
    progress = revisions.progress_of(device.world.storage, rev)
    assert progress is not None
    return progress.status, progress.message


def pids(device: FakeDevice) -> dict[str, int]:
    return {name: process.handle.pid for name, process in device.world.processes.items()}


def hub(device: FakeDevice) -> None:
    device.ask(op="hub", reachable=True)


def test_the_factory_revision_is_done_at_once(device: FakeDevice) -> None:
    assert status_of(device, "0") == (Status.DONE, Message.FACTORY)
    assert device.world.storage.is_done("0")
    assert device.world.storage.current() == "0"
    assert set(pids(device)) == {"net", "db", "web"}
    assert device.ask(op="status")["rev"] == "0"


def test_groups_start_one_after_the_other(device: FakeDevice) -> None:
    lines = [line for line in device.world.lines if line.endswith("STARTED")]
    assert lines[0] == "container net STARTED"
    assert set(lines[1:]) == {"container db STARTED", "container web STARTED"}


def test_an_update_in_place_restarts_only_what_changed(device: FakeDevice) -> None:
    before = pids(device)
    answer = device.ask(op="try", rev="1")
    assert answer == {"ok": True, "reboot": False}
    device.run_for(60)
    after = pids(device)
    assert (after["net"], after["db"]) == (before["net"], before["db"])
    assert after["web"] != before["web"]
    assert status_of(device, "1") == (Status.DONE, Message.DONE)
    assert device.bootloader.read() == ("1", "")
    assert device.world.storage.is_done("1")
    assert device.world.boots == 1


def test_a_broken_container_brings_the_old_revision_back_in_place(device: FakeDevice) -> None:
    device.ask(op="try", rev="1")
    device.run_for(60)
    before = pids(device)
    device.ask(op="try", rev="2")
    device.run_for(60)
    assert status_of(device, "2") == (Status.ERROR, Message.CONTAINER_FAILED)
    assert device.ask(op="status")["rev"] == "1"
    assert device.world.storage.current() == "1"
    assert pids(device)["db"] == before["db"]
    assert device.bootloader.read() == ("1", "")
    assert device.world.boots == 1
    assert any("exit status 3" in line and "last words of web" in line for line in device.world.lines)


def test_a_change_of_the_system_reboots_is_tried_and_committed(device: FakeDevice) -> None:
    assert device.ask(op="try", rev="3")["reboot"] is True
    device.run_for(2)
    assert device.world.boots == 2
    assert device.bootloader.read() == ("0", "3")
    hub(device)
    device.run_for(60)
    assert status_of(device, "3") == (Status.DONE, Message.DONE)
    assert device.bootloader.read() == ("3", "")


def test_a_broken_system_falls_back_by_the_bootloader(device: FakeDevice) -> None:
    device.ask(op="try", rev="4")
    device.run_for(2)
    hub(device)
    device.run_for(60)
    assert device.world.boots == 3
    assert status_of(device, "4") == (Status.ERROR, Message.CONTAINER_FAILED)
    assert device.ask(op="status")["rev"] == "0"
    assert device.bootloader.read() == ("0", "")


def variables(device: FakeDevice) -> dict[str, str]:
    path = Path(device.world.storage.root, "boot/uboot.txt")
    return bootenv.parse(path.read_bytes()) if path.exists() else {}


def test_a_revision_that_was_seen_to_fail_needs_no_second_attempt(device: FakeDevice) -> None:
    device.ask(op="try", rev="4")
    device.run_for(60)
    told = variables(device)
    assert told["pv_failed"] == told["pv_serial"], "whatever bound the bootloader has"


def test_a_boot_is_called_good_only_after_a_while(device: FakeDevice) -> None:
    device.mark = "3"
    device.power_on()
    device.run_for(20)
    assert "pv_alive" not in variables(device), "a watchdog may not have bitten yet"
    device.run_for(20)
    assert variables(device)["pv_alive"] == "3"


def test_a_boot_without_a_mark_is_not_written_about(device: FakeDevice) -> None:
    device.ask(op="try", rev="1")
    device.run_for(60)
    assert "pv_alive" not in variables(device)


@pytest.mark.parametrize(
    ("cmdline", "mark"),
    [("quiet pv_mark=3 x", "3"), ("", ""), ("pv_mark=", ""), ("pv_mark=x", ""), ("pv_mark=12345", "")],
)
def test_the_mark_of_a_boot(cmdline: str, mark: str) -> None:
    assert mark_of(cmdline) == mark


def test_a_commit_waits_until_a_watchdog_would_have_bitten() -> None:
    stock = load(Sources({}, command_line="PV_UPDATER_COMMIT_DELAY=4 PV_WDT_TIMEOUT=15"))
    armed = load(Sources({}, command_line="PV_UPDATER_COMMIT_DELAY=4 PV_WDT_TIMEOUT=15 PV_WDT_MODE=always"))
    assert (commit_delay_s(stock), commit_delay_s(armed)) == (4, 17)


def test_a_power_cut_in_a_trial_by_reboot_is_an_unexpected_rollback(device: FakeDevice) -> None:
    device.ask(op="try", rev="3")
    device.run_for(2)
    device.power_on()
    device.run_for(5)
    assert status_of(device, "3") == (Status.ERROR, Message.UNEXPECTED_ROLLBACK)
    assert device.ask(op="status")["rev"] == "0"


def test_a_power_cut_in_a_trial_in_place_tries_the_revision_once_by_a_boot(device: FakeDevice) -> None:
    device.ask(op="try", rev="1")
    device.run_for(2)
    device.power_on()
    hub(device)
    device.run_for(60)
    assert status_of(device, "1") == (Status.DONE, Message.DONE)
    assert device.bootloader.read() == ("1", "")


def test_a_remote_revision_needs_the_hub(device: FakeDevice) -> None:
    device.ask(op="hub", reachable=False)
    device.ask(op="try", rev="1")
    device.run_for(119)
    assert status_of(device, "1")[0] is Status.INPROGRESS
    device.run_for(10)
    assert status_of(device, "1") == (Status.ERROR, Message.HUB_UNREACHABLE)
    assert device.ask(op="status")["rev"] == "0"


def test_a_local_revision_does_not(device: FakeDevice) -> None:
    device.ask(op="hub", reachable=False)
    device.world.storage.install("locals/mine", parse_state(state(REVISIONS["1"])))
    device.ask(op="try", rev="locals/mine")
    device.run_for(60)
    assert status_of(device, "locals/mine")[0] is Status.DONE


def test_a_new_supervisor_adopts_what_runs(device: FakeDevice) -> None:
    before = pids(device)
    device.restart_supervisor()
    device.run_for(60)
    assert pids(device) == before
    assert device.world.boots == 1
    assert device.ask(op="status")["goal"] == "ACHIEVED"


def test_a_new_supervisor_takes_up_a_trial_in_place(device: FakeDevice) -> None:
    device.ask(op="try", rev="1")
    device.run_for(5)
    before = pids(device)
    device.restart_supervisor()
    hub(device)
    device.run_for(60)
    assert pids(device) == before
    assert status_of(device, "1") == (Status.DONE, Message.DONE)


def test_a_new_supervisor_stops_what_the_revision_does_not_mean(device: FakeDevice) -> None:
    device.ask(op="try", rev="1")
    device.restart_supervisor()  # before the old web had ended
    hub(device)
    device.run_for(60)
    assert device.world.processes["web"].job.rev == "1"
    assert status_of(device, "1")[0] is Status.DONE


def test_a_crash_loop_is_never_committed(tmp_path: Path) -> None:
    world = World(str(tmp_path), lambda job: Behaviour(exits_after_s=8.0) if job.rev == "1" else Behaviour())
    recovery = {"policy": "always", "max_retries": 0, "retry_delay": 1, "backoff_factor": 1.0}
    world.storage.install("0", parse_state(state({"web": "1"})))
    world.storage.install("1", parse_state(state({"web": "2"}, auto_recovery=recovery)))
    device = FakeDevice(world)
    device.power_on()
    device.run_for(5)
    hub(device)
    device.ask(op="try", rev="1")
    device.run_for(3600)
    assert status_of(device, "1")[0] is Status.ERROR
    assert status_of(device, "1")[1] == Message.CONTAINER_FAILED
    assert any("did not reach its goal within" in line and "exit status 0" in line for line in device.world.lines)
    assert device.ask(op="status")["rev"] == "0"


def test_a_batch_container_that_ends_as_it_should_holds_nobody_up(tmp_path: Path) -> None:
    world = World(str(tmp_path), lambda job: Behaviour(exits_after_s=1.0) if job.rev == "1" else Behaviour())
    world.storage.install("0", parse_state(state({"web": "1"})))
    world.storage.install("1", parse_state(state({"web": "2"}, auto_recovery={"policy": "on-failure"})))
    device = FakeDevice(world)
    device.power_on()
    device.run_for(5)
    hub(device)
    device.ask(op="try", rev="1")
    device.run_for(3600)
    assert status_of(device, "1")[0] is Status.DONE
    assert world.processes == {}


def test_what_a_start_waits_for_holds_up_nothing_else(tmp_path: Path) -> None:
    slow = Behaviour(prepares_for_s=500.0)
    world = World(str(tmp_path), lambda job: slow if job.container.name == "b" else Behaviour())
    world.storage.install("0", parse_state(state({"a": "1", "b": "1"})))
    device = FakeDevice(world)
    device.power_on()
    device.run_for(499)
    assert set(world.processes) == {"a"}
    device.run_for(5)
    assert set(world.processes) == {"a", "b"}


def test_a_start_whose_preparation_fails_fails_the_update_with_its_reason(tmp_path: Path) -> None:
    broken = Behaviour(prepares_for_s=3.0, prepare_error="the disk safe is gone")
    world = World(str(tmp_path), lambda job: broken if job.rev == "1" else Behaviour())
    world.storage.install("0", parse_state(state({"web": "1"})))
    world.storage.install("1", parse_state(state({"web": "2"})))
    device = FakeDevice(world)
    device.power_on()
    device.run_for(5)
    device.ask(op="try", rev="1")
    device.run_for(3600)
    assert status_of(device, "1")[0] is Status.ERROR
    assert any("revision 1 ERROR" in line and "the disk safe is gone" in line for line in world.lines)
    assert device.ask(op="status")["rev"] == "0"


def test_what_a_revision_does_not_get_from_the_device_fails_its_trial(tmp_path: Path) -> None:
    world = World(str(tmp_path))
    world.storage.install("0", parse_state(state({"web": "1"})))
    world.storage.install("1", parse_state(state({"web": "2"})))
    world.device_faults["1"] = ["web: it requires the service db, which no container provides"]
    device = FakeDevice(world)
    device.power_on()
    device.run_for(5)
    device.ask(op="try", rev="1")
    device.run_for(3600)
    assert status_of(device, "1")[0] is Status.ERROR
    assert any("revision 1 ERROR" in line and "requires the service db" in line for line in world.lines)
    assert device.ask(op="status")["rev"] == "0"


def test_a_container_that_must_be_stable_holds_the_commit(tmp_path: Path) -> None:
    world = World(str(tmp_path))
    recovery = {"policy": "on-failure", "max_retries": 1, "stable_timeout": 100}
    world.storage.install("0", parse_state(state({"web": "1"})))
    world.storage.install("1", parse_state(state({"web": "2"}, auto_recovery=recovery)))
    device = FakeDevice(world)
    device.power_on()
    hub(device)
    device.run_for(5)
    device.ask(op="try", rev="1")
    device.run_for(60)
    assert status_of(device, "1") == (Status.TESTING, Message.TESTING_STABLE)
    device.run_for(60)
    assert status_of(device, "1")[0] is Status.DONE


def test_a_revision_that_is_missing_or_runs_or_waits_is_refused(device: FakeDevice) -> None:
    with pytest.raises(RefusedError, match="running already"):
        device.ask(op="try", rev="0")
    with pytest.raises(RefusedError, match="not installed"):
        device.ask(op="try", rev="99")
    device.ask(op="try", rev="1")
    with pytest.raises(RefusedError, match="Revision 1 is being tried"):
        device.ask(op="try", rev="3")
    with pytest.raises(RefusedError, match="does not know"):
        device.ask(op="dance")


def test_a_broken_state_on_trial_is_an_error_and_the_device_comes_back(device: FakeDevice) -> None:
    device.ask(op="try", rev="3")
    Path(device.world.storage.root, "trails/3/.pvr/json").write_bytes(b"{")
    device.run_for(10)
    assert status_of(device, "3") == (Status.ERROR, Message.BAD_STATE)
    assert device.ask(op="status")["rev"] == "0"


def test_a_broken_committed_revision_is_replaced_by_the_newest_good_one(device: FakeDevice) -> None:
    device.ask(op="try", rev="1")
    device.run_for(60)
    Path(device.world.storage.root, "trails/1/.pvr/json").write_bytes(b"")
    device.power_on()
    device.run_for(5)
    assert device.ask(op="status")["rev"] == "0"
    assert any("revision 1 cannot run" in line for line in device.world.lines)
    assert "revision 0 runs in place of 1" in device.world.lines


def test_where_nothing_can_run_it_is_said_and_the_reboot_waits(device: FakeDevice) -> None:
    for rev in REVISIONS:
        Path(device.world.storage.root, f"trails/{rev}/.pvr/json").write_bytes(b"")
    device.power_on()
    device.run_for(29)
    assert device.world.boots == 2
    assert any(line.startswith("no revision can run: tried 0") for line in device.world.lines)
    device.run_for(3)
    assert device.world.boots == 3


def test_a_damaged_object_on_trial_is_named(tmp_path: Path) -> None:
    world = World(str(tmp_path))
    world.storage.install("0", parse_state(state({"web": "1"})))
    sha = world.storage.objects.add([b"content"])
    raw = canonical.loads(state({"net": "1"}))
    assert isinstance(raw, dict)
    raw["net/file"] = sha
    world.storage.install("1", parse_state(canonical.dumps(raw)))
    device = FakeDevice(world)
    device.power_on(verify=True)
    device.run_for(5)
    assert device.ask(op="try", rev="1")["reboot"] is True
    for _ in range(10_000):
        if not world.ending:
            device.step()
    assert world.ending
    path = Path(world.storage.objects.path(sha))
    path.write_bytes(b"CONTENT")
    device.power_on(verify=True)
    device.run_for(5)
    assert status_of(device, "1") == (Status.ERROR, Message.BAD_OBJECT)


def test_a_container_that_cannot_be_mounted_fails_its_trial(device: FakeDevice) -> None:
    device.world.behave = lambda job: Behaviour(refuses="no such volume") if job.rev == "1" else Behaviour()
    device.ask(op="try", rev="1")
    device.run_for(60)
    assert status_of(device, "1") == (Status.ERROR, Message.CONTAINER_FAILED)
    assert device.ask(op="status")["rev"] == "0"
    assert set(pids(device)) == {"net", "db", "web"}


def test_a_container_that_does_not_end_is_killed(device: FakeDevice) -> None:
    device.world.processes["web"].behaviour = Behaviour(heeds_halt=False)
    device.ask(op="try", rev="1")
    device.run_for(60)
    assert status_of(device, "1")[0] is Status.DONE


def test_a_system_container_that_dies_takes_a_committed_revision_down_slowly(device: FakeDevice) -> None:
    device.world.processes["net"].exit_at_s = device.world.now_s
    device.run_for(29)
    assert device.world.boots == 1
    device.run_for(5)
    assert device.world.boots == 2


def test_an_app_that_dies_comes_back_and_the_device_stays_up(device: FakeDevice) -> None:
    device.world.processes["web"].exit_at_s = device.world.now_s
    device.run_for(20)
    assert "web" in device.world.processes
    assert device.world.boots == 1


def test_a_user_stops_starts_and_restarts_a_container(device: FakeDevice) -> None:
    before = pids(device)["web"]
    device.ask(op="stop", name="web")
    device.run_for(10)
    assert "web" not in device.world.processes
    device.ask(op="start", name="web")
    device.run_for(10)
    second = pids(device)["web"]
    device.ask(op="restart", name="web")
    device.run_for(10)
    assert len({before, second, pids(device)["web"]}) == 3
    with pytest.raises(RefusedError, match="no container"):
        device.ask(op="stop", name="nosuch")


def test_power_off_waits_for_the_containers(device: FakeDevice) -> None:
    device.ask(op="poweroff")
    for _ in range(100):
        if device.world.ending:
            break
        device.step()
    assert device.world.ending == "poweroff"
    assert not device.world.processes


def test_without_a_hub_the_gate_can_be_off(tmp_path: Path) -> None:
    world = World(str(tmp_path))
    for rev in ("0", "1"):
        world.storage.install(rev, parse_state(state(REVISIONS[rev])))
    device = FakeDevice(world, Policy(commit_delay_s=5, hub_gate=HubGate.OFF))
    device.power_on()
    device.run_for(5)
    device.ask(op="try", rev="1")
    device.run_for(20)
    assert status_of(device, "1")[0] is Status.DONE


@pytest.mark.parametrize(
    ("cmdline", "rev"),
    [
        ("quiet pv_rev=7 x", "7"),
        ("pv_rev=locals/a", "locals/a"),
        ("", "0"),
        ("pv_rev=", "0"),
        ("pv_rev=../etc", "0"),
    ],
)
def test_the_revision_of_a_command_line(cmdline: str, rev: str) -> None:
    assert revision_of(cmdline) == rev


def test_quickboot_needs_a_value() -> None:
    assert quickboot("pv_quickboot=1", {})
    assert quickboot("", {"pv_quickboot": "1"})
    assert not quickboot("pv_quickboot", {})
