"""pvcontrol, pvcurl and pvtx as processes, and curl, against a control socket that a real process serves."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from brickless.core import canonical
from brickless.core.canonical import sha256_hex
from brickless.testkit.control import manifest
from brickless.testkit.control_device import TIMEOUT_S, Device


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    one = Device(tmp_path_factory.mktemp("device"))
    yield one
    with one.process:
        pass


def package(path: Path, name: str, page: bytes, *, compression: str = "gz") -> Path:
    """An export with one container; its configuration and a page are objects."""
    config = b"lxc.uts.name = x\n"
    shas = {sha256_hex(data): data for data in (config, page)}
    state = {
        "#spec": "pantavisor-service-system@1",
        f"{name}/run.json": manifest(name),
        f"{name}/lxc.container.conf": sha256_hex(config),
        f"_config/{name}/page": sha256_hex(page),
    }
    with tarfile.open(path, f"w:{compression}") as archive:
        for member, data in {"json": canonical.dumps(state), **{f"objects/{s}": d for s, d in shas.items()}}.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


# -- pvcontrol ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("ls",), "net"),
        (("containers", "list"), "web"),
        (("groups", "ls"), "READY"),
        (("devmeta", "ls"), "pantavisor.status"),
        (("usrmeta", "ls"), "{}"),
        (("objects", "ls"), "sha256"),
        (("steps", "ls"), "commitmsg"),
        (("steps", "get", "current"), "#spec"),
        (("config", "ls"), "creds.host"),
        (("conf", "ls"), "modified"),
        (("configuration", "ls"), "modified"),
        (("graph", "ls"), "[]"),
        (("daemons", "ls"), "respawn"),
        (("storage", "gc"), "reclaimed"),
        (("buildinfo",), "brickless "),
        (("-h",), "usage: pvcontrol"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_pvcontrol_shows(device: Device, words: tuple[str, ...], expected: str) -> None:
    done = device.control(*words)
    assert done.returncode == 0, done
    assert expected in done.stdout.decode()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("dance",), 1),
        (("containers", "stop"), 1),
        (("cmd", "run"), 1),
        (("-x", "ls"), 1),
        ((), 1),
        (("containers", "stop", "nosuch"), 255),
        (("containers", "stop", "net"), 255),
        (("steps", "get", "99"), 255),
        (("cmd", "run", "locals/nosuch"), 255),
        (("cmd", "go-remote"), 0),
        (("signal", "ready"), 255),
        (("devmeta", "delete", "nosuch"), 255),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_pvcontrol_exit_codes(device: Device, words: tuple[str, ...], code: int) -> None:
    assert device.control(*words).returncode == code


def test_pvcontrol_without_a_device(tmp_path: Path, device: Device) -> None:
    done = device.tool("pvcontrol", "-s", str(tmp_path / "nothing"), "ls")
    assert done.returncode == 1
    assert b"no control socket" in done.stderr


def test_pvcontrol_objects(device: Device, tmp_path: Path) -> None:
    path, data = tmp_path / "data", b"content" * 50_000
    path.write_bytes(data)
    sha = sha256_hex(data)
    assert device.control("objects", "put", str(path), sha).returncode == 0
    assert device.control("-f", str(tmp_path / "back"), "objects", "get", sha).returncode == 0
    assert (tmp_path / "back").read_bytes() == data
    streamed = b"streamed"
    assert device.control("objects", "put", f"-{len(streamed)}", sha256_hex(streamed), data=streamed).returncode == 0
    assert device.control("objects", "put", str(path), "0" * 64).returncode == 60


def test_pvcontrol_metadata(device: Device) -> None:
    assert device.control("usrmeta", "save", "colour", "blue").returncode == 0
    assert device.value("usrmeta", "ls") == {"colour": "blue"}
    assert device.control("usrmeta", "delete", "colour").returncode == 0
    assert device.control("devmeta", "save", "web.x", "1").returncode == 0
    assert device.value("devmeta", "ls")["web.x"] == "1"


def test_pvcontrol_installs_and_runs_an_export(device: Device, tmp_path: Path) -> None:
    path = package(tmp_path / "shop.tgz", "shop", b"page 1")
    done = device.control("-m", "the shop", "steps", "install", str(path), "locals/shop")
    assert (done.returncode, done.stdout) == (0, b"locals/shop\n")
    assert device.control("cmd", "run", "locals/shop").returncode == 0
    device.wait_for_status("locals/shop", "DONE")
    assert [one["name"] for one in device.value("ls")] == ["shop"]
    assert (device.storage / "trails/locals/shop/_config/shop/page").read_bytes() == b"page 1"
    assert device.control("cmd", "run", "0").returncode == 0, "any revision may be gone back to"
    device.wait_for_status("0", "DONE")
    assert [one["name"] for one in device.value("ls")] == ["net", "web"]


# -- pvcurl and curl ---------------------------------------------------------------------------------------------------


def test_curl_and_pvcurl_say_the_same(device: Device, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    assert curl is not None
    words = ["-s", "-w", "\\n%{http_code}", "--unix-socket", str(device.socket)]
    requests = [
        ["http://localhost/groups"],
        ["http://localhost/nosuch"],
        ["-X", "PUT", "--data", '{"action":"dance"}', "http://localhost/containers/web"],
        ["-H", "Accept: */*", "-X", "POST", "-d", '{"op":"RUN_GC","payload":""}', "http://localhost/commands"],
    ]
    data = os.urandom(300_000)
    (tmp_path / "upload").write_bytes(data)
    requests.append(["-T", str(tmp_path / "upload"), f"http://localhost/objects/{sha256_hex(data)}"])
    for request in requests:
        real = subprocess.run([curl, *words, *request], capture_output=True, timeout=TIMEOUT_S, check=False)
        ours = device.tool("pvcurl", *words, *request)
        assert (ours.returncode, ours.stdout) == (real.returncode, real.stdout), request
    failing = ["-sf", "--unix-socket", str(device.socket), "http://localhost/nosuch"]
    assert device.tool("pvcurl", *failing).returncode == 22
    assert device.tool("pvcurl", "--unix-socket", str(tmp_path / "no"), "http://localhost/").returncode == 7
    assert device.tool("pvcurl", "--frobnicate").returncode == 2


# -- pvtx --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def clean(device: Device) -> Iterator[Device]:
    device.tool("pvtx", "abort")
    yield device
    device.tool("pvtx", "abort")


@pytest.mark.parametrize("compression", ["", "gz", "bz2"])
def test_pvtx_from_begin_to_run(clean: Device, tmp_path: Path, compression: str) -> None:
    page = f"page {compression}".encode()
    path = package(tmp_path / "app.tar", "app", page, compression=compression)
    assert clean.tool("pvtx", "begin", "current").returncode == 0
    assert clean.tool("pvtx", "begin", "current").returncode == 1, "one at a time"
    assert clean.tool("pvtx", "add", "-", data=path.read_bytes()).returncode == 0
    status = json.loads(clean.tool("pvtx", "status").stdout)
    assert status == {
        "active": True,
        "base": "current",
        "objects": "",
        "mode": "remote",
        "parts": ["app", "net", "web"],
    }
    done = clean.tool("pvtx", "local", f"app-{compression or 'plain'}")
    assert done.returncode == 0, done
    rev = done.stdout.decode().strip()
    clean.wait_for_status(rev, "DONE")
    assert (clean.storage / "trails" / rev / "_config/app/page").read_bytes() == page
    assert json.loads(clean.tool("pvtx", "status").stdout) == {"active": False}
    assert clean.control("cmd", "run", "0").returncode == 0
    clean.wait_for_status("0", "DONE")


def test_pvtx_commit_names_the_revision(clean: Device) -> None:
    assert clean.tool("pvtx", "begin", "current").returncode == 0
    assert clean.tool("pvtx", "remove", "web").returncode == 0
    assert clean.tool("pvtx", "remove", "web").returncode == 1
    state = json.loads(clean.tool("pvtx", "show").stdout)
    assert not any(path.startswith("web/") for path in state)
    done = clean.tool("pvtx", "commit")
    assert done.returncode == 0
    assert done.stdout.startswith(b"locals/pvtx-")
    assert clean.value("steps", "get", done.stdout.decode().strip()) == state


def test_pvtx_replaces_a_part_whole(clean: Device, tmp_path: Path) -> None:
    one = package(tmp_path / "one.tgz", "app", b"one")
    clean.tool("pvtx", "begin", "empty")
    assert clean.tool("pvtx", "add", str(one)).returncode == 0
    bare = {"#spec": "pantavisor-service-system@1", "app/run.json": manifest("app"), "app/lxc.container.conf": "0" * 64}
    assert clean.tool("pvtx", "add", "-", data=canonical.dumps(bare)).returncode == 0
    state = json.loads(clean.tool("pvtx", "show").stdout)
    assert state["app/lxc.container.conf"] == "0" * 64
    assert clean.tool("pvtx", "commit").returncode == 0
    assert clean.tool("pvtx", "commit").returncode == 1, "there is nothing to commit any more"


@pytest.mark.parametrize(
    "data",
    [b"", b"no tar" * 200, b"\x1f\x8bbroken", b'{"#spec": 1, "../x": "' + b"0" * 64 + b'"}', b"BZhbroken"],
    ids=["empty", "garbage", "gzip", "path", "bzip2"],
)
def test_pvtx_refuses_what_is_no_package(clean: Device, data: bytes) -> None:
    clean.tool("pvtx", "begin", "empty")
    before = clean.tool("pvtx", "show").stdout
    done = clean.tool("pvtx", "add", "-", data=data)
    assert done.returncode == 1
    assert done.stderr.startswith(b"pvtx: ")
    assert b"Traceback" not in done.stderr
    assert clean.tool("pvtx", "show").stdout == before


def test_pvtx_deploys_a_folder(clean: Device, tmp_path: Path) -> None:
    pool, target = tmp_path / "objects", tmp_path / "trails" / "0"
    target.mkdir(parents=True)
    (target / "old").write_text("of before")
    path = package(tmp_path / "app.tgz", "app", b"deployed")
    assert clean.tool("pvtx", "begin", "empty", str(pool)).returncode == 0
    assert clean.tool("pvtx", "add", str(path)).returncode == 0
    assert clean.tool("pvtx", "commit").returncode == 1, "it has a folder for objects"
    assert clean.tool("pvtx", "deploy", str(target)).returncode == 0
    page = target / "_config/app/page"
    assert page.read_bytes() == b"deployed"
    assert page.stat().st_ino == (pool / sha256_hex(b"deployed")).stat().st_ino
    assert json.loads((target / ".pvr/config").read_text()) == {"ObjectsDir": str(pool)}
    assert not (target / "old").exists()
    assert sorted(p.name for p in target.parent.iterdir()) == ["0"]


def test_pvtx_queue(clean: Device, tmp_path: Path) -> None:
    queue, pool = tmp_path / "queue", tmp_path / "pool"
    assert clean.tool("pvtx", "queue", "new", str(queue), str(pool)).returncode == 0
    assert clean.tool("pvtx", "queue", "unpack", str(package(tmp_path / "a.tgz", "a", b"a"))).returncode == 0
    assert clean.tool("pvtx", "queue", "unpack", str(package(tmp_path / "b.tgz", "b", b"b"))).returncode == 0
    assert clean.tool("pvtx", "queue", "remove", "a").returncode == 0
    assert clean.tool("pvtx", "queue", "process", "empty").returncode == 0
    state = json.loads(clean.tool("pvtx", "show").stdout)
    assert {path.split("/")[0] for path in state} == {"#spec", "b", "_config"}
    assert clean.tool("pvtx", "deploy", str(tmp_path / "out" / "0")).returncode == 0
    assert (tmp_path / "out/0/b/run.json").is_file()


# -- slow and many clients ---------------------------------------------------------------------------------------------


def test_slow_clients_block_nobody(device: Device) -> None:
    import socket

    held = []
    for _ in range(2):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(device.socket))
        sock.sendall(b"GET /groups HTTP/1.1\r\n")  # and no more
        held.append(sock)
    try:
        assert device.control("groups", "ls").returncode == 0
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(device.socket))
        held.append(sock)
        barrier = threading.Event()
        assert not barrier.is_set()
        late = socket.socket(socket.AF_UNIX)
        late.settimeout(TIMEOUT_S)
        late.connect(str(device.socket))
        held.append(late)
        assert late.recv(4096).startswith(b"HTTP/1.1 503 "), "who takes more than its share is turned away"
    finally:
        for one in held:
            one.close()
