"""`pvr completion`: a script that lets a shell complete pvr's commands and flags."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from brickless.pvr import cli
from brickless.pvr.cli import argument
from brickless.pvr.env import Env


@cli.command("completion", example='eval "$(pvr completion bash)"')
@argument("shell", type=click.Choice(["bash", "zsh", "fish"]), default="bash")
def command(env: Env, shell: str) -> None:
    """Print the completion script for a shell; load it from the shell's start-up file."""
    from brickless.pvr.root import root

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click knows the three of the choice
    made = kind(root, {}, "pvr", "_PVR_COMPLETE")
    script = made.source_template % made.source_vars()
    env.result({"shell": shell, "script": script}, [script, ""])
