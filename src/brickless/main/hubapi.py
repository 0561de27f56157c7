"""The hub as the story's operator sees it: over HTTP, as any client does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import httpx

from brickless.core.errors import BricklessError

T = TypeVar("T")
POLL_S = 0.3
# The user metadata by which a device says with whose token it came.
JOINED_AS = "lab.joined-as"
NOT_FOUND = 404
FINAL = frozenset({"DONE", "UPDATED", "WONTGO", "ERROR"})


class HubError(BricklessError):
    """The hub did not answer as agreed, or not in time; `status` is that of its HTTP answer, 0 without one."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        """Keep the status beside the text."""
        super().__init__(message)
        self.status = status


class Device(NamedTuple):
    """A device as the hub knows it."""

    id: str
    nick: str


class Step(NamedTuple):
    """A step of a device's trail: its number, status, and what the device said."""

    rev: int
    status: str
    message: str
    logs: str

    @property
    def is_final(self) -> bool:
        """Whether the device is done with it."""
        return self.status in FINAL


class HubApi:
    """A logged-in user of a hub."""

    def __init__(self, url: str, nick: str, password: str) -> None:
        """Log in. Raises `HubError`."""
        self.url = url
        self.nick = nick
        self.password = password
        self._client = httpx.Client(base_url=url, timeout=30.0, trust_env=False)
        answer = self.call("POST", "/auth/login", {"username": nick, "password": password})
        self._client.headers["Authorization"] = f"Bearer {answer['token']}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One request and its answer as JSON. Raises `HubError` that has the hub's words."""
        try:
            response = self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise HubError(f"the hub at {self.url} does not answer {method} {path}: {error}") from error
        if response.status_code != 200:
            said = response.text[:500]
            raise HubError(
                f"the hub answered {response.status_code} to {method} {path}: {said}", status=response.status_code
            )
        return response.json()

    def join_token(self, nick: str) -> str:
        """A token that makes us the owner of a device at its registration, and tells us which device it is."""
        asked = {"nick": nick, "default-user-meta": {JOINED_AS: nick}}
        return str(self.call("POST", "/devices/tokens", asked)["token"])

    def wait_for_device(self, nick: str, timeout_s: float) -> Device:
        """Our device that joined with the token of that name."""

        def found() -> Device | None:
            listed = self.call("GET", "/devices/")
            joined = (one for one in listed if (one.get("user-meta") or {}).get(JOINED_AS) == nick)
            return next((Device(one["id"], one["nick"]) for one in joined), None)

        return wait_until(found, timeout_s, f"the device {nick} registers itself at the hub")

    def rename(self, device: Device, nick: str) -> Device:
        """Give it a name for people."""
        self.call("PATCH", f"/devices/{device.id}", {"nick": nick})
        return device._replace(nick=nick)

    def step(self, device: Device, rev: int) -> Step | None:
        """One step of its trail, None when there is none of that number (the factory revision comes late, too)."""
        try:
            found = self.call("GET", f"/trails/{device.id}/steps/{rev}")
        except HubError as error:
            if error.status == NOT_FOUND:
                return None
            raise
        progress = found.get("progress") or {}
        logs = str(progress.get("logs") or progress.get("log") or "")
        return Step(rev, str(progress.get("status", "")), str(progress.get("status-msg", "")), logs)

    def wait_for_step(self, device: Device, rev: int, timeout_s: float) -> Step:
        """The step once it is final."""

        def final() -> Step | None:
            step = self.step(device, rev)
            return step if step is not None and step.is_final else None

        return wait_until(final, timeout_s, f"{device.nick} is done with revision {rev}")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def wait_until(found: Callable[[], T | None], timeout_s: float, what: str) -> T:
    """Ask again and again until there is an answer, for what nobody announces. Raises `HubError` after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    pause = threading.Event()
    while True:
        answer = found()
        if answer is not None:
            return answer
        if time.monotonic() > deadline_s:
            raise HubError(f"it did not happen within {timeout_s:g} s that {what}")
        pause.wait(POLL_S)
