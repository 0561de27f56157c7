"""`pvr manpages`: write the manual pages."""

from __future__ import annotations

import os

from brickless.pvr import cli
from brickless.pvr.cli import argument
from brickless.pvr.env import Env


@cli.command("manpages", example="pvr manpages /usr/local/share/man/man1 && man pvr-commit")
@argument("directory", metavar="DIRECTORY")
def command(env: Env, directory: str) -> None:
    """Write a manual page for every command into DIRECTORY, made from the same text as --help."""
    from brickless.pvr import manpages
    from brickless.pvr.root import root
    from brickless.pvr.version import version

    names = manpages.write_all(root, os.path.join(env.directory, directory), version=version())
    env.result({"directory": directory, "pages": names}, [f"{len(names)} pages written to {directory}"])
