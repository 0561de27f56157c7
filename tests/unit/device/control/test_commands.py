"""Commands: what they do, when they are refused, and that only one runs (device.md 6.2)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from brickless.device.control.places import settings
from brickless.store.lock import lock
from brickless.testkit.control import Answer, ControlLab
from brickless.testkit.fake_linux import Behaviour


def command(lab: ControlLab, op: str, payload: str = "") -> Answer:
    return lab.ask("POST", "/commands", {"op": op, "payload": payload})


@pytest.mark.parametrize("op", ["reboot", "poweroff"])
def test_the_end_is_told_to_the_init_after_the_answer(lab: ControlLab, op: str) -> None:
    assert command(lab, f"{op.upper()}_DEVICE", "because").status == 200
    lab.device.supervisor.tick()
    assert f"{op} on request: because" in lab.world.lines
    while not lab.world.ending:
        lab.device.step()
    assert lab.world.ending == op


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"op": "REBOOT_DEVICE"}, 400),
        ({"payload": ""}, 400),
        ({"op": "REBOOT_DEVICE", "payload": 7}, 400),
        ({"op": "reboot", "payload": ""}, 400),
        ({"op": "LOCAL_RUN", "payload": "locals/nosuch"}, 404),
        ({"op": "LOCAL_RUN", "payload": "../etc"}, 400),
        ({"op": "LOCAL_RUN", "payload": "0"}, 409),
        ({"op": "MAKE_FACTORY", "payload": "locals/nosuch"}, 404),
        ({"op": "DEFER_REBOOT", "payload": "60"}, 409),
        ({"op": "DEFER_REBOOT", "payload": "soon"}, 400),
        ({"op": "UPDATE_METADATA", "payload": "[]"}, 400),
        ({"op": "UNCLAIM", "payload": ""}, 204),
        ({"op": "GO_REMOTE", "payload": ""}, 204),
        ({"op": "XCONNECT_GRAPH", "payload": ""}, 200),
        ({"op": "RUN_GC", "payload": ""}, 200),
    ],
    ids=lambda value: value["op"] if isinstance(value, dict) and "op" in value else str(value),
)
def test_statuses(lab: ControlLab, body: dict[str, object], status: int) -> None:
    assert lab.ask("POST", "/commands", body).status == status


def test_while_an_update_runs_nothing_disturbs_it(lab: ControlLab) -> None:
    assert lab.ask("PUT", "/steps/locals/a", lab.state(**{"web/x.json": {"a": 1}})).status == 200
    assert command(lab, "LOCAL_RUN", "locals/a").status == 200
    for op in ("REBOOT_DEVICE", "POWEROFF_DEVICE", "LOCAL_RUN", "LOCAL_RUN_COMMIT", "MAKE_FACTORY", "UNCLAIM"):
        answer = command(lab, op, "0")
        assert (answer.status, answer.headers["retry-after"], answer.error) == (503, "600", "An update is ongoing")
    assert command(lab, "RUN_GC").status == 200, "that does not disturb it"
    lab.device.run_for(60)
    assert command(lab, "UNCLAIM").status == 204


def test_an_update_that_the_agent_fetches_counts(lab: ControlLab) -> None:
    folder = Path(lab.place.run) / "device-meta"
    folder.mkdir(parents=True)
    (folder / "pantahub.state").write_text("download")
    assert command(lab, "REBOOT_DEVICE").status == 503
    (folder / "pantahub.state").write_text("idle")
    assert command(lab, "REBOOT_DEVICE").status == 200


def test_one_command_at_a_time(lab: ControlLab) -> None:
    os.makedirs(lab.private, exist_ok=True)
    with lock(os.path.join(lab.private, "command.lock"), timeout_s=0):
        answer = command(lab, "RUN_GC")
    assert (answer.status, answer.headers["retry-after"], answer.error) == (503, "120", "A command is pending")
    assert command(lab, "RUN_GC").status == 200


def test_run_commit_reboots_where_run_would_not(lab: ControlLab) -> None:
    lab.ask("PUT", "/steps/locals/a", lab.state(**{"web/x.json": {"a": 1}}))
    boots = lab.world.boots
    assert command(lab, "LOCAL_RUN_COMMIT", "locals/a").status == 200
    lab.device.run_for(120)
    assert lab.world.boots == boots + 1
    assert lab.storage.current() == "locals/a"
    assert lab.storage.is_done("locals/a")


def test_make_factory(lab: ControlLab) -> None:
    state = lab.state(**{"web/x.json": {"a": 1}})
    lab.ask("PUT", "/steps/locals/a", state)
    assert command(lab, "MAKE_FACTORY", "locals/a").status == 200
    assert lab.storage.state_bytes("0") == state
    assert (Path(lab.storage.revision_dir("0")) / "web/x.json").is_file()
    (Path(lab.storage.root) / "config/pantahub.config").write_text("PH_CREDS_PRN=prn:::devices:/x\n")
    assert command(lab, "MAKE_FACTORY", "locals/a").status == 409


def test_ssh_is_a_setting_until_the_next_boot(lab: ControlLab) -> None:
    assert command(lab, "DISABLE_SSH").status == 200
    assert settings(lab.place).setting("PV_DEBUG_SSH") == (False, "command")
    assert command(lab, "ENABLE_SSH").status == 200
    assert settings(lab.place).setting("PV_DEBUG_SSH") == (True, "command")


def test_unclaim_forgets_who_the_device_was_and_keeps_where_its_hub_is(lab: ControlLab) -> None:
    config = Path(lab.storage.root) / "config/pantahub.config"
    config.write_text("PH_CREDS_HOST=hub.example\ncreds.secret=s\nPH_CREDS_PRN=prn:::devices:/x\n")
    assert command(lab, "UNCLAIM").status == 200
    assert config.read_text() == "PH_CREDS_HOST=hub.example\n"


def test_local_mode_until_go_remote(lab: ControlLab) -> None:
    lab.ask("PUT", "/steps/locals/a", lab.state(**{"web/x.json": {"a": 1}}))
    command(lab, "LOCAL_RUN", "locals/a")
    lab.device.run_for(60)
    assert command(lab, "UPDATE_METADATA", '{"a":"b"}').status == 409
    assert lab.ask("GET", "/device-meta").value["pantavisor.mode"] == "local"
    assert command(lab, "GO_REMOTE").status == 200
    assert command(lab, "GO_REMOTE").status == 204
    assert lab.ask("GET", "/device-meta").value["pantavisor.mode"] == "remote"
    assert command(lab, "UPDATE_METADATA", '{"a":"b","c":{"d":1}}').status == 200
    assert lab.ask("GET", "/device-meta").value["c"] == {"d": 1}
    lab.environ["PV_CONTROL_REMOTE"] = "0"
    assert command(lab, "GO_REMOTE").status == 409


def test_a_place_names_what_no_container_sees() -> None:
    from brickless.device.control.places import private_of

    assert private_of("/run/pantavisor/pv") == "/run/brickless"
    assert not private_of("/tmp/x").startswith("/tmp/x/")


def test_a_local_revision_that_fails_is_left_again(lab: ControlLab) -> None:
    lab.world.behave = lambda job: Behaviour(exits_after_s=0.2, status=1) if job.rev == "locals/bad" else Behaviour()
    lab.ask("PUT", "/steps/locals/bad", lab.state(**{"web/x.json": {"a": 1}}))
    assert command(lab, "LOCAL_RUN", "locals/bad").status == 200
    lab.device.run_for(300)
    progress = lab.ask("GET", "/steps/locals/bad/progress").value
    assert (progress["status"], progress["status-msg"]) == ("ERROR", "A container could not be started")
    assert lab.storage.current() == "0"
    assert lab.ask("GET", "/device-meta").value["pantavisor.status"] == "READY"


def test_a_local_revision_that_lacks_an_object_ends_with_the_reason(lab: ControlLab) -> None:
    lab.ask("PUT", "/steps/locals/lacking", lab.state(**{"_config/web/x": "1" * 64}))
    assert command(lab, "LOCAL_RUN", "locals/lacking").status == 200
    progress = lab.ask("GET", "/steps/locals/lacking/progress").value
    assert progress["status"] == "ERROR"
    assert "1 objects are missing" in progress["logs"]
    assert lab.storage.current() == "0"
    assert command(lab, "REBOOT_DEVICE").status == 200, "nothing is under way any more"


def test_a_revision_that_failed_may_be_tried_again(lab: ControlLab) -> None:
    good = [False]
    lab.world.behave = lambda job: Behaviour() if good[0] or job.rev == "0" else Behaviour(0.1, 0.2, 1)
    lab.ask("PUT", "/steps/locals/a", lab.state(**{"web/x.json": {"a": 1}}))
    command(lab, "LOCAL_RUN", "locals/a")
    lab.device.run_for(300)
    assert lab.ask("GET", "/steps/locals/a/progress").value["status"] == "ERROR"
    good[0] = True
    command(lab, "LOCAL_RUN", "locals/a")
    lab.device.run_for(300)
    assert lab.ask("GET", "/steps/locals/a/progress").value["status"] == "DONE"
