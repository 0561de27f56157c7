"""Backup, restore, garbage collection, checks and key rotation with the hub's own commands, as processes."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from brickless.linux.process import Completed, run
from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, claimed_device, post_revision, sha256

SRC = str(Path(__file__).parents[2] / "src")


def hub_command(data: str, *arguments: str) -> Completed:
    argv = [sys.executable, "-m", "brickless.hub", "--data", data, *arguments]
    return run(argv, purpose="a hub command", timeout_s=120, env={"PYTHONPATH": SRC}, check=False)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    with running_hub(str(tmp_path / "data"), arguments=["--no-rate-limits"]) as running:
        yield running


@pytest.fixture
def user(hub: HubProcess) -> Iterator[Caller]:
    with httpx.Client(base_url=hub.url, timeout=30) as client:
        yield Caller(client).login("user1", "user1")


def test_a_backup_of_a_serving_hub_restores_to_a_hub_with_everything(
    tmp_path: Path, hub: HubProcess, user: Caller
) -> None:
    device = claimed_device(user).start_trail()
    sha = user.upload(b"kept in the backup")
    step = post_revision(user, device.id, {"#spec": SPEC, "a": sha})
    backup, restored = str(tmp_path / "backup.tar"), str(tmp_path / "restored")
    done = hub_command(hub.data_dir, "admin", "backup", backup)
    assert (done.returncode, done.stdout) == (0, f"1 objects in {backup}\n".encode()), done.stderr
    assert Path(backup).stat().st_mode & 0o077 == 0
    post_revision(user, device.id, {"#spec": SPEC})
    assert hub_command(restored, "admin", "restore", backup).returncode == 0
    with running_hub(restored, demo_accounts=False) as again, httpx.Client(base_url=again.url) as client:
        same = Caller(client, user.token)
        assert same.get(f"/trails/{device.id}/steps/1").json() == step
        assert same.get(f"/trails/{device.id}/steps/2").status_code == 404
        assert client.get(same.get(f"/objects/{sha}").json()["signed-geturl"]).content == b"kept in the backup"
        assert Caller(client).login(device.prn, device.secret).token
    assert hub_command(restored, "admin", "check").stdout == b"every object is whole\n"


def test_a_restore_never_overwrites(tmp_path: Path, hub: HubProcess) -> None:
    backup = str(tmp_path / "backup.tar")
    hub_command(hub.data_dir, "admin", "backup", backup)
    done = hub_command(hub.data_dir, "admin", "restore", backup)
    assert (done.returncode, b"exists" in done.stderr) == (1, True)


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "escaping", "link", "no database"])
def test_a_damaged_backup_restores_to_nothing(tmp_path: Path, hub: HubProcess, user: Caller, damage: str) -> None:
    user.upload(b"will be damaged" * 1000)
    backup = tmp_path / "backup.tar"
    hub_command(hub.data_dir, "admin", "backup", str(backup))
    data = backup.read_bytes()
    if damage == "cut":
        backup.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        backup.write_bytes(data.replace(b"will be damagedwill", b"was not damagedwill", 1))
    else:
        with tarfile.open(backup, "w" if damage == "no database" else "a") as tar:
            name = {"foreign": "bin/sh", "escaping": "objects/../../evil", "link": "keys/link"}.get(damage, "keys/a")
            member = tarfile.TarInfo(name)
            if damage == "link":
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(member, io.BytesIO())
    done = hub_command(str(tmp_path / "restored"), "admin", "restore", str(backup))
    assert done.returncode == 1, done
    assert done.stderr.startswith(b"hub: ")
    assert b"Traceback" not in done.stderr
    assert not [path for path in tmp_path.iterdir() if "restore" in path.name or path.name == "evil"]


def test_garbage_goes_and_nothing_in_use_does(hub: HubProcess, user: Caller) -> None:
    kept, dropped = claimed_device(user).start_trail(), claimed_device(user).start_trail()
    other = Caller(user.client).login("user2", "user2")
    shas = {name: user.upload(f"object {name}".encode()) for name in ("kept", "shared", "dropped", "unused")}
    other_sha = other.upload(b"object unused")
    foreign = claimed_device(other).start_trail()
    post_revision(user, kept.id, {"#spec": SPEC, "a": shas["kept"], "b": shas["shared"]})
    post_revision(user, dropped.id, {"#spec": SPEC, "a": shas["dropped"], "b": shas["shared"]})
    post_revision(other, foreign.id, {"#spec": SPEC, "a": other_sha})
    unclaimed = Caller(user.client).post("/devices/").json()
    user.delete(f"/devices/{dropped.id}")
    announced = sha256(b"announced only")
    user.post("/objects/", {"objectname": "x", "size": "14", "sha256sum": announced})

    nothing = json.loads(hub_command(hub.data_dir, "admin", "gc").stdout)
    assert nothing == {"devices": 0, "records": 0, "blobs": 0, "freed_bytes": 0}
    done = hub_command(hub.data_dir, "admin", "gc", "--older-than-minutes", "0")
    collected = json.loads(done.stdout)
    assert (collected["devices"], collected["records"]) == (2, 3), done
    assert (collected["blobs"], collected["freed_bytes"]) == (1, len("object dropped"))

    assert user.get(f"/devices/{unclaimed['id']}").status_code == 404
    left = {item["sha256sum"] for item in user.get("/objects/").json()}
    assert left == {shas["kept"], shas["shared"]}
    for caller, sha in ((user, shas["kept"]), (user, shas["shared"]), (other, other_sha)):
        assert caller.client.get(caller.get(f"/objects/{sha}").json()["signed-geturl"]).status_code == 200
    assert hub_command(hub.data_dir, "admin", "check").returncode == 0


def test_a_check_names_what_is_broken(hub: HubProcess, user: Caller) -> None:
    shas = [user.upload(f"object {number}".encode()) for number in range(4)]
    paths = [Path(hub.data_dir, "objects", sha[:2], sha[2:]) for sha in shas]
    paths[0].unlink()
    paths[1].write_bytes(b"short")
    paths[2].write_bytes(b"objekt 2")
    done = hub_command(hub.data_dir, "admin", "check")
    assert done.returncode == 1
    found = set(done.stdout.decode().splitlines())
    assert found == {
        f"object {shas[0]}: its bytes are missing",
        f"object {shas[1]}: has 5 bytes instead of 8",
        f"object {shas[2]}: its content is not what its name says",
    }


def test_tokens_outlive_a_rotation_once(hub: HubProcess, user: Caller) -> None:
    device = claimed_device(user)
    assert hub_command(hub.data_dir, "admin", "rotate-keys").returncode == 0
    hub.stop()
    hub.start()
    assert user.get("/devices/").status_code == 200
    fresh = Caller(user.client).login(device.prn, device.secret)
    assert hub_command(hub.data_dir, "admin", "rotate-keys").returncode == 0
    hub.stop()
    hub.start()
    assert user.get("/devices/").status_code == 401
    assert fresh.get("/devices/").status_code == 200


def test_accounts_are_made_by_a_command(tmp_path: Path) -> None:
    data, password = str(tmp_path / "data"), tmp_path / "password"
    password.write_text("a good password\n")
    create = ("account", "create", "alice", "--email", "alice@example.com", "--password-file", str(password))
    done = hub_command(data, *create)
    assert (done.returncode, done.stdout[:17]) == (0, b"prn:::accounts:/" + done.stdout[16:17])
    again = hub_command(data, *create)
    assert (again.returncode, again.stderr) == (1, b"hub: Email or Nick already in use\n")
    with (
        running_hub(data, demo_accounts=False, arguments=["--no-sign-up"]) as hub,
        httpx.Client(base_url=hub.url) as client,
    ):
        nobody = Caller(client)
        assert nobody.login("alice", "a good password").claims["nick"] == "alice"
        assert nobody.post("/auth/login", {"username": "user1", "password": "user1"}).status_code == 401
        body = {"email": "b@example.com", "nick": "bob", "password": "x"}
        assert nobody.post("/auth/accounts", body).status_code == 403
        assert nobody.post("/auth/sessions").status_code == 403


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--tls-port", "0"], b"--tls-cert"),
        (["--tls-port", "0", "--tls-cert", "/none", "--tls-key", "/none"], b"TLS files"),
    ],
)
def test_wrong_arguments_are_explained(tmp_path: Path, arguments: list[str], word: bytes) -> None:
    done = hub_command(str(tmp_path / "data"), "--port", "0", *arguments)
    assert done.returncode in {1, 2}
    assert word in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_taken_port_is_explained(tmp_path: Path, hub: HubProcess) -> None:
    done = hub_command(str(tmp_path / "other"), "--port", str(hub.port))
    assert done.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{hub.port}".encode() in done.stderr
