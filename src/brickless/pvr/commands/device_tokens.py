"""`pvr device tokens`: the group of the factory tokens' commands."""

from __future__ import annotations

from types import MappingProxyType

import click

from brickless.pvr.cli import Entry, Group

_HERE = "brickless.pvr.commands.device_tokens_"
COMMANDS = MappingProxyType(
    {
        "ls": Entry(_HERE + "ls", ("list",), "List your tokens, without their secrets."),
        "create": Entry(_HERE + "create", ("cr",), "Make a token; its secret is shown once."),
        "rm": Entry(_HERE + "rm", ("delete",), "Disable a token: no further device becomes yours by it."),
    }
)


@click.command(
    cls=Group, name="tokens", registry=COMMANDS, example="pvr device tokens create line-3 --meta site=hall-3"
)
def command() -> None:
    """Factory tokens: a device that is given one becomes yours when it first reaches the hub, without a claim."""
