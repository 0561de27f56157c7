"""Emulated devices for a walk-through: `python -m brickless.testkit.fleet_agents --count 5 --folder devices`.

Each is the real agent as a process, with storage in a folder and a supervisor that plays a trial: well, or, for a
revision that has a file `web/broken`, badly. They join the account of BRICKLESS_USER at BRICKLESS_HUB, are named
device-1, device-2 and so on, and run until this process is ended.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from brickless.core.progress import Message, Progress, Status
from brickless.testkit.agent import SUCCESS, ScriptedSupervisor, SimulatedDevice

_POLL_S = 0.5
_FAILURE = (
    Progress.of(Status.INPROGRESS, Message.TRANSITIONING),
    Progress.of(Status.ERROR, Message.CONTAINER_FAILED),
)


class Supervisor(ScriptedSupervisor):
    """Runs nothing; a revision with a file `web/broken` fails its trial."""

    def _try(self, rev: str) -> None:
        broken = Path(self._storage.revision_dir(rev), "web", "broken").exists()
        self.script = _FAILURE if broken else SUCCESS
        super()._try(rev)


class Hub:
    """The account that the devices join."""

    def __init__(self, stop: threading.Event) -> None:
        self.url = os.environ.get("BRICKLESS_HUB", "http://127.0.0.1:12365")
        self._stop = stop
        self._client = httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    def login(self) -> None:
        """Log in, once the hub answers."""
        while not self._stop.is_set():
            try:
                self._client.get("/readyz/").raise_for_status()
                break
            except httpx.HTTPError:
                self._stop.wait(_POLL_S)
        body = {"username": os.environ["BRICKLESS_USER"], "password": os.environ["BRICKLESS_PASSWORD"]}
        token = self.call("POST", "/auth/login", body)["token"]
        self._client.headers["Authorization"] = f"Bearer {token}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One request; raises httpx's errors."""
        return self._client.request(method, path, json=body).raise_for_status().json()

    def join_token(self, name: str) -> str:
        """A token that tells us which device came with it."""
        return str(self.call("POST", "/devices/tokens", {"default-user-meta": {"joined-as": name}})["token"])

    def name(self, name: str) -> None:
        """Give the device that joined with that token its name, once it is there with its first revision."""
        while not self._stop.is_set():
            for one in self.call("GET", "/devices/"):
                if (one.get("user-meta") or {}).get("joined-as") != name:
                    continue
                if self._client.get(f"/trails/{one['id']}/steps/0").is_success:
                    self.call("PATCH", f"/devices/{one['id']}", {"nick": name})
                    return
            self._stop.wait(_POLL_S)


def main() -> int:
    """Run until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="Emulated devices that join an account of a hub.")
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--folder", type=Path, required=True, help="their storage; new")
    options = parser.parse_args()
    stop = threading.Event()
    for which in (signal.SIGTERM, signal.SIGINT):
        signal.signal(which, lambda *_: stop.set())
    hub = Hub(stop)
    hub.login()
    with ExitStack() as running:
        for number in range(1, options.count + 1):
            name = f"device-{number}"
            device = SimulatedDevice(
                options.folder.absolute() / name, url=hub.url, supervisor=Supervisor,
                PH_FACTORY_AUTOTOK=hub.join_token(name),
            )  # fmt: skip
            running.enter_context(device)
            hub.name(name)
            sys.stdout.write(f"{name} is there\n")
            sys.stdout.flush()
        stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
