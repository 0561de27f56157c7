"""The arguments of QEMU: what the guest gets, and that it gets no way out."""

from __future__ import annotations

from pathlib import Path

from brickless.twin.console import Console
from brickless.twin.qemu import Boot, Forward, Hardware, Machine, Service


def test_the_guest_has_no_way_out_but_what_is_named(tmp_path: Path) -> None:
    console = Console(tmp_path / "console.log")
    machine = Machine(
        Boot(Path("kernel"), Path("initrd"), "quiet"),
        console,
        disk=Path("/data/a,b.img"),
        hardware=Hardware(memory_mb=96),
        forwards=[Forward(8081, 80)],
        services=[Service(12366, 40001)],
    )
    arguments = machine.arguments(5)
    console.close()
    network = arguments[arguments.index("-netdev") + 1]
    assert "restrict=on" in network
    assert "hostfwd=tcp:127.0.0.1:8081-:80" in network
    assert "guestfwd=tcp:10.0.2.100:12366-cmd:" in network
    assert network.endswith("TCP:127.0.0.1:40001")
    assert any("file=/data/a,,b.img" in one for one in arguments), "a comma in a file name is no option"
    assert arguments[arguments.index("-m") + 1] == "96"
    assert "-no-reboot" in arguments
