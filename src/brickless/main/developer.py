"""The developer of the story: works with our own `pvr`, started as people start it."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from brickless.core.errors import BricklessError
from brickless.linux import process
from brickless.main.hubapi import HubApi
from brickless.main.talk import Talk

TIMEOUT_S = 300.0
POSTED = re.compile(r"Successfully posted Revision (\d+)")


class Developer:
    """Runs `pvr` in a folder, as a user of a hub."""

    def __init__(self, folder: Path, api: HubApi, talk: Talk) -> None:
        """`folder` holds the clones and what pvr remembers."""
        self.folder = folder
        self.talk = talk
        folder.mkdir(parents=True, exist_ok=True)
        self._program = Path(sys.executable).with_name("pvr")
        if not self._program.exists():
            raise BricklessError(f"there is no pvr beside {sys.executable}", hint="Run `make setup`.")
        self.environment = {
            "HOME": str(folder),
            "PVR_CONFIG_DIR": str(folder / "config"),
            "PVR_BASEURL": api.url,
            "PVR_REPO_BASEURL": api.url,
            "PVR_USERNAME": api.nick,
            "PVR_PASSWORD": api.password,
        }

    def pvr(self, *arguments: str, cwd: Path | None = None) -> str:
        """Run one command and return all it said. Raises `process.ProcessError` with its words when it fails."""
        self.talk.say(f"$ {shlex.join(('pvr', *arguments))}")
        done = process.run(
            [str(self._program), *arguments],
            purpose=f"pvr {arguments[0]}",
            timeout_s=TIMEOUT_S,
            env=self.environment,
            cwd=str(cwd or self.folder),
        )
        return (done.stdout + done.stderr).decode("utf-8", "replace")

    def clone(self, device: str, user: str) -> Path:
        """A working copy of what a device runs."""
        target = self.folder / device
        self.pvr("clone", f"{user}/{device}", str(target))
        return target

    def commit(self, repository: Path, message: str) -> None:
        """Take all that changed, new files too."""
        self.pvr("add", ".", cwd=repository)
        self.pvr("commit", "-m", message, cwd=repository)

    def post(self, repository: Path, message: str) -> int:
        """Hand it to the hub; returns the number of the new revision."""
        said = self.pvr("post", "-m", message, cwd=repository)
        found = POSTED.search(said)
        if found is None:
            raise BricklessError(f"pvr post did not say which revision it posted: {said!r}")
        return int(found.group(1))
