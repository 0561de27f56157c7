"""`pvr device`: the group of the device commands (pvr.md 1.5)."""

from __future__ import annotations

from types import MappingProxyType

import click

from brickless.pvr.cli import Entry, Group

_HERE = "brickless.pvr.commands.device_"
COMMANDS = MappingProxyType(
    {
        "ps": Entry(_HERE + "ps", ("ls",), "List your devices: revision, status, when they were seen."),
        "get": Entry(_HERE + "get", (), "Print one device."),
        "set": Entry(_HERE + "set", ("se",), "Set or remove metadata of a device."),
        "logs": Entry(_HERE + "logs", ("log",), "Follow the logs of devices."),
        "create": Entry(_HERE + "create", ("cr",), "Make a device on the hub with this state as its factory state."),
        "scan": Entry(_HERE + "scan", (), "Find devices in the local network."),
        "tokens": Entry(_HERE + "tokens", (), "Factory tokens: devices that become yours by themselves."),
        "delete": Entry(_HERE + "delete", (), "Delete a device on the hub."),
    }
)


@click.command(cls=Group, name="device", registry=COMMANDS, example="pvr device ps")
def command() -> None:
    """Devices on the hub and in the local network."""
