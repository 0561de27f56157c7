"""`pvr app`: the group of the commands that turn images into containers (pvr.md 1.8 and 4)."""

from __future__ import annotations

from types import MappingProxyType

import click

from brickless.pvr.cli import Entry, Group

_HERE = "brickless.pvr.commands.app_"
COMMANDS = MappingProxyType(
    {
        "add": Entry(_HERE + "add", ("aa", "ao"), "Make an app from an image, a root file system or another state."),
        "update": Entry(_HERE + "update", ("au",), "Take the newest image that an app tracks, or another one."),
        "install": Entry(_HERE + "install", ("ai",), "Render an app's files anew; build its root if it is missing."),
        "rm": Entry(_HERE + "rm", ("r",), "Remove an app."),
        "ls": Entry(_HERE + "ls", ("l",), "List the apps."),
        "info": Entry(_HERE + "info", ("i",), "Show how an app was made."),
    }
)


@click.command(cls=Group, name="app", registry=COMMANDS, example="pvr app add web --from nginx:1.27 --group app")
def command() -> None:
    """Containers: from Docker and OCI images, root file systems and other states. Needs no root and no daemon."""
