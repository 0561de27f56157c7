"""Device metadata: what the hub is told about this device (contracts/device.md 7.6), read from /proc and /sys.

`facts` gathers; `Changes` decides when it is worth a request: at once when something stands differently, rarely for
what changes all the time (uptime, load, free space), for an idle device should send nothing.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

from brickless.core.canonical import JsonInput
from brickless.device import VERSION

#: Keys that change with every look; they ride along, and go alone after this long.
_RESTLESS = frozenset({"time", "sysinfo", "storage", "flash"})
_RESTLESS_EVERY_S = 600
_SIOCGIFADDR = 0x8915
_MAX_LOCAL_KEYS = 200
_MAX_LOCAL_VALUE_BYTES = 4096
_SECTOR_BYTES = 512


class About(NamedTuple):
    """What the agent itself knows and the system does not."""

    revision: str
    claimed: bool
    online: bool
    state: str
    address: str
    status: str
    #: Bytes written to flash, by revision.
    flash: Mapping[str, int]
    mode: str = "remote"


def facts(about: About, storage: str, reserved_percent: int, local: Mapping[str, JsonInput]) -> dict[str, JsonInput]:
    """All device metadata. `local` are keys that containers have set; ours win."""
    uname = os.uname()
    bits = "64" if sys.maxsize > 2**32 else "32"
    endian = "EL" if sys.byteorder == "little" else "EB"
    return {
        **local,
        "interfaces": interfaces(),
        "pantahub.address": about.address,
        "pantahub.claimed": "1" if about.claimed else "0",
        "pantahub.online": "1" if about.online else "0",
        "pantahub.state": about.state,
        "pantavisor.arch": f"{uname.machine}/{bits}/{endian}",
        "pantavisor.version": f"brickless {VERSION}",
        "pantavisor.dtmodel": _text("/proc/device-tree/model").rstrip("\0"),
        "pantavisor.cpumodel": _field("/proc/cpuinfo", "model name"),
        "pantavisor.revision": about.revision,
        "pantavisor.mode": about.mode,
        "pantavisor.status": about.status,
        "pantavisor.uname": {
            "kernel.name": uname.sysname,
            "kernel.release": uname.release,
            "kernel.version": uname.version,
            "node.name": uname.nodename,
            "machine": uname.machine,
        },
        "storage": space(storage, reserved_percent),
        "flash": {"written_since_boot": written_bytes(storage), "written_by_revision": dict(about.flash)},
        "time": {
            "timeval": {"tv_sec": int(time.time()), "tv_usec": 0},
            "timezone": {"tz_minuteswest": 0, "tz_dsttime": 0},
        },
        "sysinfo": sysinfo(),
    }


def _text(path: str, most: int = 64 * 1024) -> str:
    """A file of /proc or /sys; "" where this kernel or board has none."""
    try:
        with open(path, "rb") as file:
            return file.read(most).decode("utf-8", "replace")
    except OSError:
        return ""


def _field(path: str, name: str) -> str:
    for line in _text(path).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def interfaces() -> dict[str, list[str]]:
    """`eth0.ipv4`, `eth0.ipv6` and `eth0.mac` of every interface but loopback."""
    found: dict[str, list[str]] = {}
    for _, name in socket.if_nameindex():
        if name == "lo":
            continue
        address = _ipv4(name)
        if address:
            found[f"{name}.ipv4"] = [address]
        mac = _text(f"/sys/class/net/{name}/address").strip()
        if mac:
            found[f"{name}.mac"] = [mac]
    for line in _text("/proc/net/if_inet6").splitlines():
        packed, *_, name = line.split()
        if name != "lo":
            text = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(packed))
            found.setdefault(f"{name}.ipv6", []).append(text)
    return found


def _ipv4(name: str) -> str:
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
        except OSError:  # EADDRNOTAVAIL: the interface has no address
            return ""
    return socket.inet_ntoa(answer[20:24])


def space(storage: str, reserved_percent: int) -> dict[str, int]:
    """Bytes of the storage partition, as contracts/device.md 2.5 counts them."""
    info = os.statvfs(storage)
    total, free = info.f_blocks * info.f_frsize, info.f_bfree * info.f_frsize
    reserved = total * reserved_percent // 100
    return {"total": total, "free": free, "reserved": reserved, "real_free": max(0, free - reserved)}


def written_bytes(storage: str) -> int:
    """Bytes that were written since boot to the block device that holds storage; 0 where that cannot be told."""
    device = os.stat(storage).st_dev
    fields = _text(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").split()
    return int(fields[6]) * _SECTOR_BYTES if len(fields) > 6 else 0


def sysinfo() -> dict[str, JsonInput]:
    """What sysinfo(2) says, from /proc; memory in bytes."""
    loads = (_text("/proc/loadavg").split() + ["0"] * 4)[:4]
    memory = {}
    for line in _text("/proc/meminfo").splitlines():
        key, _, value = line.partition(":")
        memory[key] = int(value.split()[0]) * 1024 if value.split()[:1] and value.split()[0].isdigit() else 0
    return {
        "uptime": int(float((_text("/proc/uptime").split() or ["0"])[0])),
        **{f"loads.{i}": round(float(loads[i]) * 65536) for i in range(3)},
        "totalram": memory.get("MemTotal", 0),
        "freeram": memory.get("MemFree", 0),
        "sharedram": memory.get("Shmem", 0),
        "bufferram": memory.get("Buffers", 0),
        "totalswap": memory.get("SwapTotal", 0),
        "freeswap": memory.get("SwapFree", 0),
        "procs": int(loads[3].rpartition("/")[2]) if loads[3].rpartition("/")[2].isdigit() else 0,
        "totalhigh": 0,
        "freehigh": 0,
        "mem_unit": 1,
    }


def local_keys(folder: str) -> dict[str, str]:
    """Device metadata that containers have set: one file a key. What is too large or too much is left out."""
    found: dict[str, str] = {}
    try:
        names = sorted(os.listdir(folder))[:_MAX_LOCAL_KEYS]
    except FileNotFoundError:
        return found
    for name in names:
        if not name.startswith("."):
            found[name] = _text(os.path.join(folder, name), _MAX_LOCAL_VALUE_BYTES)
    return found


class Changes:
    """When metadata is worth a request."""

    __slots__ = ("_sent", "_sent_at_s")

    def __init__(self) -> None:
        self._sent: dict[str, JsonInput] | None = None
        self._sent_at_s = 0.0

    def due(self, current: Mapping[str, JsonInput], now_s: float) -> bool:
        """Whether something stands differently, or the restless keys have become old. `now_s` is monotonic."""
        if self._sent is None or now_s - self._sent_at_s >= _RESTLESS_EVERY_S:
            return True
        return _calm(current) != self._sent

    def sent(self, current: Mapping[str, JsonInput], now_s: float) -> None:
        """The hub has acknowledged these."""
        self._sent, self._sent_at_s = _calm(current), now_s


def _calm(values: Mapping[str, JsonInput]) -> dict[str, JsonInput]:
    return {key: value for key, value in values.items() if key not in _RESTLESS}
