"""`pvr device scan`: devices in the local network."""

from __future__ import annotations

from brickless.pvr import cli
from brickless.pvr.cli import option
from brickless.pvr.env import Env


@cli.command("scan", example="pvr device scan --seconds 5")
@option("--seconds", type=float, default=15.0, show_default=True, help="How long to listen.")
def command(env: Env, seconds: float) -> None:
    """Ask the local network for devices (mDNS), and show how each is claimed or cloned."""
    from brickless.pvr.dnssd import Device
    from brickless.pvr.scan import scan
    from brickless.pvr.tables import printable

    def tell(device: Device) -> None:
        owned = "(owned)" if not device.challenge else "(unclaimed)"
        lines = [
            f"ID: {device.id} {owned}",
            f"Host: {device.host}",
            f"IPv4: {list(device.ipv4)}",
            f"IPv6: {list(device.ipv6)}",
            f"Port: {device.port}",
        ]
        if device.challenge:
            lines.append(f"Claim Cmd: pvr claim -c {device.challenge} {device.hub}/devices/{device.id}")
        else:
            lines.append(f"PVR Clone: {device.hub}/trails/{device.id}")
        for line in lines:
            env.say(f"\t{printable(line)}")

    found = scan(timeout_s=seconds, found=tell)
    env.say(f"Pantavisor devices detected in network: {len(found)} (see above for details)")
    env.result([device._asdict() for device in found])
