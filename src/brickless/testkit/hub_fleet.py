"""A furnished account: devices with containers, labels, logs and trouble, a release, a rollout, a webhook."""

from __future__ import annotations

from typing import Any, NamedTuple

from brickless.testkit.hub_client import SPEC, Caller, DeviceCaller, claimed_device

_VERSIONS = ("1.26", "1.27")
_DEVICES = 12
#: What becomes of the second revision, device by device.
_ENDS = ("DONE", "DONE", "DONE", "ERROR", "DONE", "DOWNLOADING")
_MESSAGES = {
    "DONE": "Update finished",
    "ERROR": "container web exited with 1 in its trial; revision 1 is back",
    "DOWNLOADING": "Retrieved 3 of 8 objects",
}


def web_state(owner: Caller, version: str) -> dict[str, Any]:
    """A state with one container; its objects are uploaded."""
    sha = owner.upload(f"nginx {version}".encode())
    run = {
        "#spec": "service-manifest-run@1", "name": "web", "type": "lxc", "root-volume": "root.squashfs",
        "config": "lxc.container.conf", "group": "app",
    }  # fmt: skip
    source = {"#spec": "service-manifest-src@1", "docker_name": "nginx", "docker_tag": version}
    return {
        "#spec": SPEC, "web/run.json": run, "web/src.json": source, "web/root.squashfs": sha,
        "web/lxc.container.conf": sha,
    }  # fmt: skip


class Fleet(NamedTuple):
    """What is there. `devices` by nick; `rollout` and `webhook` are ids."""

    owner: Caller
    devices: dict[str, DeviceCaller]
    rollout: str
    webhook: str

    def deploy(self, device: DeviceCaller, version: str) -> int:
        """Post a version of the container to a device; returns the revision."""
        return deploy(self.owner, device, version)


def deploy(owner: Caller, device: DeviceCaller, version: str) -> int:
    """Post a version of the container to a device; returns the revision."""
    body = {"rev": -1, "commit-msg": f"web {version}", "state": web_state(owner, version)}
    answer = owner.post(f"/trails/{device.id}/steps", body)
    answer.raise_for_status()
    rev: int = answer.json()["rev"]
    return rev


def _device(owner: Caller, number: int) -> DeviceCaller:
    device = claimed_device(owner).start_trail()
    owner.patch(f"/devices/{device.id}", {"nick": f"pump-{number:03d}"}).raise_for_status()
    labels = {"site": "berlin" if number % 2 else "hamburg", "type": "pump"}
    owner.patch(f"/fleets/devices/{device.id}/labels", labels).raise_for_status()
    for version in _VERSIONS:
        rev = deploy(owner, device, version)
        status = _ENDS[number % len(_ENDS)] if version == _VERSIONS[-1] else "DONE"
        body = {"status": status, "progress": 40 if status == "DOWNLOADING" else 100, "status-msg": _MESSAGES[status]}
        device.put(f"/trails/{device.id}/steps/{rev}/progress", body).raise_for_status()
    lines = [
        {"rev": "2", "plat": "web", "src": "stdout", "lvl": "INFO", "msg": "GET /health 200"},
        {"rev": "2", "plat": "pantavisor", "src": "pantavisor.log", "lvl": "WARN", "msg": "container web: restarted"},
    ]
    device.post("/logs/", lines).raise_for_status()
    meta = {"pantavisor.version": "027", "sysinfo.mem": "512 MiB", "interfaces": {"eth0.ipv4": ["10.0.0.5"]}}
    device.put(f"/devices/{device.id}/device-meta", meta).raise_for_status()
    return device


def furnished(owner: Caller) -> Fleet:
    """Furnish the account of `owner`."""
    devices = {f"pump-{number:03d}": _device(owner, number) for number in range(_DEVICES)}
    first = next(iter(devices.values()))
    owner.put(f"/devices/{first.id}/user-meta", {"owner": "plant 3", "ssh": "off"}).raise_for_status()
    release = {"device": first.id, "fragment": "#web", "name": "web-1.27", "note": "security fixes"}
    owner.post("/fleets/releases", {**release, "allow-unsigned": True}).raise_for_status()
    rollout = {"release": "web-1.27", "selector": "site=berlin", "name": "web 1.27 for Berlin"}
    made = owner.post("/fleets/rollouts", rollout)
    made.raise_for_status()
    webhook = owner.post("/webhooks/", {"url": "https://hook.invalid/fleet", "events": ["rollout.*"]})
    webhook.raise_for_status()
    return Fleet(owner, devices, made.json()["id"], webhook.json()["id"])
