"""How `pvr` treats lines and servers: as slow as it is told, no longer than it is told, nothing sent in a dry run."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from brickless.pvr import http, transfer
from brickless.pvr.pace import Pace
from brickless.testkit.device_endpoint import DeviceEndpoint


@pytest.fixture
def pvr(run_pvr: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`pvr`, in a repository with three objects that are committed."""
    (tmp_path / "tree").mkdir()
    monkeypatch.chdir(tmp_path / "tree")
    run_pvr("init")
    for number in range(3):
        Path(f"blob{number}").write_bytes(bytes([number]) * 100_000)
    run_pvr("add")
    run_pvr("commit")
    return run_pvr


@pytest.fixture
def device() -> Iterator[DeviceEndpoint]:
    with DeviceEndpoint({"#spec": "pantavisor-service-system@1", "gone.json": {}}, {}) as device:
        yield device


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and says nothing, until whoever called hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def listen() -> None:
            try:
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        while connection.recv(4096):
                            continue
            except OSError:
                return  # closed by the test

        thread = threading.Thread(target=listen)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/me/dev"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_silent_server_is_given_up_as_soon_as_one_says(
    pvr: Any, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "ATTEMPTS", 1)
    before = Path(".pvr/json").read_bytes()
    assert "could not be reached: timed out" in pvr("--timeout", "1", "get", silent, code=3).err
    assert Path(".pvr/json").read_bytes() == before
    image = f"{silent.removeprefix('http://').partition('/')[0]}/web:1"
    monkeypatch.setattr("brickless.oci.registry.MAX_ATTEMPTS", 1)
    ran = pvr("--timeout", "1", "app", "add", "web", "--from", image, "--source", "remote", code=3)
    assert "timed out" in ran.err
    assert "0.5 is not in the range" in pvr("--timeout", "0.5", "status", code=1).err


def test_transfers_keep_to_the_rate_and_the_number_asked_for(
    pvr: Any, device: DeviceEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[int] = []
    workers: list[int | None] = []

    class Watched(ThreadPoolExecutor):
        def __init__(self, max_workers: int | None = None, **more: Any) -> None:
            workers.append(max_workers)
            super().__init__(max_workers, **more)

    monkeypatch.setattr(Pace, "took", lambda pace, count: moved.append(count if pace._rate == 2 << 20 else 0))
    monkeypatch.setattr(transfer, "ThreadPoolExecutor", Watched)
    pvr("--limit-rate", "2M", "--parallel", "2", "post", device.url)
    assert (sum(moved), workers) == (300_000, [2])
    moved.clear()
    workers.clear()
    elsewhere = ("--config-dir", "../other", "--limit-rate", "2m", "--parallel", "1")
    pvr(*elsewhere, "clone", device.url, "../copy")
    assert (sum(moved), workers) == (300_000, [1])


def test_a_dry_post_sends_nothing(pvr: Any, device: DeviceEndpoint) -> None:
    ran = pvr("post", "--dry-run", device.url)
    assert ran.out == "A blob0\nA blob1\nA blob2\nD gone.json\n"
    assert "Would offer 3 object(s), 293.0 KiB" in ran.err
    document = json.loads(pvr("post", "--dry-run", "--json", device.url).out)
    assert (document["objects"], document["bytes"], document["removed"]) == (3, 300_000, ["gone.json"])
    assert {line.partition(" ")[0] for line in device.seen} == {"GET"}
    assert device.steps == []
    assert json.loads(Path(".pvr/config").read_text())["DefaultPostUrl"] == ""


def test_logout_forgets_one_hub_and_keeps_the_others(pvr: Any) -> None:
    auth = Path(os.environ["HOME"], ".pvr/auth.json")
    token = {"Name": "", "access-token": "a", "refresh-token": "b"}
    ours, theirs = "https://hub.example.org/auth realm=ours", "https://other.example.org/auth realm=theirs"
    auth.write_text(json.dumps({"spec": "1", "tokens": {ours: token, theirs: token}, "more": [1]}))
    assert pvr("logout", "https://hub.example.org/x").out == f"Logged out of {ours}\n"
    left = json.loads(auth.read_text())
    assert (list(left["tokens"]), left["more"]) == ([theirs], [1])
    assert auth.stat().st_mode & 0o777 == 0o600
    assert "no token of hub.example.org" in pvr("--baseurl", "https://hub.example.org", "logout", code=4).err
    pvr("logout", "--all")
    assert json.loads(auth.read_text())["tokens"] == {}
    assert "no token of any hub" in pvr("logout", "--all", code=4).err
