"""A container's side of its network: the lines of its LXC configuration (contract device.md 5.7)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from brickless.core.container import Container
from brickless.core.disks import Pool
from brickless.core.ipam import Assignment, Lease, Wish, assign
from brickless.linux.lxc import Line

KEEP = "lxc.namespace.keep"
INTERFACE = "eth0"


def assign_all(
    containers: Iterable[Container],
    pools: Iterable[Pool],
    before: Mapping[str, Lease],
    reserved: Iterable[str] = (),
) -> Assignment:
    """The addresses of all containers of a revision that want one."""
    wishes = [
        Wish(container.name, container.network.pool, container.network.ip, container.network.mac)
        for container in containers
        if container.network is not None and container.network.mode == "pool"
    ]
    return assign(wishes, pools, before=before, reserved=reserved)


def own_addresses(lines: Iterable[Line]) -> list[str]:
    """IPv4 addresses that a container's own LXC configuration takes: no pool gives them to another."""
    return [
        line.value.partition("/")[0].strip()
        for line in lines
        if line.key.startswith("lxc.net.") and line.key.endswith(".ipv4.address")
    ]


def with_network(own: Sequence[Line], pool: Pool, lease: Lease) -> list[Line]:
    """The configuration of a container of a pool. Raises `ValueError` for one that has interfaces of its own."""
    for line in own:
        if line.key.startswith("lxc.net."):
            raise ValueError(f"it takes its network from the pool {pool.name}, but its configuration has {line.key}")
    lines = [_without_net(line) for line in own]
    kind = "veth" if pool.type == "bridge" else "macvlan"
    values = {"type": kind, "link": pool.bridge if pool.type == "bridge" else pool.parent}
    if kind == "macvlan":
        values["macvlan.mode"] = "bridge"
    values["name"] = INTERFACE
    values["flags"] = "up"
    values["ipv4.address"] = f"{lease.ip}/{lease.prefix}"
    values["ipv4.gateway"] = lease.gateway
    values["hwaddr"] = lease.mac
    return [*(line for line in lines if line.value), *(Line(f"lxc.net.0.{key}", values[key]) for key in values)]


def _without_net(line: Line) -> Line:
    """A container with an interface of its own does not share the device's."""
    if line.key != KEEP:
        return line
    return Line(KEEP, " ".join(word for word in line.value.split() if word != "net"))


def with_host_network(own: Sequence[Line]) -> list[Line]:
    """The configuration of a container that asks for the device's own network: it keeps that namespace."""
    lines = list(own)
    if any(line.key.startswith("lxc.net.") for line in lines):
        return lines
    kept = [line for line in lines if line.key == KEEP]
    # A list of what is kept means that all else is new, users too: without ids mapped, no container starts so.
    words = kept[-1].value.split() if kept else ["user"]
    if "net" in words:
        return lines
    return [*(line for line in lines if line.key != KEEP), Line(KEEP, " ".join([*words, "net"]))]
