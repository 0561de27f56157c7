"""Networks, disks, verified volumes, services, drivers and data of revisions on a real kernel, in one device.

One guest boots three times: the factory revision with a container for each scenario; the same after its power was cut;
and a bad revision on trial, whose data must not stay. Each scenario has a name and says by itself how it went.
"""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from brickless.core import bootenv, canonical
from brickless.image import bsp, modules
from brickless.image.bsp import Bsp
from brickless.linux import process
from brickless.main.artefacts import Artefacts, Variant
from brickless.testkit import dbus_client
from brickless.testkit.guest import CONFIG, OPTIONS, Guest, Scenario, passed, tools_archive
from brickless.twin import disk
from brickless.twin.device import EmulatedDevice
from brickless.twin.qemu import Hardware, Service

CACHE = Path(__file__).parents[2] / ".cache"
BOOT_TIMEOUT_S = 240.0
pytestmark = [pytest.mark.needs("qemu", "verity"), pytest.mark.timeout(900)]
SALT = "00" * 16
Json = canonical.JsonValue

NET = {"mode": "host"}
POOL: dict[str, Json] = {"mode": "pool", "pool": "inside"}
DEVICE: dict[str, Json] = {
    "groups": [
        {"name": "base", "timeout": 120},
        {"name": "app", "timeout": 120},
        {"name": "late", "timeout": 120},
    ],
    "network": {
        "pools": {
            "inside": {
                "type": "bridge",
                "bridge": "brpool",
                "subnet": "10.9.3.0/24",
                "gateway": "10.9.3.1",
                "nat": True,
            },
            "lan": {"type": "macvlan", "parent": "eth0", "subnet": "10.0.2.0/24", "gateway": "10.0.2.2"},
        }
    },
    "disks": [
        {
            "name": "safe",
            "type": "dm-crypt-versatile",
            "path": "/storage/dm-crypt-files/safe.img,16,safe.key",
            "format": "ext4",
        },
        {"name": "second", "type": "dm-crypt-versatile", "path": "/storage/dm-crypt-files/second.img,16,second.key"},
        {"name": "plain", "type": "volume-disk"},
        {"name": "both", "type": "dual", "disks": ["second", "plain"], "init_order": ["primary", "create-primary"]},
        {"name": "fast", "type": "volume-disk", "provision": "zram", "provision_options": "size=16M"},
        {"name": "hardware", "type": "dm-crypt-caam", "path": "/storage/caam.img,8,key"},
        {"name": "zswap", "type": "swap-disk", "provision": "zram", "provision_options": "size=16M"},
        {
            "name": "fswap",
            "type": "swap-disk",
            "provision": "file",
            "path": "/storage/swapfile",
            "provision_options": "size=8M",
        },
    ],
    "volumes": {"pv--devmeta": {"persistence": "permanent"}},
}


def on_disk(disk_name: str, volume: str = "data") -> dict[str, Json]:
    return {"storage": {volume: {"persistence": "permanent", "disk": disk_name}}}


def shown(name: str, volume: str = "data", at: str = "var") -> tuple[str, ...]:
    return (f"lxc.mount.entry = /volumes/{name}/{volume} {at} none bind,create=dir 0 0",)


FETCH = "within busybox wget -q -O /tmp/got http://{}/"
PYTHON = (
    "lxc.mount.entry = /usr usr none bind,ro,create=dir 0 0",
    "lxc.mount.entry = /usr/lib lib none bind,ro,create=dir 0 0",
    "lxc.mount.entry = /usr/lib64 lib64 none bind,ro,create=dir,optional 0 0",
)
SERVE_UNIX = b"""import os, socket
one = socket.socket(socket.AF_UNIX)
one.bind("/run/api.sock")
one.listen()
while True:
    client = one.accept()[0]
    head = client.recv(4096)
    if head.startswith(b"GET"):
        who = [line for line in head.decode().split("\\r\\n") if line.startswith("X-PV-")]
        text = " ".join(who).encode()
        client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n" % len(text) + text)
    else:
        client.sendall(head.upper())
    client.close()
"""
CALL = b"""import socket, sys, time
GREET = b"GET / HTTP/1.1\\r\\nHost: x\\r\\nX-PV-Client: root\\r\\n\\r\\n"
for _ in range(240):
    try:
        one = socket.socket(socket.AF_UNIX)
        one.connect(sys.argv[1])
        one.sendall(GREET if sys.argv[2] == "http" else sys.argv[2].encode())
        said = b""
        while piece := one.recv(4096):
            said += piece
    except OSError:
        said = b""
    if said:
        break
    time.sleep(0.5)
print(said.decode().replace("\\r\\n", " "))
sys.exit(sys.argv[3] not in said.decode())
"""
BUS = (
    Path(dbus_client.__file__).read_bytes()
    + b"""
import sys, time
for _ in range(240):
    try:
        client = DBusClient("/run/dbus/system_bus_socket")
        break
    except OSError:
        time.sleep(0.5)
uid = client.call(BUS, "GetConnectionUnixUser", client.name)
said = "uid " + uid + " " + client.call(BUS, "RequestName", sys.argv[1], 4)
print(said)
sys.exit(said != sys.argv[2])
"""
)
BATCH: dict[str, Json] = {"auto_recovery": {"policy": "on-failure", "max_retries": 1}}


def services(*exports: Json) -> Json:
    return {"#spec": "service-manifest-xconnect@1", "services": list(exports)}


def scenarios(verified: dict[str, bytes], add: dict[str, Json]) -> list[Scenario]:
    ip_up = "busybox ip link set eth0 up; busybox ip addr add 10.0.2.15/24 dev eth0"
    ip_up += "; busybox ip route add default via 10.0.2.2"
    hosts = "check bridge-default busybox ip addr show lxcbr0; check host-network busybox ip link show eth0"
    return [
        Scenario("netup", f"{ip_up}; {hosts}", {"group": "base", "network": NET}),
        Scenario("data", "no data-container it was started", {"status_goal": "MOUNTED", "group": "base"}),
        Scenario(
            "poola",
            "busybox ip addr >/tmp/a; check address-static grep 10.9.3.40/24 /tmp/a;"
            " check address-mac grep -i 02:00:00:00:00:09 /tmp/a; echo page >/www/index.html; httpd -p 80 -h /www",
            {"network": {**POOL, "ip": "10.9.3.40", "mac": "02:00:00:00:00:09"}},
        ),
        Scenario(
            "poolb",
            f"check pool-bridge {FETCH.format('10.9.3.40')}; check pool-nat {FETCH.format('10.0.2.100:8080')}",
            {"network": POOL},
        ),
        Scenario(
            "lan",
            f"check pool-macvlan {FETCH.format('10.0.2.100:8080')}",
            {"network": {"mode": "pool", "pool": "lan", "ip": "10.0.2.77"}},
        ),
        Scenario(
            "safe",
            "[ -f /var/secret ] && check crypt-persists grep -q 'the plain text' /var/secret;"
            " check crypt-disk grep -q '/dev/dm-.* /var ' /proc/mounts;"
            " echo 'the plain text' >/var/secret; busybox sync",
            on_disk("safe"),
            shown("safe"),
        ),
        Scenario("both", "check dual-disk grep -q '/dev/dm-.* /var ' /proc/mounts", on_disk("both"), shown("both")),
        Scenario("fast", "check volume-zram grep -q 'zram.* /var ' /proc/mounts", on_disk("fast"), shown("fast")),
        Scenario("plain", "check volume-plain grep -q ' /var ' /proc/mounts", on_disk("plain"), shown("plain")),
        Scenario("swap", "check swap-zram grep -q zram /proc/swaps; check swap-file grep -q swapfile /proc/swaps"),
        Scenario(
            "verity",
            "check verity-volume busybox sh -c 'grep -h verity--verity /sys/block/dm-*/dm/name';"
            " check verity-read cat /vol/hello",
            {"volumes": ["dm:vol.squashfs"]},
            ("lxc.mount.entry = /volumes/verity/vol.squashfs vol none bind,ro,create=dir 0 0",),
            extra={
                "verity/_dm/vol.squashfs.json": {
                    "type": "dm-verity",
                    "data_device": "vol.squashfs",
                    "hash_device": "vol.squashfs.hash",
                    "root_hash": verified["root_hash"].decode(),
                },
                "verity/vol.squashfs": add["data"],
                "verity/vol.squashfs.hash": add["hash"],
            },
        ),
        Scenario("firm", "check firmware-bind grep -q blob /lib/firmware/x"),
        Scenario(
            "drive",
            "check drivers-loaded [ $(busybox ls /sys/class/net | grep -c dummy) = 3 ]",
            {"network": NET, "drivers": {"required": ["fake"], "optional": ["gone"]}},
        ),
        Scenario(
            "limited",
            "check limits-v2 grep -q 33554432 /sys/fs/cgroup/memory.max",
            {"limits": {"memory": "32M", "pids": 50}},
            ("lxc.mount.auto = cgroup:ro",),
        ),
        Scenario("batch", "ok batch-ran; exit 0", BATCH),
        Scenario(
            "give",
            "busybox mkdir -p /srv/out; echo exported >/srv/out/file; /usr/bin/python3 /serve.py &",
            {"exports": ["/srv/out"]},
            PYTHON,
            {"serve.py": SERVE_UNIX},
            {
                "give/services.json": services(
                    {"name": "api", "type": "unix", "socket": "/run/api.sock"},
                    {"name": "web", "type": "rest", "socket": "/run/api.sock"},
                )
            },
        ),
        Scenario(
            "take",
            "check service-unix /usr/bin/python3 /call.py /run/api hello HELLO;"
            " check service-rest /usr/bin/python3 /call.py /run/web http 'X-PV-Client: take X-PV-Role: reader';"
            " check export-seen within grep exported /mnt/file",
            {
                "group": "late",
                "services": {
                    "required": [
                        {"name": "api", "type": "unix", "target": "/run/api"},
                        {"name": "web", "type": "rest", "target": "/run/web", "role": "reader"},
                    ]
                },
            },
            (*PYTHON, "lxc.mount.entry = /exports/give/srv/out mnt none bind,create=dir 0 0"),
            {"call.py": CALL},
        ),
        Scenario(
            "owner",
            "check bus-owner /usr/bin/python3 /bus.py org.example.Clock 'uid 90000 1';"
            " check bus-policy /usr/bin/python3 /bus.py org.example.Other"
            " 'uid 90000 org.freedesktop.DBus.Error.AccessDenied'",
            {},
            PYTHON,
            {"bus.py": BUS},
            {
                "owner/services.json": services(
                    {"type": "dbus", "bus": "system-bus", "owns": "org.example.Clock", "role": "clock"}
                )
            },
        ),
        database("echo old >/var/schema"),
    ]


def database(script: str, **run: Json) -> Scenario:
    storage: dict[str, Json] = {"data": {"persistence": "permanent", "snapshot": True}}
    return Scenario("db", f"say db finds $(cat /var/schema); {script}", {"storage": storage, **run}, shown("db"))


def verity(work: Path) -> dict[str, bytes]:
    """A squashfs with its hashes, made by the field's own tool."""
    folder = work / "vol"
    folder.mkdir()
    (folder / "hello").write_text("verified\n")
    data, hashes = work / "vol.squashfs", work / "vol.squashfs.hash"
    argv = ["mksquashfs", str(folder), str(data), "-quiet", "-noappend", "-no-progress"]
    process.run(argv, purpose="packing a volume", timeout_s=60)
    done = process.run(
        ["veritysetup", "format", f"--salt={SALT}", str(data), str(hashes)], purpose="hashing it", timeout_s=60
    )
    (root_hash,) = [line.split()[-1] for line in done.stdout.decode().splitlines() if line.startswith("Root hash")]
    return {"data": data.read_bytes(), "hash": hashes.read_bytes(), "root_hash": root_hash.encode()}


@pytest.fixture(scope="module")
def web() -> Iterator[int]:
    """A server outside of the guest."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def board() -> Bsp:
    """The runtime, all modules that a scenario needs, the tools."""
    artefacts = Artefacts(CACHE, config=CONFIG)
    made = bsp.modules_archive(CACHE, artefacts.kernel, present=(*modules.ON_DEMAND, "dummy"))
    addons = (("modules.cpio.zst", made), ("tools.cpio.zst", tools_archive(CACHE)))
    return Bsp(artefacts.kernel.image, artefacts.initramfs(Variant.FACTORY), addons)


def try_next(image: Path, work: Path, rev: str) -> None:
    """Ask the bootloader to try a revision, as the runtime does."""
    disk.replay_journal(image)
    text = work / "uboot.txt"
    text.write_bytes(bootenv.render({"pv_rev": "0", "pv_try": rev}).ljust(bootenv.SIZE_BYTES, b"\0"))
    for command in ("rm boot/uboot.txt", f"write {text} boot/uboot.txt"):
        process.run(["debugfs", "-w", "-R", command, str(image)], purpose="setting pv_try", timeout_s=60)


def build(guest: Guest, work: Path) -> Path:
    """The disk: the good revision 0, and 1 whose database spoils its data and then ends again and again."""
    made = verity(work)
    firmware = work / "firmware"
    firmware.mkdir()
    (firmware / "x").write_text("blob\n")
    argv = ["mksquashfs", str(firmware), str(work / "fw.squashfs"), "-quiet", "-noappend", "-no-progress"]
    process.run(argv, purpose="packing firmware", timeout_s=60)
    drivers = canonical.dumps({"#spec": "driver-aliases@1", "all": {"fake": ["dummy numdummies=${user-meta:DUMMIES}"]}})
    digests: dict[str, Json] = {key: canonical.sha256_hex(made[key]) for key in ("data", "hash")}
    good = scenarios(made, digests)
    recovery: Json = {"policy": "always", "max_retries": 2, "retry_delay": 1}
    spoil = "echo spoilt >/var/schema; echo rubbish >/var/more; exit 3"
    bad = [*(one for one in good if one.name in ("netup",)), database(spoil, auto_recovery=recovery)]
    return guest.disk(
        {"0": good, "1": bad},
        DEVICE,
        files={
            "cache/usrmeta/DUMMIES": b"3",
            f"objects/{digests['data']}": made["data"],
            f"objects/{digests['hash']}": made["hash"],
        },
        bsp_more={"firmware.squashfs": (work / "fw.squashfs").read_bytes(), "drivers.json": drivers},
    )


FIRST = (
    *("host-network", "bridge-default", "address-static", "address-mac", "pool-bridge", "pool-nat", "pool-macvlan"),
    *("crypt-disk", "dual-disk", "volume-zram", "volume-plain", "swap-zram", "swap-file"),
    *("verity-volume", "verity-read", "firmware-bind", "drivers-loaded", "limits-v2", "batch-ran"),
    *("service-unix", "service-rest", "export-seen", "bus-owner", "bus-policy"),
)


def test_a_guest_with_everything(tmp_path: Path, web: int) -> None:
    guest = Guest(CACHE, tmp_path, board())
    image = build(guest, tmp_path)
    with image.open("r+b") as stream:
        stream.truncate(image.stat().st_size + (128 << 20))
    device = EmulatedDevice(tmp_path, services=[Service(8080, web)], hardware=Hardware(memory_mb=384), options=OPTIONS)
    faults = []
    with device:
        device.wait_for("the storage grew by 134217728 bytes", timeout_s=BOOT_TIMEOUT_S)
        for name in FIRST:
            try:
                passed(device, name)
            except AssertionError as error:
                faults.append(str(error))
        device.wait_for("container batch STOPPED, it finished", timeout_s=60)
        device.wait_for("container data MOUNTED", timeout_s=60)
        device.wait_for("container drive: driver gone: no driver is called gone", timeout_s=60)
        assert not faults, "\n".join(faults)
        device.wait_for("db finds", timeout_s=60)

        device.kill()
        secret = disk.read(image, "dm-crypt-files/safe.img")
        assert secret is not None
        assert b"the plain text" not in secret
        mark = device.mark()
        device.start()
        for name in ("crypt-persists", "crypt-disk", "pool-nat", "bus-owner"):
            passed(device, name, since=mark)
        device.wait_for("db finds old", timeout_s=60, since=mark)

        device.kill()
        try_next(image, tmp_path, "1")
        mark = device.mark()
        device.start()
        found = device.wait_for("revision 1 ERROR (.*)", timeout_s=BOOT_TIMEOUT_S, since=mark)
        assert found.match[1].startswith("A container could not be started: "), found.match[1]
        assert "db: exit status 3" in found.match[1], found.match[1]
        mark = found.mark
        device.wait_for("container db: the data that it had are back", timeout_s=BOOT_TIMEOUT_S, since=mark)
        device.wait_for("db finds old", timeout_s=BOOT_TIMEOUT_S, since=mark)
    disk.replay_journal(image)
    assert disk.names(image, "disks/perm/db/data") == ["schema"]
