"""Each weakness of the reference client that concerns signatures, images, logs and accounts (contract pvr.md 8.2), with
a test that ours does not share it. The number in a test's name is the row."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from brickless.pvr import jws
from brickless.pvr.main import run

RSA = rsa.generate_private_key(65537, 2048)


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("PVR_", "PVS_")):
            monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "tree"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def pvr(tree: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def call(*args: str, code: int | None = 0) -> Ran:
        capsys.readouterr()
        found = run(args)
        captured = capsys.readouterr()
        ran = Ran(found, captured.out, captured.err)
        assert code is None or found == code, ran
        return ran

    return call


def pem(key: jws.PrivateKey, folder: Path) -> tuple[str, str]:
    """The files of a private key and its public half."""
    private, public = folder / f"key{id(key)}.pem", folder / f"pub{id(key)}.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return str(private), str(public)


@pytest.fixture
def web(pvr: Any, tree: Path) -> Path:
    pvr("init")
    (tree / "web").mkdir()
    (tree / "web/run.json").write_text('{"name":"web","root-volume":"root.squashfs","volumes":["data.squashfs"]}')
    (tree / "web/root.squashfs").write_bytes(bytes(8192))
    (tree / "web/data.squashfs").write_bytes(bytes(4096))
    pvr("add")
    pvr("commit")
    return tree


def header(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(jws.unb64url(json.loads(path.read_text())["protected"]))
    return found


# 11: put into a local repository is broken


def test_11_put_into_a_local_repository_is_the_inverse_of_get(pvr: Any, web: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    pvr("-C", str(other), "init", "--objects", str(tmp_path / "pool"))
    pvr("put", str(other))
    assert (other / ".pvr/json").read_bytes() == (web / ".pvr/json").read_bytes()
    pvr("-C", str(other), "checkout")
    assert (other / "web/root.squashfs").read_bytes() == bytes(8192)


# 12: init in a repository that exists says nothing


def test_12_init_in_a_repository_is_an_error(pvr: Any, web: Path) -> None:
    before = (web / ".pvr/json").read_bytes()
    assert pvr("init", code=2).err
    assert (web / ".pvr/json").read_bytes() == before


# 15: signatures


def test_15_a_raw_signature_excludes_itself_by_its_own_name(pvr: Any, web: Path, tmp_path: Path) -> None:
    key, public = pem(RSA, tmp_path)
    pvr("sig", "--key", key, "--x5c", "no", "add", "--raw", "all", "--include", "**")
    assert header(web / "_sigs/all.json")["pvs"]["exclude"] == ["src.json", "_sigs/all.json"]
    pvr("add")
    pvr("commit")
    pvr("sig", "--pubkey", public, "ls")


def test_15_ls_takes_its_part_flag_seriously(pvr: Any, web: Path, tmp_path: Path) -> None:
    key, public = pem(RSA, tmp_path)
    (web / "db").mkdir()
    (web / "db/run.json").write_text('{"name":"db"}')
    pvr("add")
    pvr("commit")
    for part in ("web", "db"):
        pvr("sig", "--key", key, "--x5c", "no", "add", "--part", part)
    pvr("add")
    pvr("commit")
    listed = json.loads(pvr("sig", "--pubkey", public, "ls", "--part", "db").out)
    assert listed["protected"] == ["db/run.json"]


def test_15_update_to_standard_output_makes_no_file_called_dash(pvr: Any, web: Path, tmp_path: Path) -> None:
    key, _ = pem(RSA, tmp_path)
    pvr("sig", "--key", key, "--x5c", "no", "add", "--part", "web")
    pvr("add")
    pvr("commit")
    before = (web / "_sigs/web.json").read_bytes()
    ran = pvr("sig", "--key", key, "--x5c", "no", "--output", "-", "--with-payload", "update")
    assert "payload" in json.loads(ran.out)
    assert (web / "_sigs/web.json").read_bytes() == before
    assert not (web / "-").exists()


def test_15_output_replaces_a_longer_file_whole(pvr: Any, web: Path, tmp_path: Path) -> None:
    key, _ = pem(RSA, tmp_path)
    target = tmp_path / "signature.json"
    target.write_text("x" * 100_000)
    pvr("sig", "--key", key, "--x5c", "no", "--output", str(target), "add", "--part", "web")
    assert json.loads(target.read_text())["#spec"] == "pvs@2"
    assert not (web / "_sigs").exists(), "it was to be written elsewhere"


def test_15_p_521_signs_and_verifies(pvr: Any, web: Path, tmp_path: Path) -> None:
    key, public = pem(ec.generate_private_key(ec.SECP521R1()), tmp_path)
    pvr("sig", "--key", key, "--x5c", "no", "add", "--part", "web")
    assert header(web / "_sigs/web.json")["alg"] == "ES512"
    pvr("sig", "--pubkey", public, "ls", "web")


def test_15_ls_shows_the_signature_as_it_was_received(pvr: Any, web: Path, tmp_path: Path) -> None:
    key, public = pem(RSA, tmp_path)
    pvr("sig", "--key", key, "--x5c", "no", "--with-payload", "add", "--part", "web")
    written = json.loads((web / "_sigs/web.json").read_text())
    listed = json.loads(pvr("sig", "--pubkey", public, "ls", "--with-sigs", "web").out)
    assert listed["sigs"] == [written], "header not written anew, payload in base64url"


def test_15_the_certs_url_is_where_the_keys_come_from(pvr: Any, web: Path, hub: Hub) -> None:
    pvr("sig", "--certs-url", f"{hub.url}/keys.tgz", "download", code=127)
    assert hub.seen[-1] == ("GET", "/keys.tgz")


# 16: deploy ignores errors of its hard links


def test_16_deploy_reports_an_object_that_cannot_be_linked(pvr: Any, web: Path, tmp_path: Path) -> None:
    pool = Path(os.environ["HOME"], ".pvr/objects")
    for path in pool.iterdir():
        path.unlink()
    ran = pvr("deploy", str(tmp_path / "revision"), code=None)
    assert ran.code != 0
    assert "objects" in ran.err.lower()


def test_16_deploy_takes_the_pool_of_the_storage_as_a_flag(pvr: Any, web: Path, tmp_path: Path) -> None:
    revision = tmp_path / "storage/trails/0"
    pvr("deploy", str(revision), "--objects", "../../objects", ".")
    assert json.loads((revision / ".pvr/config").read_bytes())["ObjectsDir"] == "../../objects"
    pool = tmp_path / "storage/objects"
    found = {path.stat().st_ino for path in pool.iterdir()}
    assert (revision / "web/root.squashfs").stat().st_ino in found


# 17: dm-apply stops at the first volume that is unchanged


@pytest.mark.needs("verity")
def test_17_dm_apply_goes_on_after_an_unchanged_volume(pvr: Any, web: Path) -> None:
    pvr("dm-convert", "web", "data.squashfs")
    pvr("dm-convert", "web", "root.squashfs")
    (web / "web/root.squashfs").write_bytes(os.urandom(8192))
    assert pvr("dm-apply").out.splitlines() == [
        "- Unchanged verity format web/_dm/data.squashfs.json",
        "- Updated web/_dm/root.squashfs.json",
    ]


@pytest.mark.needs("verity")
def test_17_an_error_of_veritysetup_is_an_error(pvr: Any, web: Path) -> None:
    (web / "web/root.squashfs").write_bytes(b"")
    before = (web / "web/run.json").read_bytes()
    assert "veritysetup" in pvr("dm-convert", "web", "root.squashfs", code=4).err
    assert (web / "web/run.json").read_bytes() == before


# 6, 18, 19, 21: what is asked of a hub


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.seen: list[tuple[str, str]] = []
        self.answers: dict[str, Any] = {}


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def handle_any(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.command, self.path))
        value = self.server.answers.get(urlsplit(self.path).path)
        body = json.dumps(value).encode() if value is not None else b"not json"
        self.send_response(200 if value is not None else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = handle_any  # noqa: N815 - the names that http.server looks for


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_06_claim_by_id_goes_to_the_hub_that_was_named(pvr: Any, hub: Hub) -> None:
    hub.answers["/devices/5f1"] = {"id": "5f1"}
    pvr("--baseurl", hub.url, "claim", "-c", "a-b-c", "5f1")
    assert hub.seen == [("PUT", "/devices/5f1?challenge=a-b-c")]


def test_06_user_and_device_are_looked_for_where_one_says(pvr: Any, web: Path, hub: Hub) -> None:
    pvr("--repo-baseurl", hub.url, "--baseurl", hub.url, "inspect", "me/dev", code=None)
    assert hub.seen[0] == ("GET", "/me/dev/.pvrremote")


ENTRY = {"id": "e1", "dev": "d", "rev": "1", "plat": "web", "src": "out", "tsec": 1795521600, "msg": "hello \x1b[2J"}


def test_18_logs_as_json_are_data_on_standard_output(pvr: Any, hub: Hub) -> None:
    hub.answers["/logs/"] = {"entries": [ENTRY]}
    ran = pvr("--baseurl", hub.url, "device", "logs", "--template", "json", "--no-follow")
    assert json.loads(ran.out) == ENTRY
    assert ran.err == ""


def test_18_a_template_is_followed(pvr: Any, hub: Hub) -> None:
    hub.answers["/logs/"] = {"entries": [ENTRY]}
    logs = ("--baseurl", hub.url, "device", "logs", "--no-follow", "--template")
    ran = pvr(*logs, "{{.plat}}|{{ .none }}|{{.msg}}")
    assert ran.out.startswith("web||hello")
    assert "\x1b" not in ran.out
    assert "is no template" in pvr(*logs, "pretty", code=4).err


def test_18_logs_end_and_durations_need_no_beginning(pvr: Any, hub: Hub) -> None:
    hub.answers["/logs/"] = {"entries": [ENTRY]}
    ran = pvr("--baseurl", hub.url, "device", "logs", "gate", "--rev", "1", "--to", "PT1M")
    assert ran.out.count("hello") == 1
    assert "\x1b" not in ran.out, "a device cannot drive the terminal"
    query = parse_qs(urlsplit(hub.seen[0][1]).query)
    assert query["dev"] == ["gate"]
    assert "before" in query


def test_19_ps_shows_devices_with_short_or_missing_members(pvr: Any, hub: Hub) -> None:
    hub.answers["/trails/summary"] = [{"deviceid": "ab", "device-nick": "gate"}, {}]
    lines = pvr("--baseurl", hub.url, "device", "ps").out.splitlines()
    assert len(lines) == 3
    assert "gate" in lines[1]


def test_19_ps_says_when_the_hub_failed_instead_of_showing_nothing(pvr: Any, hub: Hub) -> None:
    ran = pvr("--baseurl", hub.url, "device", "ps", code=4)
    assert "404" in ran.err
    hub.answers["/trails/summary"] = {"error": "no"}
    assert "no list" in pvr("--baseurl", hub.url, "device", "ps", code=4).err


def test_20_status_and_coverage_are_in_order(pvr: Any, web: Path) -> None:
    for name in "zbya":
        (web / name).write_text(name)
    pvr("add")
    assert pvr("status").out.splitlines() == ["A a", "A b", "A y", "A z"]


def test_21_register_asks_the_hub_itself_and_takes_the_password_from_the_environment(
    pvr: Any, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.answers["/auth/accounts"] = {"prn": "prn:::accounts:/1"}
    monkeypatch.setenv("PVR_PASSWORD", "not in the process list")
    pvr("register", "-u", "me", "-e", "me@example.org", hub.url)
    assert hub.seen == [("POST", "/auth/accounts")]


# 23: verification is a placeholder


def test_23_signatures_are_verified_when_one_asks_for_it(pvr: Any, web: Path, tmp_path: Path) -> None:
    _, public = pem(RSA, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    pvr("-C", str(other), "init")
    assert "nobody signed" in pvr("--verify", public, "-C", str(other), "get", str(web), code=3).err
