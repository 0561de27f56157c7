"""A device's local control served by a process of its own, and the tools that ask it, as processes too."""

from __future__ import annotations

import json
import select
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brickless.linux import process

TIMEOUT_S = 60.0
LOOK_S = 0.1


class Device:
    """The process, and commands for it."""

    def __init__(self, root: Path, extra: tuple[str, ...] = (), env: Mapping[str, str] | None = None) -> None:
        """Start it in `root`; `extra` is what `control_server` takes after the folder."""
        self.root = root
        self.socket = root / "pv" / "pv-ctrl"
        self.storage = root / "storage"
        argv = [sys.executable, "-m", "brickless.testkit.control_server", str(root), *extra]
        self.process = process.spawn(
            argv, purpose="the device", stdout=process.PIPE, stderr=sys.stderr.fileno(), env=env, start_new_session=True
        )
        if self.process.stdout is None or self.process.stdout.readline() != b"ready\n":
            raise RuntimeError("the device did not start")

    def tool(self, name: str, *words: str, data: bytes = b"") -> process.Completed:
        """Run one of the tools to its end."""
        env = {"PVTXDIR": str(self.root / "pvtx"), "PVTX_SOCKET": str(self.socket)}
        argv = [sys.executable, "-m", f"brickless.device.control.tools.{name}", *words]
        return process.run(argv, purpose=name, input=data, env=env, timeout_s=TIMEOUT_S, check=False)

    def control(self, *words: str, data: bytes = b"") -> process.Completed:
        """`pvcontrol` with this device's socket."""
        return self.tool("pvcontrol", "-s", str(self.socket), *words, data=data)

    def value(self, *words: str) -> Any:
        """What a command prints, as JSON. Raises RuntimeError when it fails."""
        done = self.control(*words)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)}: {done}")
        return json.loads(done.stdout)

    def wait_for_status(self, rev: str, status: str) -> dict[str, Any]:
        """Its progress, once it has come so far."""
        end_s = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end_s:
            progress: dict[str, Any] = self.value("steps", "show-progress", rev)
            if progress["status"] == status:
                return progress
            select.select([], [], [], LOOK_S)
        raise TimeoutError(f"{rev} is not {status} but {progress}")
