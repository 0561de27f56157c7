"""Networks of pools with real containers: bridges, addresses, NAT, walls, macvlan, updates that leave PIDs alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from brickless.core.progress import Status
from brickless.device.supervise.surroundings import Settings
from brickless.linux import net, process
from brickless.testkit.real_device import OwnNetwork, RealDevice

pytestmark = pytest.mark.needs("root", "lxc")
POOL = {"type": "bridge", "bridge": "brpool", "subnet": "10.9.3.0/24", "gateway": "10.9.3.1", "nat": True}
SERVE = "mkdir -p /tmp/www; hostname >/tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www"
IDLE = "trap 'exit 0' TERM; ip addr; while :; do sleep 1 & wait $!; done"


@pytest.fixture
def device(tmp_path: Path) -> Iterator[RealDevice]:
    settings = Settings(bridge=("brdefault", "10.0.3.1", "255.255.255.0"))
    with OwnNetwork(tmp_path), RealDevice(tmp_path, settings) as one:
        yield one


def pooled(pool: str = "inside", **more: str) -> dict[str, object]:
    return {"mode": "pool", "pool": pool, **more}


def until(command: str) -> str:
    """A container that tries a command until it works, and then stays."""
    return f"n=0; until {command}; do n=$((n+1)); [ $n -lt 60 ] || exit 9; sleep 1; done; exec sleep 999"


def ip(*words: str) -> str:
    return process.run(["ip", *words], purpose="looking", timeout_s=20).stdout.decode()


def test_containers_of_a_pool_reach_each_other_and_keep_their_addresses(device: RealDevice) -> None:
    network = {"network": {"pools": {"inside": POOL}}}
    one = device.container("one", SERVE, network=pooled(hostname="first", ip="10.9.3.40", mac="02:00:00:00:00:09"))
    two = device.container("two", IDLE, network=pooled())
    tries = until("wget -q -O - http://10.9.3.40/")
    three = device.container("three", tries, network=pooled())
    device.install("0", one, two, three, device=network)
    device.boot()
    device.run("one", "two", "three")
    device.printed("three", "first")
    device.printed("two", "10.9.3.3/24")
    assert "brpool" in net.interfaces()
    assert "inet 10.9.3.1/24" in ip("-4", "addr", "show", "brpool")
    assert "inet 10.0.3.1/24" in ip("-4", "addr", "show", "brdefault")
    environment = device.inside("one", "/proc/1/environ").read_bytes().split(b"\0")
    assert b"PV_GROUP=app" in environment

    before = {name: one["pid"] for name, one in device.containers().items()}
    device.install("1", one, two, device.container("three", IDLE, network=pooled()), device=network)
    assert device.update("1").status in (Status.DONE, Status.UPDATED), device.log()
    after = {name: one["pid"] for name, one in device.containers().items()}
    assert {name for name in before if before[name] == after[name]} == {"one", "two"}
    device.printed("three", "10.9.3.2/24")


def test_a_supervisor_that_starts_again_keeps_leases_and_bridges(device: RealDevice) -> None:
    network = {"network": {"pools": {"inside": POOL}}}
    device.install("0", device.container("one", IDLE, network=pooled()), device=network)
    device.boot()
    device.run("one")
    pid = device.init("one")
    device.boot()
    device.run("one")
    assert device.init("one") == pid
    device.ask(op="restart", name=device.name("one"))
    device.until(lambda: device.containers()["one"]["pid"] not in (0, pid) and device.are("STARTED", "one"))
    device.until(lambda: device.console("one").count("10.9.3.2/24") == 2)


def test_two_containers_with_one_address_are_refused_by_name(device: RealDevice) -> None:
    network = {"network": {"pools": {"inside": POOL}}}
    device.install("0", device.container("one", IDLE), device=network)
    device.boot()
    device.run("one")
    twice = [device.container(name, IDLE, network=pooled(ip="10.9.3.7")) for name in ("two", "three")]
    device.install("1", device.container("one", IDLE), *twice, device=network)
    progress = device.update("1")
    assert progress.status is Status.ERROR
    assert "10.9.3.7 is used by the container three" in progress.logs, progress.logs
    device.run("one")


def test_own_interfaces_and_a_pool_do_not_go_together(device: RealDevice) -> None:
    network = {"network": {"pools": {"inside": POOL}}}
    device.install("0", device.container("one", IDLE), device=network)
    device.boot()
    device.run("one")
    both = device.container("two", IDLE, lines="lxc.net.0.type = empty\n", network=pooled())
    device.install("1", device.container("one", IDLE), both, device=network)
    progress = device.update("1")
    assert progress.status is Status.ERROR
    assert "its configuration has lxc.net.0.type" in progress.logs


def test_nat_and_walls_are_rules_of_our_own_table(device: RealDevice) -> None:
    other = {**POOL, "bridge": "brother", "subnet": "10.9.4.0/24", "gateway": "10.9.4.1", "isolated": True}
    network = {"network": {"pools": {"inside": POOL, "other": other}}}
    device.install("0", device.container("one", IDLE, network=pooled()), device=network)
    device.boot()
    device.run("one")
    rules = process.run(["nft", "list", "ruleset"], purpose="reading the rules", timeout_s=20).stdout.decode()
    assert 'ip saddr 10.9.3.0/24 oifname != "brpool" masquerade' in rules
    assert 'ip saddr 10.9.4.0/24 oifname != "brother" masquerade' in rules
    assert 'iifname "brpool" oifname "brother" drop' in rules
    assert 'iifname "brother" oifname "brpool" drop' in rules
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"


def test_nat_gives_packets_the_device_s_address(device: RealDevice) -> None:
    """A server outside sees the address of the device, not that of the container."""
    network = {"network": {"pools": {"inside": POOL}}}
    ip("link", "add", "up0", "type", "veth", "peer", "name", "up1")
    ip("netns", "add", device.name("out"))
    try:
        ip("link", "set", "up1", "netns", device.name("out"))
        ip("addr", "add", "192.0.2.1/24", "dev", "up0")
        ip("link", "set", "up0", "up")
        ip("-n", device.name("out"), "addr", "add", "192.0.2.2/24", "dev", "up1")
        ip("-n", device.name("out"), "link", "set", "up1", "up")
        listen = "import socket; print(socket.create_server(('192.0.2.2', 7)).accept()[1][0], flush=True)"
        server = ["ip", "netns", "exec", device.name("out"), sys.executable, "-c", listen]
        with process.spawn(server, purpose="listening outside", stdout=process.PIPE) as listening:
            call = until("echo hi | nc 192.0.2.2 7")
            device.install("0", device.container("one", call, network=pooled()), device=network)
            device.boot()
            device.run("one")
            listening.wait(30)
            assert listening.stdout is not None
            assert listening.stdout.read() == b"192.0.2.1\n"
    finally:
        ip("netns", "del", device.name("out"))


def test_a_macvlan_container_is_a_neighbour_of_the_parent(device: RealDevice) -> None:
    ip("link", "add", "wire0", "type", "veth", "peer", "name", "wire1")
    ip("link", "set", "wire0", "up")
    ip("link", "set", "wire1", "up")
    ip("addr", "add", "10.9.5.1/24", "dev", "wire1")
    pool = {"type": "macvlan", "parent": "wire0", "subnet": "10.9.5.0/24", "gateway": "10.9.5.1"}
    script = until("ping -c 1 -W 1 10.9.5.1")
    device.install(
        "0", device.container("one", script, network=pooled("lan")), device={"network": {"pools": {"lan": pool}}}
    )
    device.boot()
    device.printed("one", "1 packets received")


def test_host_mode_keeps_the_device_s_network(device: RealDevice) -> None:
    device.install("0", device.container("one", IDLE, network={"mode": "host"}))
    device.boot()
    device.run("one")
    own = Path("/proc/self/ns/net").readlink()
    assert Path(f"/proc/{device.init('one')}/ns/net").readlink() == own
