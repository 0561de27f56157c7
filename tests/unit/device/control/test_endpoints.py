"""Every endpoint of the control socket (device.md 6.2): the shapes, the statuses, the texts."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from brickless.core.canonical import sha256_hex
from brickless.core.progress import Message, Progress, Status
from brickless.core.state import parse_state
from brickless.device.control.caller import NOBODY, Caller
from brickless.testkit.control import ControlLab

WEB = Caller("web", False, uid=33)
MANAGER = Caller("web", True)
SHA = "a" * 64


# -- containers, groups, signals --------------------------------------------------------------------------------------


def test_containers(lab: ControlLab) -> None:
    rows = lab.ask("GET", "/containers").value
    assert [row["name"] for row in rows] == ["net", "web"]
    assert rows[1] == {
        "name": "web",
        "group": "app",
        "status": "STARTED",
        "status_goal": "STARTED",
        "restart_policy": "container",
        "roles": [],
        "user_stopped": "false",
    }
    assert "user_stopped" not in rows[0]


def test_groups(lab: ControlLab) -> None:
    assert lab.ask("GET", "/groups").value == [
        {"name": "root", "status_goal": "STARTED", "restart_policy": "system", "status": "READY"},
        {"name": "app", "status_goal": "STARTED", "restart_policy": "container", "status": "READY"},
    ]


def test_a_container_is_stopped_started_and_restarted(lab: ControlLab) -> None:
    assert lab.ask("PUT", "/containers/web", {"action": "stop"}).status == 200
    lab.device.run_for(10)
    assert lab.ask("GET", "/containers").value[1]["user_stopped"] == "true"
    assert lab.ask("PUT", "/containers/web", {"action": "start"}).status == 200
    lab.device.run_for(10)
    assert lab.ask("GET", "/containers").value[1]["status"] == "STARTED"
    pid = lab.world.processes["web"].handle.pid
    assert lab.ask("PUT", "/containers/web", {"action": "restart"}).status == 200
    lab.device.run_for(10)
    assert lab.world.processes["web"].handle.pid != pid


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [
        ("nosuch", {"action": "stop"}, 404),
        ("net", {"action": "stop"}, 403),
        ("web", {"action": "explode"}, 400),
        ("web", b"", 400),
        ("web", b"[]", 400),
        ("web", b'{"action":"stop"' + b" " * 5000 + b"}", 413),
    ],
    ids=["unknown", "system", "action", "empty", "no-object", "too-large"],
)
def test_what_a_container_cannot_be_told(lab: ControlLab, name: str, body: object, status: int) -> None:
    answer = lab.ask("PUT", f"/containers/{name}", body)
    assert answer.status == status
    assert answer.error


def test_a_container_says_that_it_is_ready(tmp_path: Path) -> None:
    lab = ControlLab(str(tmp_path), web={"status_goal": "READY"})
    assert lab.ask("GET", "/containers").value[0]["status"] == "STARTED"
    assert lab.ask("POST", "/signal", {"type": "ready", "payload": ""}, caller=WEB).status == 200
    assert lab.ask("GET", "/containers").value[0]["status"] == "READY"


@pytest.mark.parametrize(
    ("caller", "kind", "status", "text"),
    [
        (Caller("", True), "ready", 500, "Signal not expected from this platform"),
        (WEB, "alive", 500, "Signal not expected from this platform"),
        (WEB, "dance", 400, "The type of a signal is ready"),
        (NOBODY, "ready", 403, "Request not sent from a mgmt platform"),
    ],
    ids=["host", "alive", "unknown", "nobody"],
)
def test_signals_that_are_refused(lab: ControlLab, caller: Caller, kind: str, status: int, text: str) -> None:
    answer = lab.ask("POST", "/signal", {"type": kind, "payload": ""}, caller=caller)
    assert (answer.status, answer.error) == (status, text)


# -- who may -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["containers", "groups", "objects", "steps", "user-meta", "config2", "daemons", "x"])
def test_a_container_without_the_role_is_refused(lab: ControlLab, path: str) -> None:
    answer = lab.ask("GET", f"/{path}", caller=WEB)
    assert (answer.status, answer.error) == (403, "Request not sent from a mgmt platform")
    assert lab.ask("POST", "/commands", {"op": "REBOOT_DEVICE", "payload": ""}, caller=WEB).status == 403
    assert lab.world.ending == ""


def test_a_managing_container_may(lab: ControlLab) -> None:
    assert lab.ask("GET", "/containers", caller=MANAGER).status == 200


def test_without_a_supervisor_the_answer_is_try_again(lab: ControlLab) -> None:
    lab.supervisor.device = None
    answer = lab.ask("GET", "/containers")
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")


# -- objects -----------------------------------------------------------------------------------------------------------


def test_an_object_is_put_listed_and_got(lab: ControlLab) -> None:
    data = b"some bytes" * 100_000
    sha = sha256_hex(data)
    assert lab.ask("PUT", f"/objects/{sha}", data).status == 200
    assert lab.ask("PUT", f"/objects/{sha}", data).status == 200, "putting it again is no mistake"
    got = lab.ask("GET", f"/objects/{sha}")
    assert got.body == data
    assert {"sha256": sha, "size": str(len(data))} in lab.ask("GET", "/objects").value


def test_an_object_with_other_bytes_is_refused_and_leaves_nothing(lab: ControlLab) -> None:
    before = sorted(os.listdir(lab.storage.objects.root))
    answer = lab.ask("PUT", f"/objects/{SHA}", b"other")
    assert (answer.status, answer.error) == (422, "Object has bad checksum")
    assert sorted(os.listdir(lab.storage.objects.root)) == before


def test_an_object_for_which_there_is_no_room(lab: ControlLab) -> None:
    head = f"PUT /objects/{SHA} HTTP/1.1\r\nContent-Length: {10**14}\r\n\r\n"
    answer = lab.raw(head.encode())
    assert (answer.status, answer.error) == (507, "Not enough disk space available")


def test_an_object_that_breaks_off_leaves_nothing(lab: ControlLab) -> None:
    before = sorted(os.listdir(lab.storage.objects.root))
    answer = lab.raw(f"PUT /objects/{SHA} HTTP/1.1\r\nContent-Length: 100\r\n\r\nshort".encode())
    assert answer.status == 400
    assert sorted(os.listdir(lab.storage.objects.root)) == before


def test_an_object_in_chunks(lab: ControlLab) -> None:
    sha = sha256_hex(b"abcdef")
    head = f"PUT /objects/{sha} HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    assert lab.raw(head.encode() + b"3\r\nabc\r\n3;x=y\r\ndef\r\n0\r\n\r\n").status == 200
    assert lab.ask("GET", f"/objects/{sha}").body == b"abcdef"


@pytest.mark.parametrize("name", ["xyz", "A" * 64, "..%2fboot", "%00" * 3, SHA + "0"])
def test_what_is_no_name_of_an_object(lab: ControlLab, name: str) -> None:
    assert lab.ask("GET", f"/objects/{name}").status == 400
    assert lab.ask("GET", f"/objects/{SHA}").status == 404


# -- steps -------------------------------------------------------------------------------------------------------------


def test_a_local_step_from_put_to_done(lab: ControlLab) -> None:
    sha = sha256_hex(b"page")
    assert lab.ask("PUT", f"/objects/{sha}", b"page").status == 200
    state = lab.state(**{"_config/web/page": sha})
    assert lab.ask("PUT", "/steps/locals/next", state).status == 200
    assert lab.ask("GET", "/steps/locals/next").body == state, "byte for byte"
    assert lab.ask("GET", "/steps/locals/next/progress").value == {
        "status": "NEW",
        "status-msg": "Update not yet installed",
        "progress": 0,
        "retries": 0,
    }
    assert lab.ask("PUT", "/steps/locals/next/commitmsg", b"a new page").status == 200
    pid = lab.world.processes["net"].handle.pid
    assert lab.ask("POST", "/commands", {"op": "LOCAL_RUN", "payload": "locals/next"}).status == 200
    lab.device.run_for(60)
    assert lab.storage.current() == "locals/next"
    assert lab.ask("GET", "/steps/current/progress").value["status"] == "DONE"
    assert lab.world.processes["net"].handle.pid == pid, "the container that did not change keeps running"
    row = next(row for row in lab.ask("GET", "/steps").value if row["name"] == "locals/next")
    assert row["commitmsg"] == "a new page"
    assert row["date"].endswith("Z")
    assert row["progress"]["status"] == "DONE"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "Parser: State JSON has bad format"),
        (b'{"#spec":"other@1"}', "Parser: State JSON has bad format"),
        (b'{"#spec":"pantavisor-service-system@1","../x":"' + b"0" * 64 + b'"}', "Parser: State JSON has bad format"),
    ],
    ids=["no-json", "spec", "path"],
)
def test_a_broken_state_is_refused_and_removed(lab: ControlLab, body: bytes, text: str) -> None:
    answer = lab.ask("PUT", "/steps/locals/bad", body)
    assert answer.status == 422
    assert answer.error.startswith(text)
    assert "locals/bad" not in lab.storage.revisions()


def test_strict_signatures_are_asked_for_at_the_put(lab: ControlLab) -> None:
    lab.environ["PV_SECUREBOOT_MODE"] = "strict"
    answer = lab.ask("PUT", "/steps/locals/unsigned", lab.state())
    assert answer.status == 422
    assert answer.error.startswith("Secureboot: ")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/steps/7", 403),
        ("PUT", "/steps/locals/a/b", 400),
        ("PUT", "/steps/locals/" + "x" * 65, 400),
        ("PUT", "/steps/locals/..", 400),
        ("GET", "/steps/locals/%2e%2e", 400),
        ("GET", "/steps/99", 404),
        ("GET", "/steps/99/progress", 404),
        ("DELETE", "/steps/0", 400),
        ("PUT", "/steps/99/commitmsg", 404),
    ],
)
def test_steps_that_are_none(lab: ControlLab, method: str, path: str, status: int) -> None:
    assert lab.ask(method, path, lab.state()).status == status


def test_the_running_step_is_not_replaced(lab: ControlLab) -> None:
    lab.ask("PUT", "/steps/locals/next", lab.state(**{"web/x.json": {"a": 1}}))
    lab.ask("POST", "/commands", {"op": "LOCAL_RUN", "payload": "locals/next"})
    lab.device.run_for(60)
    assert lab.ask("PUT", "/steps/locals/next", lab.state()).status == 409


def test_a_commit_message_is_bounded(lab: ControlLab) -> None:
    assert lab.ask("PUT", "/steps/0/commitmsg", b"x" * 257).status == 400
    assert lab.ask("PUT", "/steps/0/commitmsg", "ä" * 128).status == 400
    assert lab.ask("PUT", "/steps/0/commitmsg", b"x" * 256).status == 200
    assert lab.ask("GET", "/steps/0/commitmsg").body == b"x" * 256


# -- metadata ----------------------------------------------------------------------------------------------------------


def test_user_metadata(lab: ControlLab) -> None:
    run = Path(lab.place.run)
    (run / "user-meta.web").mkdir(parents=True)
    assert lab.ask("PUT", "/user-meta/colour", b"blue").status == 200
    assert lab.ask("PUT", "/user-meta/web.size", b'{"w": 3}').status == 200
    assert lab.ask("GET", "/user-meta").value == {"colour": "blue", "web.size": {"w": 3}}
    assert (run / "user-meta" / "colour").read_text() == "blue"
    assert (run / "user-meta.web" / "size").read_text() == '{"w": 3}'
    assert not (run / "user-meta.web" / "colour").exists()
    assert lab.ask("DELETE", "/user-meta/colour").status == 200
    assert lab.ask("DELETE", "/user-meta/colour").status == 404
    assert lab.ask("GET", "/user-meta").value == {"web.size": {"w": 3}}


def test_user_metadata_is_configuration_and_its_removal_restores(lab: ControlLab) -> None:
    def setting() -> dict[str, str]:
        rows = lab.ask("GET", "/config2").value
        return next(row for row in rows if row["key"] == "PV_UPDATER_COMMIT_DELAY")

    before = setting()
    assert before["modified"] == "default"
    lab.ask("PUT", "/user-meta/updater.commit.delay", b"77")
    assert setting() == {"key": "PV_UPDATER_COMMIT_DELAY", "value": "77", "modified": "metadata"}
    lab.ask("DELETE", "/user-meta/updater.commit.delay")
    assert setting() == before


def test_device_metadata(lab: ControlLab) -> None:
    assert lab.ask("PUT", "/device-meta/web.state", b"fine").status == 200
    values = lab.ask("GET", "/device-meta").value
    assert values["web.state"] == "fine"
    assert values["pantavisor.status"] == "READY"
    assert values["pantavisor.revision"] == "0"
    assert values["storage"]["total"] > 0
    assert lab.ask("DELETE", "/device-meta/web.state").status == 200
    assert lab.ask("DELETE", "/device-meta/web.state").status == 404


@pytest.mark.parametrize("kind", ["user-meta", "device-meta"])
@pytest.mark.parametrize(
    ("key", "body", "status"),
    [
        ("k", b"", 400),
        ("k", b"x" * 4097, 400),
        ("k", b"x" * 4096, 200),
        (".hidden", b"x", 400),
        ("a%2fb", b"x", 400),
        ("k" * 129, b"x", 400),
    ],
    ids=["empty", "too-long", "longest", "hidden", "slash", "long-key"],
)
def test_metadata_bounds(lab: ControlLab, kind: str, key: str, body: bytes, status: int) -> None:
    assert lab.ask("PUT", f"/{kind}/{key}", body).status == status


# -- configuration and what else the device says ----------------------------------------------------------------------


def test_configuration_with_its_origin_and_without_its_secrets(lab: ControlLab) -> None:
    config = Path(lab.storage.root) / "config" / "pantahub.config"
    config.write_text("PH_CREDS_SECRET=very-secret\nPH_CREDS_HOST=hub.example\n")
    for path in ("/config2", "/config"):
        assert b"very-secret" not in lab.ask("GET", path).body
    rows = {row["key"]: row for row in lab.ask("GET", "/config2", caller=MANAGER).value}
    assert rows["PH_CREDS_HOST"] == {"key": "PH_CREDS_HOST", "value": "hub.example", "modified": "ph conf file"}
    assert rows["PH_CREDS_SECRET"]["value"] == "(hidden)"
    assert rows["PH_CREDS_PRN"]["value"] == "(null)"
    assert lab.ask("GET", "/config").value["creds.host"] == "hub.example"


def test_buildinfo_is_text(lab: ControlLab) -> None:
    answer = lab.ask("GET", "/buildinfo")
    assert answer.headers["content-type"] == "text/plain"
    assert answer.body.startswith(b"brickless ")


def test_daemons(lab: ControlLab) -> None:
    rows = lab.ask("GET", "/daemons").value
    assert [set(row) for row in rows] == [{"name", "pid", "respawn"}] * len(rows)
    assert lab.ask("PUT", "/daemons/nosuch", {"action": "stop"}).status == 404
    assert lab.ask("PUT", "/daemons/agent", {"action": "dance"}).status == 400
    assert lab.ask("PUT", "/daemons/agent", {"action": "stop"}).status == 403


def test_wakelocks(lab: ControlLab) -> None:
    value = lab.ask("GET", "/wakelocks").value
    assert value["mode"] == "locks"
    assert set(value["held"]) == {
        "boot", "update", "update_check", "devmeta", "usrmeta", "shutdown", "debug_shell", "poll",
    }  # fmt: skip


def test_the_graph_of_services(tmp_path: Path) -> None:
    lab = ControlLab(
        str(tmp_path), web={"services": {"required": [{"name": "db", "type": "unix", "target": "/run/db"}]}}, db={}
    )
    state = lab.state(**{"db/services.json": {"services": [{"name": "db", "type": "unix", "socket": "/run/db.sock"}]}})
    lab.storage.install("0", parse_state(state))
    (row,) = lab.ask("GET", "/xconnect-graph").value
    assert (row["consumer"], row["provider"], row["socket"]) == ("web", "db", "/run/db.sock")
    assert (row["role"], row["target"], row["type"]) == ("any", "/run/db", "unix")


def test_drivers_of_the_caller(tmp_path: Path) -> None:
    lab = ControlLab(str(tmp_path), web={"drivers": {"required": ["wifi"], "manual": ["nosuch"]}}, net={})
    drivers = {"#spec": "driver-aliases@1", "all": {"wifi": ["surely_not_loaded_here opt=1"]}}
    board = {"bsp/drivers.json": drivers, "bsp/run.json": {"fit": "x.fit"}, "bsp/x.fit": lab.config_sha}
    lab.storage.install("0", parse_state(lab.state(**board)))
    assert lab.ask("GET", "/drivers", caller=WEB).value == [
        {"name": "wifi", "type": "REQUIRED", "status": "UNLOADED"},
        {"name": "nosuch", "type": "MANUAL", "status": "UNKNOWN"},
    ]
    assert lab.ask("GET", "/drivers", caller=Caller("net", False)).value == {}
    assert lab.ask("PUT", "/drivers/other/load", caller=WEB).status == 404
    assert lab.ask("PUT", "/drivers/wifi/dance", caller=WEB).status == 400
    assert lab.ask("PUT", "/drivers/wifi/load").status == 500


# -- garbage -----------------------------------------------------------------------------------------------------------


def test_garbage_is_collected_and_what_counts_stays(lab: ControlLab) -> None:
    old = Progress.of(Status.DONE, Message.DONE).to_json()
    for rev, progress in {
        "1": old,
        "2": Progress.of(Status.ERROR, Message.INTERNAL).to_json(),
        "3": Progress.of(Status.DOWNLOADING, "").to_json(),
        "locals/fresh": Progress.of(Status.NEW, Message.NEW_LOCAL).to_json(),
        "locals/stale": Progress.of(Status.NEW, Message.NEW_LOCAL).to_json(),
    }.items():
        lab.storage.write_state(rev, lab.state())
        lab.storage.write_progress(rev, progress)
    lab.storage.mark_done("1")
    hour_ago_s = time.time() - 3600
    os.utime(Path(lab.storage.revision_dir("locals/stale")) / ".pv" / "progress", (hour_ago_s, hour_ago_s))
    lab.storage.objects.add([b"nobody names this" * 1000])
    answer = lab.ask("POST", "/storage/gc")
    assert answer.value["reclaimed"] > 0
    assert lab.storage.revisions() == ["0", "1", "3", "locals/fresh"], "factory, last good, under way, just put"
    assert lab.ask("GET", "/storage/gc").status == 400


# -- what is no endpoint -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("GET", "/nosuch"), ("DELETE", "/containers"), ("POST", "/config2")]
)
def test_no_such_endpoint(lab: ControlLab, method: str, path: str) -> None:
    answer = lab.ask(method, path)
    assert answer.status == 400
    assert answer.error


def test_errors_are_json_objects_with_one_member(lab: ControlLab) -> None:
    assert list(json.loads(lab.ask("GET", "/nosuch").body)) == ["Error"]
