"""Addresses out of pools: who gets which, and what is refused."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brickless.core.disks import Pool, in_subnet, parse_ipv4, parse_subnet
from brickless.core.ipam import Lease, Wish, assign

POOL = Pool("p", "bridge", "br0", "", "10.0.3.0/29", "10.0.3.1")


def ips(*wishes: Wish, reserved: tuple[str, ...] = (), before: dict[str, Lease] | None = None) -> dict[str, str]:
    done = assign(wishes, [POOL], reserved=reserved, before=before or {})
    return {**{name: lease.ip for name, lease in done.leases.items()}, **done.faults}


def test_leases_start_after_the_gateway_and_the_hardware_address_follows() -> None:
    done = assign([Wish("b", "p"), Wish("a", "p")], [POOL])
    assert done.leases["a"] == Lease("p", "10.0.3.2", 29, "10.0.3.1", "02:00:0a:00:03:02")
    assert done.leases["b"].ip == "10.0.3.3"


def test_a_fixed_address_is_taken_before_any_is_given_out() -> None:
    assert ips(Wish("a", "p"), Wish("z", "p", "10.0.3.2")) == {"a": "10.0.3.3", "z": "10.0.3.2"}


def test_reserved_addresses_are_left_out() -> None:
    assert ips(Wish("a", "p"), reserved=("10.0.3.2", "no address")) == {"a": "10.0.3.3"}


def test_a_lease_stays_while_others_come_and_go() -> None:
    before = assign([Wish("a", "p"), Wish("b", "p")], [POOL]).leases
    assert ips(Wish("b", "p"), Wish("c", "p"), before=before) == {"b": "10.0.3.3", "c": "10.0.3.2"}


def test_collisions_are_named() -> None:
    found = ips(Wish("a", "p", "10.0.3.4"), Wish("b", "p", "10.0.3.4"))
    assert found == {"a": "10.0.3.4", "b": "the address 10.0.3.4 is used by the container a already"}
    assert "gateway" in ips(Wish("a", "p", "10.0.3.1"))["a"]
    assert "is none for a container" in ips(Wish("a", "p", "10.0.3.7"))["a"]
    assert "is none for a container" in ips(Wish("a", "p", "10.0.4.2"))["a"]
    assert "hardware address" in ips(Wish("a", "p", mac="02:00:0a:00:03:03"), Wish("b", "p"))["b"]


def test_a_full_pool_says_so() -> None:
    found = ips(*(Wish(f"c{number}", "p") for number in range(6)))
    assert sorted(found.values())[-1] == "the pool p (10.0.3.0/29) has no free address"
    assert "there is no pool q" in ips(Wish("a", "q"))["a"]


@given(st.lists(st.sampled_from(["", "10.0.3.2", "10.0.3.5", "10.0.3.6", "10.0.3.9"]), max_size=9))
def test_no_address_is_ever_given_twice_or_outside(wanted: list[str]) -> None:
    done = assign([Wish(f"c{number}", "p", ip) for number, ip in enumerate(wanted)], [POOL])
    given_out = [lease.ip for lease in done.leases.values()]
    network = parse_subnet(POOL.subnet)
    assert network is not None
    assert len(set(given_out)) == len(given_out)
    assert all(in_subnet(parse_ipv4(ip) or 0, network) and ip != POOL.gateway for ip in given_out)
    assert len(done.leases) + len(done.faults) == len(wanted)
