"""The factory revision of an emulated device: BSP, the stock groups, and a container that brings the network up."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from brickless.core import canonical
from brickless.image import cache, debian
from brickless.image.arch import AMD64, Arch
from brickless.image.bsp import Bsp
from brickless.image.initramfs import unpacked
from brickless.linux import process
from brickless.store.objects import ObjectStore

SPEC = "pantavisor-service-system@1"
BUSYBOX = "busybox-static"
NETWORK = "network"
SQUASHFS_TIMEOUT_S = 300.0

TIMEOUT_S = 30
STABLE_S = 30


def _group(name: str, description: str, goal: str, policy: str, timeout_s: int) -> dict[str, canonical.JsonValue]:
    return {
        "description": description,
        "name": name,
        "restart_policy": policy,
        "status_goal": goal,
        "timeout": timeout_s,
    }


def stock_groups(*, timeout_s: int = TIMEOUT_S, stable_s: int = STABLE_S) -> list[canonical.JsonValue]:
    """The four groups of device.md 1.5, in boot order.

    `timeout_s` bounds the way to the goal, `stable_s` is how long an app must run before an update is committed.
    """
    recovery: canonical.JsonValue = {
        "backoff_factor": canonical.loads(b"2.0"),
        "backoff_policy": "reboot",
        "max_retries": 5,
        "policy": "on-failure",
        "retry_delay": 5,
        "stable_timeout": stable_s,
    }
    app = _group("app", "Applications", "STARTED", "container", timeout_s)
    return [
        _group(
            "data", "Containers which volumes we want to mount but not to be started", "MOUNTED", "system", timeout_s
        ),
        _group("root", "Container or containers that are in charge of the network", "STARTED", "system", timeout_s),
        _group("platform", "Middleware and utility containers", "STARTED", "system", timeout_s),
        {**app, "auto_recovery": recovery},
    ]


# Called by busybox's DHCP client with the event in $1 and the lease in its environment.
_LEASE_SCRIPT = """#!/bin/sh
set -eu
case "$1" in
deconfig)
    ip link set dev "$interface" up
    ip -4 address flush dev "$interface"
    ;;
bound|renew)
    ip -4 address flush dev "$interface"
    ip -4 address add "$ip/${mask:-24}" dev "$interface"
    for gateway in ${router:-}; do
        ip -4 route replace default via "$gateway" dev "$interface"
        break
    done
    # /etc/resolv.conf is the device's own, bound into this container: written in place, not replaced.
    for server in ${dns:-}; do echo "nameserver $server"; done >/etc/resolv.conf
    echo "network: $interface has $ip"
    ;;
esac
"""
_APPLETS = ("ip", "sh", "udhcpc")
_LXC = f"""lxc.tty.max = 8
lxc.pty.max = 1024
lxc.rootfs.path = overlayfs:/volumes/{NETWORK}/root.squashfs:/volumes/{NETWORK}/lxc-overlay/upper
lxc.init.cmd = /bin/udhcpc -f -S -i eth0 -s /etc/udhcpc.script -t 3 -T 1 -A 2
lxc.environment = PATH=/bin
lxc.namespace.keep = user net ipc
lxc.signal.halt = SIGTERM
lxc.mount.auto = proc sys:rw
lxc.mount.entry = /etc/resolv.conf etc/resolv.conf none bind,rw,create=file 0 0
"""


def network_container(
    folder: Path, arch: Arch = AMD64
) -> tuple[dict[str, Path | bytes], dict[str, canonical.JsonValue]]:
    """Objects (path in the state -> content) and inline JSON of the container `network`, made once below `folder`.

    It is busybox's DHCP client in the device's own network namespace.
    """
    debs = debian.fetch([BUSYBOX], folder / "debian", arch=arch.debian, closure=False)
    busybox = unpacked(debs, folder / "trees") / "bin/busybox"
    name = f"network-{cache.key([deb.name for deb in debs], _LEASE_SCRIPT, _APPLETS, 1)}.squashfs"
    squashfs = cache.artefact(folder / "artefacts", name, lambda out: _squashfs(busybox, out))
    run: canonical.JsonValue = {
        "#spec": "service-manifest-run@1",
        "config": "lxc.container.conf",
        "group": "root",
        "name": NETWORK,
        "root-volume": "root.squashfs",
        "storage": {"lxc-overlay": {"persistence": "boot"}},
        "type": "lxc",
        "volumes": [],
    }
    objects: dict[str, Path | bytes] = {
        f"{NETWORK}/root.squashfs": squashfs,
        f"{NETWORK}/lxc.container.conf": _LXC.encode(),
    }
    return objects, {f"{NETWORK}/run.json": run}


def _squashfs(busybox: Path, out: Path) -> None:
    process.require("sqfstar", "squashfs-tools")
    argv = ["sqfstar", "-quiet", "-no-progress", "-comp", "zstd", "-mkfs-time", "0", str(out)]
    process.pipe(
        argv, purpose="packing the network container", stdin_chunks=_tar(busybox), timeout_s=SQUASHFS_TIMEOUT_S
    )


def _tar(busybox: Path) -> Iterator[bytes]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in ("bin", "dev", "etc", "proc", "run", "sys", "tmp"):
            tar.addfile(_member(path, tarfile.DIRTYPE, 0o755))
        _add(tar, "bin/busybox", busybox.read_bytes(), 0o755)
        for applet in _APPLETS:
            link = _member(f"bin/{applet}", tarfile.SYMTYPE, 0o777)
            link.linkname = "busybox"
            tar.addfile(link)
        _add(tar, "etc/resolv.conf", b"", 0o644)
        _add(tar, "etc/udhcpc.script", _LEASE_SCRIPT.encode(), 0o755)
    yield buffer.getvalue()


def _member(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type = kind
    info.mode = mode
    return info


def _add(tar: tarfile.TarFile, path: str, content: bytes, mode: int) -> None:
    info = _member(path, tarfile.REGTYPE, mode)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def revision(
    objects: ObjectStore,
    bsp: Bsp,
    folder: Path,
    *,
    groups: list[canonical.JsonValue] | None = None,
    extra: Mapping[str, canonical.JsonValue] | None = None,
    arch: Arch = AMD64,
) -> bytes:
    """Add all files of the factory revision to `objects` and return its state, canonical.

    `groups` are the stock ones when None; `extra` is more inline JSON, path in the state -> value.
    """
    network_objects, network_jsons = network_container(folder, arch)
    state: dict[str, canonical.JsonValue] = {"#spec": SPEC, "device.json": {"groups": groups or stock_groups()}}
    state.update(bsp.jsons())
    state.update(network_jsons)
    state.update(extra or {})
    contents: dict[str, Path | bytes] = {**bsp.files(), **network_objects}
    for path, content in contents.items():
        state[path] = objects.add_file(str(content)) if isinstance(content, Path) else objects.add([content])
    return canonical.dumps(state)
