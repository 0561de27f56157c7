"""`pvr clone` and `pvr post` by a device's address, with our own client, unmodified; nothing without the secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from brickless.core.canonical import sha256_hex
from brickless.main.hubapi import wait_until
from brickless.main.lab import free_port
from brickless.testkit.control_device import TIMEOUT_S, Device

SECRET = "correct-horse-battery"
PVR = Path(sys.executable).with_name("pvr")


class Remote:
    """The device and its address."""

    def __init__(self, root: Path, *, env: dict[str, str] | None = None) -> None:
        self.port = free_port()
        self.device = Device(root, (f"127.0.0.1:{self.port}", SECRET), env)
        self.url = f"http://127.0.0.1:{self.port}/cgi-bin/pvr"
        self.home = root / "home"
        self.runs = 0

    def pvr(self, *words: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
        self.runs += 1  # a home of its own: a login must not be remembered from one to the next
        home = str(self.home / str(self.runs))
        env = {**os.environ, "PVR_CONFIG_DIR": home, "HOME": home}
        return subprocess.run(
            [str(PVR), *words], cwd=cwd, capture_output=True, env=env, timeout=TIMEOUT_S, check=False, input=b""
        )


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    one = Remote(tmp_path_factory.mktemp("remote"))
    with one.device.process:
        yield one


def test_clone_change_and_post(remote: Remote, tmp_path: Path) -> None:
    done = remote.pvr("--access-token", SECRET, "clone", remote.url, "work", cwd=tmp_path)
    assert done.returncode == 0, done
    work = tmp_path / "work"
    assert json.loads((work / "web/run.json").read_text())["name"] == "web"
    assert (work / "web/lxc.container.conf").read_bytes() == b"lxc.uts.name = x\n"
    page = os.urandom(200_000)
    (work / "_config/web").mkdir(parents=True)
    (work / "_config/web/page").write_bytes(page)
    for words in (("add", "."), ("commit",)):
        assert remote.pvr(*words, cwd=work).returncode == 0
    done = remote.pvr("--access-token", SECRET, "post", "-m", "by address", remote.url, cwd=work)
    assert done.returncode == 0, done
    rev = wait_until(
        lambda: next((row["name"] for row in remote.device.value("steps", "ls") if row["name"] != "0"), None),
        TIMEOUT_S,
        "the posted revision is there",
    )
    assert rev.startswith("locals/pvr-")
    remote.device.wait_for_status(rev, "DONE")
    trail = remote.device.storage / "trails" / rev
    assert (trail / "_config/web/page").read_bytes() == page
    row = next(row for row in remote.device.value("steps", "ls") if row["name"] == rev)
    assert row["commitmsg"] == "by address"


def test_login_with_the_secret_as_a_password(remote: Remote, tmp_path: Path) -> None:
    done = remote.pvr("--user", "device", "--password", SECRET, "clone", remote.url, "work", cwd=tmp_path)
    assert done.returncode == 0, done
    assert (tmp_path / "work/web/run.json").is_file()


@pytest.mark.parametrize("words", [(), ("--access-token", "wrong"), ("--user", "device", "--password", "wrong")])
def test_without_the_secret_nothing_is_told(remote: Remote, tmp_path: Path, words: tuple[str, ...]) -> None:
    done = remote.pvr(*words, "clone", remote.url, "work", cwd=tmp_path)
    assert done.returncode != 0
    assert not (tmp_path / "work/web").exists()


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/.pvrremote", {}, 401),
        ("GET", "/json", {}, 401),
        ("POST", "/post", {}, 401),
        ("GET", f"/objects/{'0' * 64}", {}, 401),
        ("PUT", f"/objects/{'0' * 64}/9999999999-abc", {}, 403),
        ("GET", f"/objects/{'0' * 64}/1-abc", {}, 403),
        ("GET", "/nosuch", {"Authorization": f"Bearer {SECRET}"}, 404),
        ("GET", f"/objects/{'0' * 64}", {"Authorization": f"Bearer {SECRET}"}, 404),
        ("POST", "/objects", {"Authorization": f"Bearer {SECRET}"}, 400),
        ("POST", "/post", {"Authorization": f"Bearer {SECRET}"}, 400),
    ],
)
def test_statuses(remote: Remote, method: str, path: str, headers: dict[str, str], status: int) -> None:
    answer = httpx.request(method, remote.url + path, headers=headers, timeout=TIMEOUT_S, trust_env=False)
    assert answer.status_code == status
    if status == 401:
        assert "ph-aeps=" in answer.headers["www-authenticate"]
        assert SECRET not in answer.text


def test_an_upload_with_other_bytes_is_refused(remote: Remote) -> None:
    headers = {"Authorization": f"Bearer {SECRET}"}
    document = {"sha256sum": sha256_hex(b"right"), "size": "5", "objectname": "x"}
    with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:
        announced = client.post(f"{remote.url}/objects/", json=document, headers=headers)
        assert announced.status_code == 200
        url = announced.json()["signed-puturl"]
        assert client.put(url, content=b"wrong").status_code == 422
        assert client.put(url.replace("/objects/", "/objects/../objects/"), content=b"right").status_code in {200, 404}
        assert client.put(url, content=b"right").status_code == 200
        assert client.post(f"{remote.url}/objects/", json=document, headers=headers).status_code == 409


def test_over_tls(tmp_path: Path) -> None:
    from brickless.testkit.hub import Certificate

    certificate = Certificate(str(tmp_path / "tls"))
    both = tmp_path / "both.pem"
    both.write_bytes(Path(certificate.cert_file).read_bytes() + Path(certificate.key_file).read_bytes())
    one = Remote(tmp_path / "device", env={"CERTIFICATE": str(both)})
    with one.device.process:
        url = one.url.replace("http://", "https://")
        import ssl

        trust = ssl.create_default_context(cafile=certificate.ca_file)
        headers = {"Authorization": f"Bearer {SECRET}"}
        answer = httpx.get(f"{url}/.pvrremote", headers=headers, verify=trust, timeout=TIMEOUT_S, trust_env=False)
        assert answer.json()["json-get-url"].startswith("https://")
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{one.url}/.pvrremote", headers=headers, timeout=TIMEOUT_S, trust_env=False)
