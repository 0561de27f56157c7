"""The device's side of container networks: bridges with an address, forwarding, masquerade, walls between pools.

What is there already stays as it is: a supervisor that was started again finds its bridges with containers on them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from brickless.core.disks import Pool, parse_subnet
from brickless.linux import modules, net

FORWARD = "/proc/sys/net/ipv4/ip_forward"
NET_MODULES = ("bridge", "veth")


class DefaultBridge(NamedTuple):
    """PV_NET_BRDEV, PV_NET_BRADDRESS4, PV_NET_BRMASK4; no device, no bridge."""

    device: str
    address: str
    netmask: str


def netmask(prefix: int) -> str:
    """`255.255.255.0` for 24."""
    return ".".join(str(octet) for octet in (0xFFFFFFFF << (32 - prefix) & 0xFFFFFFFF).to_bytes(4, "big"))


def bring_up(pools: Iterable[Pool], default: DefaultBridge | None) -> list[str]:
    """Bring everything up; returns what failed, in words."""
    pools = list(pools)
    faults: list[str] = []
    wanted = {pool.bridge: pool for pool in pools if pool.type == "bridge"}
    modules.ensure((*NET_MODULES, "macvlan") if any(pool.type == "macvlan" for pool in pools) else NET_MODULES)
    for bridge, pool in sorted(wanted.items()):
        network = parse_subnet(pool.subnet)
        mask = netmask(network[1] if network else 24)
        _try(faults, f"the bridge {bridge} of the network pool {pool.name}", bridge, pool.gateway, mask)
    if default is not None and default.device and default.device not in wanted:
        _try(faults, f"the default bridge {default.device}", default.device, default.address, default.netmask)
    if any(pool.nat for pool in pools) or any(pool.isolated for pool in pools):
        try:
            _filter(pools)
        except OSError as error:
            faults.append(f"NAT of the network pools: {error}")
    return faults


def _try(faults: list[str], what: str, bridge: str, address: str, mask: str) -> None:
    try:
        if net.add_bridge(bridge):
            net.set_address(bridge, address, mask)
        net.up(bridge)
    except OSError as error:
        faults.append(f"{what}: {error}")


def _filter(pools: list[Pool]) -> None:
    import socket

    from brickless.linux import nft

    modules.ensure(nft.MODULES)
    masquerades = []
    for pool in pools:
        network = parse_subnet(pool.subnet)
        if pool.nat and network is not None:
            address = socket.inet_aton(pool.subnet.partition("/")[0])
            masquerades.append(nft.Masquerade(address, network[1], device_of(pool)))
    nft.replace(masquerades, [nft.Wall(*pair) for pair in walls(pools)])
    if masquerades:
        fd = os.open(FORWARD, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"1")
        finally:
            os.close(fd)


def walls(pools: Iterable[Pool]) -> list[tuple[str, str]]:
    """Pairs of interfaces between which nothing is forwarded: those of two bridges, one of which is isolated."""
    bridges = {pool.bridge: pool.isolated for pool in pools if pool.type == "bridge"}
    return [
        (one, other)
        for one in sorted(bridges)
        for other in sorted(bridges)
        if one != other and (bridges[one] or bridges[other])
    ]


def device_of(pool: Pool) -> str:
    """The interface that the pool's packets come from."""
    return pool.bridge if pool.type == "bridge" else pool.parent
