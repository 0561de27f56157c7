"""The agent against the real hub, over TLS: registered, claimed, updated, refused, restarted under it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from brickless.core.progress import Message
from brickless.testkit.agent import FACTORY_STATE, SimulatedDevice
from brickless.testkit.hub import HubProcess, running_hub

ROOT = bytes(range(256)) * 4000


class Owner:
    """A user of the hub: claims, posts, looks."""

    def __init__(self, hub: HubProcess) -> None:
        self._client = httpx.Client(base_url=hub.tls_url, verify=hub.tls_context(), timeout=20)
        token = self._client.post("/auth/login", json={"username": "user1", "password": "user1"}).json()["token"]
        self._client.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str) -> Any:
        return self._client.get(path).raise_for_status().json()

    def claim(self, device_id: str, challenge: str) -> None:
        self._client.put(f"/devices/{device_id}", params={"challenge": challenge}).raise_for_status()

    def join_token(self) -> str:
        return str(self._client.post("/devices/tokens").raise_for_status().json()["token"])

    def upload(self, data: bytes) -> str:
        sha = hashlib.sha256(data).hexdigest()
        body = {"objectname": "o", "size": str(len(data)), "sha256sum": sha}
        answer = self._client.post("/objects/", json=body)
        if answer.status_code == 200:
            self._client.put(answer.json()["signed-puturl"], content=data).raise_for_status()
        return sha

    def post(self, device_id: str, root: bytes) -> int:
        state = dict(FACTORY_STATE)
        state["web/lxc.container.conf"] = self.upload(b"lxc.uts.name = web\n")
        state["web/root.squashfs"] = self.upload(root)
        body = {"rev": -1, "commit-msg": "a step", "state": state}
        return int(self._client.post(f"/trails/{device_id}/steps", json=body).raise_for_status().json()["rev"])

    def close(self) -> None:
        self._client.close()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with running_hub(str(tmp_path_factory.mktemp("hub") / "data"), tls=True) as running:
        yield running


@pytest.fixture(scope="module")
def owner(hub: HubProcess) -> Iterator[Owner]:
    made = Owner(hub)
    yield made
    made.close()


def until(condition: Callable[[], Any], device: SimulatedDevice, what: str, timeout_s: float = 20) -> Any:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if found := condition():
                return found
        except (httpx.HTTPError, OSError, KeyError, IndexError):
            pass
        assert time.monotonic() < deadline, f"{what} did not come\n{device.log}"
        device.hurry()
        time.sleep(0.15)


def simulated(hub: HubProcess, folder: Path, **settings: str) -> SimulatedDevice:
    assert hub.certificate is not None
    url = f"https://127.0.0.1:{hub.tls_port}"
    return SimulatedDevice(folder, url=url, PV_HUB_CA=hub.certificate.ca_file, **settings)


def registered(device: SimulatedDevice) -> str:
    """Waits until the device has an id at the hub, and returns it."""
    return str(until((device.run / "device-id").read_text, device, "the registration"))


def final(owner: Owner, device: SimulatedDevice, device_id: str, rev: int) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        progress: dict[str, Any] = owner.get(f"/trails/{device_id}/steps/{rev}")["progress"]
        return progress if progress["status"] in {"DONE", "ERROR", "WONTGO"} else None

    found: dict[str, Any] = until(ended, device, f"the end of step {rev}")
    return found


def test_from_registration_to_a_second_revision(hub: HubProcess, owner: Owner, tmp_path: Path) -> None:
    with simulated(hub, tmp_path) as device:
        challenge = until((device.run / "challenge").read_text, device, "a challenge")
        device_id = (device.run / "device-id").read_text()
        assert (device.run / "pantahub-host").read_text() == f"https://127.0.0.1:{hub.tls_port}"
        owner.claim(device_id, challenge)
        until(lambda: owner.get(f"/trails/{device_id}"), device, "the trail")
        assert (device.run / "challenge").read_text() == ""
        factory = owner.get(f"/trails/{device_id}/steps/0")
        assert factory["state"] == json.loads(device.storage.state_bytes("0"))

        rev = owner.post(device_id, ROOT)
        assert rev == 1
        assert final(owner, device, device_id, rev)["status"] == "DONE"
        assert device.storage.current() == "1"
        assert device.storage.verify("1") == []

        def meta_of_revision_1() -> Any:
            found = owner.get(f"/devices/{device_id}")["device-meta"]
            return found if found["pantavisor.revision"] == "1" else None

        meta = until(meta_of_revision_1, device, "device-meta of revision 1")
        assert meta["pantahub.claimed"] == "1"
        assert meta["storage"]["total"] > 0

        # The credentials survive: the same device, not a new one.
        device.kill()
        device.start()
        rev = owner.post(device_id, b"second" * 5000)
        assert final(owner, device, device_id, rev)["status"] == "DONE"
        assert device.storage.current() == "2"


def test_a_join_token_claims_at_once(hub: HubProcess, owner: Owner, tmp_path: Path) -> None:
    with simulated(hub, tmp_path, PH_FACTORY_AUTOTOK=owner.join_token()) as device:
        device_id = registered(device)
        until(lambda: owner.get(f"/trails/{device_id}"), device, "the trail")
        rev = owner.post(device_id, b"x" * 100)
        assert final(owner, device, device_id, rev)["status"] == "DONE"


def test_user_meta_reaches_the_device_and_its_containers(hub: HubProcess, owner: Owner, tmp_path: Path) -> None:
    with simulated(hub, tmp_path, PH_FACTORY_AUTOTOK=owner.join_token()) as device:
        device_id = registered(device)
        until(lambda: owner.get(f"/trails/{device_id}"), device, "the trail")
        owner._client.patch(f"/devices/{device_id}/user-meta", json={"greeting": "hi", "web.port": "8080"})
        until(lambda: (device.run / "user-meta.web/port").read_text() == "8080", device, "the key of the container")
        assert (device.run / "user-meta/greeting").read_text() == "hi"
        owner._client.patch(f"/devices/{device_id}/user-meta", json={"greeting": None})
        until(lambda: not (device.run / "user-meta/greeting").exists(), device, "the end of the key")


def test_logs_reach_the_owner(hub: HubProcess, owner: Owner, tmp_path: Path) -> None:
    with simulated(hub, tmp_path, PH_FACTORY_AUTOTOK=owner.join_token(), PV_LOG_PUSH="1") as device:
        device_id = registered(device)
        folder = Path(device.storage.root) / "logs/0/web/lxc"
        folder.mkdir(parents=True)
        (folder / "console.log").write_text("a line from the container\n")
        entries = until(lambda: owner.get(f"/logs/?dev={device_id}").get("entries"), device, "the log line")
        assert entries[0]["msg"] == "a line from the container"
        assert (entries[0]["plat"], entries[0]["rev"], entries[0]["src"]) == ("web", "0", "/lxc/console.log")


def test_the_hub_killed_and_started_again_under_an_update(tmp_path: Path) -> None:
    with running_hub(str(tmp_path / "hub"), tls=True) as hub:
        owner = Owner(hub)
        (tmp_path / "device").mkdir()
        with simulated(hub, tmp_path / "device", PH_FACTORY_AUTOTOK=owner.join_token()) as device:
            device_id = registered(device)
            until(lambda: owner.get(f"/trails/{device_id}"), device, "the trail")
            device.supervisor.hold.clear()
            rev = owner.post(device_id, ROOT)
            until(lambda: device.supervisor.tried, device, "the trial")
            hub.kill()
            device.supervisor.hold.set()
            hub.start()
            assert final(owner, device, device_id, rev)["status-msg"] == Message.DONE
        owner.close()
