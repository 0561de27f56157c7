"""`pvr` and a device's own endpoint on port 12368: clone by address, post, local revisions; a server that takes put."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brickless.testkit.device_endpoint import BASE, PORT, DeviceEndpoint

DATA = bytes(range(256)) * 1000
SHA = hashlib.sha256(DATA).hexdigest()
STATE = {"#spec": "pantavisor-service-system@1", "web/root.squashfs": SHA, "web/run.json": {"name": "web"}}


@pytest.fixture
def device() -> Iterator[DeviceEndpoint]:
    with DeviceEndpoint(dict(STATE), {SHA: DATA}) as device:
        yield device


@pytest.fixture
def pvr(run_pvr: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`pvr`, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return run_pvr


def test_a_device_is_cloned_by_its_address_changed_and_posted(
    pvr: Any, device: DeviceEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pvr("clone", device.address).out == f"Successfully cloned: {tmp_path / device.address}\n"
    monkeypatch.chdir(tmp_path / device.address)
    assert Path("web/root.squashfs").read_bytes() == DATA
    Path("web/new").write_bytes(b"new")
    pvr("add")
    pvr("commit")
    err = pvr("post", "-m", "hello", device.address).err
    assert "Successfully posted Revision locals/pvr-1 (" in err
    assert device.steps[0]["commit-msg"] == "hello"
    assert device.objects[device.state["web/new"]] == b"new"
    assert device.seen.count(f"POST {BASE}/objects/") == 1, "what the device has is not offered to it again"
    # The place is remembered.
    Path("web/new").write_bytes(b"newer")
    pvr("commit")
    assert "locals/pvr-2" in pvr("post").err
    assert (
        pvr("inspect", "-c", f"http://{device.address}:{PORT}").out.encode() == Path(".pvr/json").read_bytes() + b"\n"
    )


def test_a_local_revision_is_named(pvr: Any, device: DeviceEndpoint) -> None:
    pvr("init")
    pvr("get", device.address)
    assert "Revision locals/test (" in pvr("post", "--rev", "locals/test", device.address).err
    assert device.steps[0]["rev"] == "locals/test"
    told = json.loads(pvr("post", "--rev", "locals/second", "--json", device.address).out)
    assert told["rev"] == "locals/second"


def test_a_hubs_token_never_reaches_a_device(pvr: Any, device: DeviceEndpoint, tmp_path: Path) -> None:
    cache = tmp_path / "home/.pvr/auth.json"
    cache.parent.mkdir(parents=True)
    entry = {"Name": "", "access-token": "secret", "refresh-token": "secret"}
    cache.write_text(
        json.dumps({"spec": "1", "tokens": {"https://api.pantahub.com/auth realm=pantahub services": entry}})
    )
    pvr("init")
    pvr("get", device.address)
    pvr("post", device.address)
    assert device.steps


def test_what_a_device_refuses_is_told_in_its_words(pvr: Any, device: DeviceEndpoint) -> None:
    device.refusal = "Secureboot: State not fully covered by signatures"
    pvr("init")
    assert device.refusal in pvr("post", device.address, code=3).err


def test_parts_of_a_device_and_its_own_words_about_itself(pvr: Any, device: DeviceEndpoint) -> None:
    pvr("init")
    pvr("get", f"{device.address}#web/run.json")
    assert json.loads(Path(".pvr/json").read_bytes()) == {
        "#spec": "pantavisor-service-system@1",
        "web/run.json": {"name": "web"},
    }
    assert f"GET {BASE}/raw/{SHA}" not in device.seen
    assert json.loads(pvr("remoteinfo", device.address).out)["json-key"] == "state"


def test_put_replaces_the_whole_state(pvr: Any, device: DeviceEndpoint) -> None:
    pvr("init")
    Path("only.json").write_text('{"a":1}')
    Path("data").write_bytes(b"data")
    pvr("add")
    pvr("commit")
    pvr("put", device.url)
    sha = hashlib.sha256(b"data").hexdigest()
    assert device.state == {"#spec": "pantavisor-service-system@1", "data": sha, "only.json": {"a": 1}}
    assert device.objects[sha] == b"data"
    pvr("put", code=2)


def test_put_objects_uploads_what_is_missing_and_nothing_else(pvr: Any, device: DeviceEndpoint) -> None:
    pvr("init")
    Path("data").write_bytes(b"data")
    Path("same").write_bytes(b"data")
    Path("known").write_bytes(DATA)
    pvr("add")
    pvr("commit")
    told = json.loads(pvr("put-objects", "--json", f"{device.url}/objects/").out)
    assert told == {"objects": 2, "sent": 1}
    assert json.loads(pvr("putobjects", "--json", f"{device.url}/objects").out)["sent"] == 0
    assert json.loads(pvr("putobjects", "-f", "--json", f"{device.url}/objects").out)["sent"] == 2
    assert device.steps == []
    assert device.state == STATE
    pvr("put-objects", "no-url", code=2)
