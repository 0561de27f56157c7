"""What a container may use at most: our own member `limits` of `run.json`, which other runtimes pass over. Pure.

    "limits": {"memory": "64M", "cpu": 0.5, "pids": 100}

`cpu` counts processors. The values are written in the words of both versions of control groups.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

from brickless.core.node import Node, shown

_SIZE = re.compile(r"([1-9][0-9]{0,14})([KMG]i?)?")
_UNITS = {None: 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
CPU_PERIOD_US = 100_000
MIN_MEMORY_BYTES = 1 << 20
MAX_CPUS = 1024
MAX_PIDS = 1 << 22


class Limits(NamedTuple):
    """Bytes, microseconds of processor time in each `CPU_PERIOD_US`, processes; 0 for no limit."""

    memory_bytes: int = 0
    cpu_us: int = 0
    pids: int = 0

    def lines(self, *, unified: bool) -> list[tuple[str, str]]:
        """Keys and values of an LXC configuration, for control groups version 2 (`unified`) or 1."""
        made: list[tuple[str, str]] = []
        if self.memory_bytes:
            key = "lxc.cgroup2.memory.max" if unified else "lxc.cgroup.memory.limit_in_bytes"
            made.append((key, str(self.memory_bytes)))
        if self.cpu_us and unified:
            made.append(("lxc.cgroup2.cpu.max", f"{self.cpu_us} {CPU_PERIOD_US}"))
        elif self.cpu_us:
            made.append(("lxc.cgroup.cpu.cfs_period_us", str(CPU_PERIOD_US)))
            made.append(("lxc.cgroup.cpu.cfs_quota_us", str(self.cpu_us)))
        if self.pids:
            made.append(("lxc.cgroup2.pids.max" if unified else "lxc.cgroup.pids.max", str(self.pids)))
        return made


def parse_limits(node: Node) -> Limits:
    """Read `limits`. Raises `StateError` for a value that is none, and for a member that nobody knows.

    A limit that is misspelt would not limit: so unknown members are refused here, unlike elsewhere.
    """
    for key, member in node.members():
        if key not in {"memory", "cpu", "pids"}:
            member.fail("limits", "is none of memory, cpu, pids")
    return Limits(_memory(node), _cpu(node), _pids(node))


def _memory(node: Node) -> int:
    member = node.get("memory")
    if member is None:
        return 0
    text = str(member.value) if isinstance(member.value, int) and not isinstance(member.value, bool) else member.text()
    match = _SIZE.fullmatch(text)
    size = int(match[1]) * _UNITS[match[2] and match[2][0]] if match else 0
    if size < MIN_MEMORY_BYTES:
        member.fail("limits", f"{shown(text)} is no size of at least 1M, such as 64M")
    return size


def _cpu(node: Node) -> int:
    member = node.get("cpu")
    if member is None:
        return 0
    value = member.value
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not Decimal("0.01") <= value <= MAX_CPUS:
        member.fail("limits", f"must be a number of processors from 0.01 to {MAX_CPUS}")
    return int(value * CPU_PERIOD_US)


def _pids(node: Node) -> int:
    member = node.get("pids")
    if member is None:
        return 0
    count = node.count_of("pids")
    if not 1 <= count <= MAX_PIDS:
        member.fail("limits", f"must be a number of processes from 1 to {MAX_PIDS}")
    return count
