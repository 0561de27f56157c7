"""Addresses for containers out of the pools of a revision (contract device.md 1.14, 5.7). IPv4, pure.

An address that a container asked for, or has in its own LXC configuration, is taken before any is given out. A lease
stays with its container as long as the pool has it; new ones are the lowest that are free behind the gateway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from brickless.core.disks import Pool, parse_ipv4, parse_subnet

MAX_SCANNED = 65536


class Wish(NamedTuple):
    """A container that wants an address of a pool; `ip` and `mac` are "" where it leaves the choice to us."""

    container: str
    pool: str
    ip: str = ""
    mac: str = ""


class Lease(NamedTuple):
    """What a container got. `prefix` is the length of the network's prefix."""

    pool: str
    ip: str
    prefix: int
    gateway: str
    mac: str


class Assignment(NamedTuple):
    """Leases by container, and for each that got none the reason in words."""

    leases: dict[str, Lease]
    faults: dict[str, str]


def assign(
    wishes: Iterable[Wish], pools: Iterable[Pool], *, reserved: Iterable[str] = (), before: Mapping[str, Lease] = {}
) -> Assignment:
    """Give every wish an address. `reserved` are addresses used otherwise, `before` the leases until now."""
    wanted = sorted(wishes)
    by_name = {pool.name: pool for pool in pools}
    taken: dict[int, str] = {
        number: "the LXC configuration of a container" for text in reserved if (number := parse_ipv4(text)) is not None
    }
    done = Assignment({}, {})
    for wish in wanted:
        if wish.ip:
            _fixed(wish, by_name, taken, done)
    for wish in wanted:
        if not wish.ip:
            _kept(wish, by_name, taken, before.get(wish.container), done)
    for wish in wanted:
        if wish.container not in done.leases and wish.container not in done.faults:
            _free(wish, by_name, taken, done)
    _check_macs(done)
    return done


def _fixed(wish: Wish, pools: Mapping[str, Pool], taken: dict[int, str], done: Assignment) -> None:
    pool, number = pools.get(wish.pool), parse_ipv4(wish.ip)
    network = None if pool is None else parse_subnet(pool.subnet)
    if pool is None or network is None or number is None:
        done.faults[wish.container] = f"the pool {wish.pool} or the address {wish.ip} is unknown"
        return
    first, last = _bounds(network)
    if not first <= number <= last:
        done.faults[wish.container] = f"the address {wish.ip} is none for a container in {pool.subnet}"
    elif number == parse_ipv4(pool.gateway):
        done.faults[wish.container] = f"the address {wish.ip} is the gateway of the pool {pool.name}"
    elif number in taken:
        done.faults[wish.container] = f"the address {wish.ip} is used by {taken[number]} already"
    else:
        _give(wish, pool, network, number, taken, done)


def _kept(wish: Wish, pools: Mapping[str, Pool], taken: dict[int, str], before: Lease | None, done: Assignment) -> None:
    pool = pools.get(wish.pool)
    network = None if pool is None else parse_subnet(pool.subnet)
    number = None if before is None else parse_ipv4(before.ip)
    if pool is None or network is None or before is None or number is None or before.pool != pool.name:
        return
    first, last = _bounds(network)
    if first <= number <= last and number not in taken and number != parse_ipv4(pool.gateway):
        _give(wish, pool, network, number, taken, done)


def _free(wish: Wish, pools: Mapping[str, Pool], taken: dict[int, str], done: Assignment) -> None:
    pool = pools.get(wish.pool)
    network = None if pool is None else parse_subnet(pool.subnet)
    gateway = None if pool is None else parse_ipv4(pool.gateway)
    if pool is None or network is None or gateway is None:
        done.faults[wish.container] = f"there is no pool {wish.pool}"
        return
    first, last = _bounds(network)
    behind = [*range(gateway + 1, min(last, gateway + MAX_SCANNED) + 1)]
    for number in [*behind, *range(first, min(gateway, first + MAX_SCANNED))]:
        if number not in taken:
            _give(wish, pool, network, number, taken, done)
            return
    done.faults[wish.container] = f"the pool {pool.name} ({pool.subnet}) has no free address"


def _bounds(network: tuple[int, int]) -> tuple[int, int]:
    """First and last address of hosts: without the network's own and the broadcast."""
    size = 1 << (32 - network[1])
    return network[0] + 1, network[0] + size - 2


def _give(
    wish: Wish, pool: Pool, network: tuple[int, int], number: int, taken: dict[int, str], done: Assignment
) -> None:
    octets = number.to_bytes(4, "big")
    taken[number] = f"the container {wish.container}"
    # The contract's own rule: two containers with different addresses cannot have one hardware address.
    mac = wish.mac.lower() or "02:00:" + ":".join(f"{octet:02x}" for octet in octets)
    ip = ".".join(str(octet) for octet in octets)
    done.leases[wish.container] = Lease(pool.name, ip, network[1], pool.gateway, mac)


def _check_macs(done: Assignment) -> None:
    owners: dict[tuple[str, str], str] = {}
    for name, lease in sorted(done.leases.items()):
        other = owners.setdefault((lease.pool, lease.mac), name)
        if other != name:
            done.faults[name] = f"the hardware address {lease.mac} is used by the container {other} already"
    for name in done.faults:
        done.leases.pop(name, None)
