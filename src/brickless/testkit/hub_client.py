"""Callers of a hub as tests need them: a person, a device, nobody. Plain HTTP, nothing of the hub's own code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import httpx

SPEC = "pantavisor-service-system@1"
USER_AGENT = "Pantavisor/2 (Linux; x86_64) PV/027 Date/20250101"


def sha256(data: bytes) -> str:
    """The name of an object."""
    return hashlib.sha256(data).hexdigest()


class Caller:
    """Somebody who calls a hub, with a token or without one."""

    def __init__(self, client: httpx.Client, token: str = "") -> None:
        self.client = client
        self.token = token

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx.Response:
        """One request; `body` goes as JSON, `content` as it is."""
        sent = {"User-Agent": USER_AGENT, **(headers or {})}
        if self.token:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        if body is not None:
            content = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        return self.client.request(method, path, content=content, headers=sent)

    def get(self, path: str, **options: Any) -> httpx.Response:
        """GET."""
        return self.call("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """POST."""
        return self.call("POST", path, body, **options)

    def put(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """PUT."""
        return self.call("PUT", path, body, **options)

    def patch(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """PATCH."""
        return self.call("PATCH", path, body, **options)

    def delete(self, path: str, **options: Any) -> httpx.Response:
        """DELETE."""
        return self.call("DELETE", path, **options)

    def login(self, username: str, password: str, **more: str) -> Caller:
        """The same connection with the token of a name and password."""
        answer = self.post("/auth/login", {"username": username, "password": password, **more})
        answer.raise_for_status()
        return Caller(self.client, answer.json()["token"])

    @property
    def claims(self) -> dict[str, Any]:
        """What the token says."""
        found: dict[str, Any] = self.get("/auth/auth_status").json()
        return found

    def upload(self, data: bytes, name: str = "file") -> str:
        """Announce and upload an object as clients do; returns its SHA-256."""
        sha = sha256(data)
        body = {"objectname": name, "size": str(len(data)), "sha256sum": sha, "mime-type": "application/octet-stream"}
        announced = self.post("/objects/", body)
        if announced.status_code == 409:
            return sha
        announced.raise_for_status()
        self.client.put(announced.json()["signed-puturl"], content=data).raise_for_status()
        return sha


class DeviceCaller(Caller):
    """A device with its id and secret."""

    def __init__(self, client: httpx.Client, record: Mapping[str, Any], token: str = "") -> None:
        super().__init__(client, token)
        self.id: str = record["id"]
        self.prn: str = record["prn"]
        self.secret: str = record["secret"]
        self.challenge: str = record.get("challenge", "")

    def logged_in(self) -> DeviceCaller:
        """The device with a fresh token."""
        self.token = self.login(self.prn, self.secret).token
        return self

    def start_trail(self, state: Mapping[str, Any] | None = None) -> DeviceCaller:
        """Hand in the factory state."""
        self.post("/trails/", dict(state or {"#spec": SPEC})).raise_for_status()
        return self


def claimed_device(owner: Caller, **fields: Any) -> DeviceCaller:
    """A new device that `owner` has claimed and that is logged in."""
    nobody = Caller(owner.client)
    answer = nobody.post("/devices/", fields or None)
    answer.raise_for_status()
    device = DeviceCaller(owner.client, answer.json())
    owner.put(f"/devices/{device.id}?challenge={device.challenge}").raise_for_status()
    return device.logged_in()


def post_revision(poster: Caller, trail_id: str, state: Mapping[str, Any], *, rev: int = -1) -> dict[str, Any]:
    """Post a state and return the step."""
    answer = poster.post(f"/trails/{trail_id}/steps", {"rev": rev, "commit-msg": "test", "state": dict(state)})
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found
