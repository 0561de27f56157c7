"""`pvr fakeroot`: run a program as if it were root's, for build systems that expect the command."""

from __future__ import annotations

import os
import shutil

from brickless.pvr import cli
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError


@cli.command("fakeroot", example="pvr fakeroot -- tar -xf rootfs.tar -C root")
@argument("words", metavar="PROGRAM [ARGUMENT]...", nargs=-1)
@option("--with", "tool", envvar="FAKEROOT_CMD", default="fakeroot", show_default=True, help="The program that fakes.")
def command(env: Env, words: tuple[str, ...], tool: str) -> None:
    """Run PROGRAM under fakeroot. `pvr app` itself needs neither root nor fakeroot: owners are kept without."""
    if not words:
        raise CommandError(2, "Which program?", hint="pvr fakeroot -- PROGRAM [ARGUMENT]...")
    path = shutil.which(tool)
    if path is None:
        raise CommandError(
            3, f"There is no program {tool} here.", hint="apt-get install fakeroot, or set FAKEROOT_CMD."
        )
    env.trace(f"{path} {' '.join(words)}")
    os.execv(path, [tool, *words])  # noqa: S606 - becoming the program is what the command is for
