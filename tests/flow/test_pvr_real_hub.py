"""`pvr` as a process against the real hub: what a developer does in a day, and what interrupts it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import Caller, DeviceCaller, claimed_device

PVR = [sys.executable, "-m", "brickless.pvr.main"]
STATE = {"#spec": "pantavisor-service-system@1", "notes.json": {"made": "factory"}}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with running_hub(str(tmp_path_factory.mktemp("hub") / "data")) as hub:
        yield hub


@pytest.fixture
def owner(hub: HubProcess) -> Iterator[Caller]:
    with httpx.Client(base_url=hub.url) as client:
        yield Caller(client).login("user1", "user1")


@pytest.fixture
def device(owner: Caller) -> DeviceCaller:
    return claimed_device(owner).start_trail(STATE)


def nick_of(owner: Caller, device: DeviceCaller) -> str:
    return str(owner.get(f"/devices/{device.id}").json()["nick"])


@pytest.fixture
def environment(hub: HubProcess, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PVR_")}
    home = tmp_path / "home"
    home.mkdir()
    named = {"PVR_BASEURL": hub.url, "PVR_REPO_BASEURL": hub.url, "PVR_USERNAME": "user1", "PVR_PASSWORD": "user1"}
    return kept | {"HOME": str(home)} | named


@pytest.fixture
def pvr(environment: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def call(*args: str, cwd: Path = tmp_path, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        ran = subprocess.run(
            [*PVR, *args], cwd=cwd, env=environment | more, capture_output=True, text=True, check=False, timeout=120
        )
        assert ran.returncode == code, (args, ran.returncode, ran.stdout, ran.stderr)
        return ran

    return call


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_day_with_a_device(pvr: Any, hub: HubProcess, owner: Caller, device: DeviceCaller, tmp_path: Path) -> None:
    nick = nick_of(owner, device)
    ran = pvr("clone", f"user1/{nick}")
    work = tmp_path / nick
    assert ran.stdout == f"Successfully cloned: {work}\n"
    assert json.loads((work / "notes.json").read_text()) == {"made": "factory"}

    (work / "data").mkdir()
    (work / "data/blob").write_bytes(os.urandom(300_000))
    (work / "data/empty").write_bytes(b"")
    pvr("add", cwd=work)
    pvr("commit", "-m", "data", cwd=work)
    document = json.loads(pvr("plan", "--json", cwd=work).stdout)
    assert document["download-objects"] == 2
    assert document["download-bytes"] == 300_000
    ran = pvr("post", "-m", "with data", "--json", cwd=work)
    step = json.loads(ran.stdout)
    assert step["state-sha"] == sha((work / ".pvr/json").read_bytes()), "hub and client name the state alike"
    assert step["rev"] == "1"

    # The same state again: no object travels.
    assert "UP" not in pvr("post", cwd=work).stderr
    rows = json.loads(pvr("log", "--json", f"user1/{nick}").stdout)
    assert [row["rev"] for row in rows] == [2, 1, 0]
    assert rows[1]["commit-msg"] == "with data"
    assert json.loads(pvr("stepinfo", f"user1/{nick}").stdout)["rev"] == 2
    assert json.loads(pvr("remoteinfo", f"user1/{nick}").stdout)["json-key"] == "state"
    assert pvr("inspect", "-c", f"user1/{nick}").stdout == (work / ".pvr/json").read_text() + "\n"
    assert "No difference" in pvr("show", "HEAD", f"user1/{nick}", cwd=work).stdout

    copy = tmp_path / "copy"
    pvr("clone", f"{hub.url}/user1/{nick}#data", str(copy), "-o", str(tmp_path / "pool"))
    assert (copy / "data/blob").read_bytes() == (work / "data/blob").read_bytes()
    assert not (copy / "notes.json").exists()


def test_old_revisions_are_listed_and_taken(pvr: Any, owner: Caller, device: DeviceCaller, tmp_path: Path) -> None:
    nick = nick_of(owner, device)
    pvr("clone", f"user1/{nick}")
    work = tmp_path / nick
    for number in (1, 2):
        (work / "notes.json").write_text(json.dumps({"made": number}))
        pvr("commit", "-m", f"number {number}", cwd=work)
        pvr("post", "-m", f"number {number}", cwd=work)
    rows = json.loads(pvr("log", "--json", f"user1/{nick}").stdout)
    assert [(row["rev"], row["commit-msg"]) for row in rows[:2]] == [(2, "number 2"), (1, "number 1")]
    assert json.loads(pvr("inspect", "-c", f"user1/{nick}/1").stdout)["notes.json"] == {"made": 1}
    assert json.loads(pvr("diff", f"user1/{nick}/0", f"user1/{nick}/2").stdout) == {"notes.json": {"made": 2}}
    pvr("clone", f"user1/{nick}/0", "old")
    assert json.loads((tmp_path / "old/notes.json").read_text()) == {"made": "factory"}
    # Its posts go to the trail, whatever revision it began with.
    config = json.loads((tmp_path / "old/.pvr/config").read_text())
    assert config["DefaultPostUrl"].endswith(f"/user1/{nick}")
    assert "one revision" in pvr("post", f"user1/{nick}/0", cwd=tmp_path / "old", code=2).stderr
    pvr("post", cwd=tmp_path / "old")
    assert json.loads(pvr("stepinfo", f"user1/{nick}").stdout)["rev"] == 3
    pvr("clone", f"user1/{nick}/99", "none", code=7)
    pvr("clone", f"user1/{nick}/x", "none", code=7)


def test_accounts_and_devices(pvr: Any, owner: Caller, device: DeviceCaller, tmp_path: Path) -> None:
    assert "LoggedIn Successfully!" in pvr("login").stdout
    auth = tmp_path / "home/.pvr/auth.json"
    assert auth.stat().st_mode & 0o777 == 0o600
    # From here on the cached token must do.
    quiet = {"PVR_USERNAME": "", "PVR_PASSWORD": ""}
    assert json.loads(pvr("whoami", "--json", **quiet).stdout)[0]["nick"] == "user1"
    nick = nick_of(owner, device)
    assert json.loads(pvr("device", "get", nick, **quiet).stdout)["id"] == device.id
    assert "Updated Successfully" in pvr("device", "set", nick, "site=hall 3", "gone", **quiet).stdout
    assert json.loads(pvr("device", "get", nick, **quiet).stdout)["user-meta"] == {"site": "hall 3"}
    pvr("device", "set", nick, "site", **quiet)
    assert json.loads(pvr("device", "get", nick, **quiet).stdout)["user-meta"] == {}
    assert device.id[:8] in pvr("device", "ps", **quiet).stdout
    pvr("login", code=4, PVR_PASSWORD="wrong")

    fresh = owner.client.post("/devices/", json={}).json()
    pvr("claim", "-c", "wrong-challenge", fresh["id"], code=4, **quiet)
    pvr("claim", "-c", fresh["challenge"], fresh["id"], **quiet)
    assert owner.get(f"/devices/{fresh['id']}").json()["owner"] == owner.claims["prn"]
    pvr("device", "delete", fresh["id"], code=2, **quiet)
    pvr("device", "delete", "-y", fresh["id"], **quiet)


def test_logs_of_a_device(pvr: Any, owner: Caller, device: DeviceCaller) -> None:
    for number in range(3):
        entry = {"tsec": 1700000000 + number, "tnano": 0, "rev": "0", "plat": "web", "src": "/a/b", "lvl": "INFO", "msg": f"line {number}"}  # fmt: skip  # noqa: E501 one table-like line
        device.post("/logs/", [entry]).raise_for_status()
    nick = nick_of(owner, device)
    out = pvr("device", "logs", nick, "--from", "PT1H", "--no-follow").stdout.splitlines()
    assert [line.rpartition(": ")[2] for line in out] == ["line 0", "line 1", "line 2"]
    entries = pvr("device", "logs", nick, "--rev", "0", "--no-follow", "--json").stdout.splitlines()
    assert json.loads(entries[0])["msg"] == "line 0"


def test_fastcopy_renames_on_the_hub(pvr: Any, owner: Caller, device: DeviceCaller, tmp_path: Path) -> None:
    source, nick = nick_of(owner, device), nick_of(owner, claimed := claimed_device(owner).start_trail(STATE))
    pvr("clone", f"user1/{source}", "work")
    work = tmp_path / "work"
    (work / "nginx").mkdir()
    (work / "nginx/file").write_bytes(b"content")
    pvr("add", cwd=work)
    pvr("commit", cwd=work)
    pvr("post", cwd=work)
    pvr("fastcopy", "-m", "copied", f"user1/{source}#nginx", f"user1/{nick}#web")
    state = json.loads(pvr("inspect", "-c", f"user1/{nick}").stdout)
    assert state == {**STATE, "web/file": sha(b"content")}
    pvr("clone", f"user1/{nick}", "other", "-o", str(tmp_path / "pool"))
    assert (tmp_path / "other/web/file").read_bytes() == b"content"
    assert claimed.id


def test_a_private_device_is_not_there_for_a_stranger(pvr: Any, owner: Caller, device: DeviceCaller) -> None:
    nick = nick_of(owner, device)
    ran = pvr("clone", f"user1/{nick}", code=7, PVR_USERNAME="user2", PVR_PASSWORD="user2")
    assert "404" in ran.stderr or "403" in ran.stderr
    pvr("clone", f"user1/{nick}", code=7, PVR_USERNAME="", PVR_PASSWORD="")
    owner.put(f"/devices/{device.id}/public").raise_for_status()
    pvr("clone", f"user1/{nick}", PVR_USERNAME="", PVR_PASSWORD="")


def test_a_killed_post_and_a_killed_get_are_finished_by_the_next(
    pvr: Any, environment: dict[str, str], owner: Caller, device: DeviceCaller, tmp_path: Path
) -> None:
    nick = nick_of(owner, device)
    pvr("clone", f"user1/{nick}", "work")
    work = tmp_path / "work"
    contents = {f"data/{number}": os.urandom(4_000_000) for number in range(6)}
    (work / "data").mkdir()
    for name, content in contents.items():
        (work / name).write_bytes(content)
    pvr("add", cwd=work)
    pvr("commit", cwd=work)
    before = (work / ".pvr/json").read_bytes()

    kill_after_first_line([*PVR, "post"], work, environment, "Posting object info")
    assert (work / ".pvr/json").read_bytes() == before
    rows = json.loads(pvr("log", "--json", f"user1/{nick}").stdout)
    assert [row["rev"] for row in rows] == [0], "half a post is no step"
    pvr("post", cwd=work)

    copy = tmp_path / "copy"
    copy.mkdir()
    pool = tmp_path / "pool"
    pvr("init", "-o", str(pool), cwd=copy)
    kill_when(lambda: bool(pool.exists() and os.listdir(pool)), [*PVR, "get", f"user1/{nick}"], copy, environment)
    assert (copy / ".pvr/json").read_bytes() == b'{ "#spec": "pantavisor-service-system@1" }'
    pvr("get", f"user1/{nick}", cwd=copy)
    pvr("checkout", cwd=copy)
    assert {name: (copy / name).read_bytes() for name in contents} == contents
    assert sorted(os.listdir(pool)) == sorted(map(sha, contents.values()))


def kill_after_first_line(argv: list[str], cwd: Path, environment: dict[str, str], text: str) -> None:
    with subprocess.Popen(argv, cwd=cwd, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if text in line:
                break
        process.send_signal(signal.SIGKILL)


def kill_when(condition: Callable[[], bool], argv: list[str], cwd: Path, environment: dict[str, str]) -> None:
    with subprocess.Popen(argv, cwd=cwd, env=environment, stderr=subprocess.DEVNULL) as process:
        while not condition() and process.poll() is None:
            os.sched_yield()
        process.send_signal(signal.SIGKILL)


def test_ctrl_c_during_a_transfer_loses_nothing(
    pvr: Any, environment: dict[str, str], owner: Caller, device: DeviceCaller, tmp_path: Path
) -> None:
    nick = nick_of(owner, device)
    pvr("clone", f"user1/{nick}", "work")
    work = tmp_path / "work"
    for number in range(4):
        (work / f"big{number}").write_bytes(os.urandom(5_000_000))
    pvr("add", cwd=work)
    pvr("commit", cwd=work)
    with subprocess.Popen([*PVR, "post"], cwd=work, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "baseline" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        code = process.wait(30)
    assert code == 130, rest
    assert "run the same command again" in rest
    assert "Traceback" not in rest
    pvr("post", cwd=work)


def test_two_at_once_in_one_repository_take_turns(
    pvr: Any, environment: dict[str, str], owner: Caller, device: DeviceCaller, tmp_path: Path
) -> None:
    nick = nick_of(owner, device)
    pvr("clone", f"user1/{nick}", "work")
    work = tmp_path / "work"
    (work / "f").write_bytes(os.urandom(100_000))
    pvr("add", cwd=work)
    commands = [["commit"], ["get"], ["post"], ["status"], ["add"], ["commit", "-m", "x"]]
    running = [subprocess.Popen([*PVR, *command], cwd=work, env=environment, stderr=subprocess.PIPE) for command in commands]  # fmt: skip  # noqa: E501 one table-like line
    codes = [(process.communicate()[1], process.returncode)[1] for process in running]
    assert codes == [0] * len(commands)
    assert pvr("fsck", cwd=work).stdout == ""
    assert json.loads((work / ".pvr/json").read_bytes())["#spec"] == STATE["#spec"]


def test_a_device_made_from_a_repository(pvr: Any, owner: Caller, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    pvr("init", cwd=work)
    (work / "f").write_bytes(b"factory")
    pvr("add", cwd=work)
    pvr("commit", cwd=work)
    made = json.loads(pvr("device", "create", "--json", cwd=work).stdout)
    assert made["secret"]
    device = owner.client.post("/auth/login", json={"username": made["prn"], "password": made["secret"]})
    token = device.json()["token"]
    steps = owner.client.get(f"/trails/{made['id']}/steps/0", headers={"Authorization": f"Bearer {token}"}).json()
    assert steps["state"]["f"] == sha(b"factory")


def test_factory_tokens(pvr: Any, owner: Caller, hub: HubProcess) -> None:
    """A token is made, makes a device its owner's at the first contact, is listed and disabled."""
    made = pvr("device", "tokens", "create", "line-3", "--meta", "site=hall 3", "--json")
    token = json.loads(made.stdout)
    assert token["nick"] == "line-3"
    assert token["id"] in made.stderr
    fresh = owner.client.post("/devices/", json={}, headers={"Pantahub-Devices-Auto-Token-V1": token["token"]}).json()
    found = json.loads(pvr("device", "get", fresh["id"]).stdout)
    assert found["owner"] == owner.claims["prn"]
    assert found["user-meta"] == {"site": "hall 3"}
    listed = pvr("device", "tokens", "ls")
    assert f"{token['id']}  line-3" in listed.stdout
    assert token["token"] not in listed.stdout
    assert "disabled" in pvr("device", "tokens", "rm", token["id"]).stdout
    again = owner.client.post("/devices/", json={}, headers={"Pantahub-Devices-Auto-Token-V1": token["token"]})
    assert again.json().get("owner", "") == ""
    pvr("device", "tokens", "create", "--meta", "no-value", code=2)
    plain = pvr("--quiet", "device", "tokens", "create")
    assert plain.stdout.strip()
    assert plain.stderr == ""


def completions(pvr: Any, words: str, **more: str) -> list[str]:
    """What a shell would offer for the last of the words."""
    number = str(len(words.split()) + words.endswith(" ") - 1)
    ran = pvr(_PVR_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=number, **more)
    return [line.partition(",")[2] for line in ran.stdout.splitlines() if line]


def test_a_shell_offers_what_the_hub_knows(
    pvr: Any, owner: Caller, device: DeviceCaller, tmp_path: Path, hub: HubProcess
) -> None:
    nick = nick_of(owner, device)
    pvr("login")
    quiet = {"PVR_USERNAME": "", "PVR_PASSWORD": ""}
    assert nick in completions(pvr, f"pvr device get {nick[:4]}", **quiet)
    assert f"user1/{nick}" in completions(pvr, f"pvr clone user1/{nick[:4]}", **quiet)
    assert "user1/" in completions(pvr, "pvr post user", **quiet)
    assert completions(pvr, "pvr device get no-such-nick", **quiet) == []
    assert "commit" in completions(pvr, "pvr com")
    # No question, no error, no long wait: not even without a hub.
    ran = pvr(
        _PVR_COMPLETE="bash_complete", COMP_WORDS="pvr device get x", COMP_CWORD="3", PVR_BASEURL="http://127.0.0.1:1"
    )
    assert (ran.stdout.strip(), ran.stderr) == ("", "")
    (tmp_path / "web").mkdir()
    (tmp_path / "web/src.json").write_text("{}")
    assert completions(pvr, "pvr app update w") == ["web"]
