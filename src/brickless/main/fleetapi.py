"""A hub's fleets from Python: labels, device types, releases and rollouts over HTTP.

    with FleetClient("http://127.0.0.1:12365", token=...) as fleet:
        release = fleet.create_release(device="build", fragment="#web", name="web-1.2")
        rollout = fleet.create_rollout(release["name"], "site=lab", name="web-1.2-lab")
        fleet.wait(rollout["name"], timeout_s=3600)

Every call is one row of `OPERATIONS`; tests/contract/test_fleet_client.py holds each of them against the hub's OpenAPI
document: path, method, query and the members of the body.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import IO, Any, NamedTuple
from urllib.parse import quote

import httpx

from brickless.core.errors import BricklessError

_TIMEOUT_S = 60.0
_POLL_S = 1.0
_PAGE = 1000


class FleetError(BricklessError):
    """The hub refused, or did not answer; `status` is that of its answer, 0 without one."""

    def __init__(self, message: str, *, status: int = 0, hint: str = "") -> None:
        """Keep the status beside the text."""
        super().__init__(message, hint=hint)
        self.status = status


class Operation(NamedTuple):
    """One route of the hub: its method, its path as the OpenAPI document names it, and what we may send."""

    method: str
    path: str
    body: frozenset[str] = frozenset()
    query: frozenset[str] = frozenset()


_PAGED = frozenset({"page[after]", "page[size]"})
_DRAFT = frozenset({"release", "selector", "name", "spec"})
OPERATIONS: dict[str, Operation] = {
    "devices": Operation("GET", "/fleets/devices", query=_PAGED | {"selector"}),
    "label_all": Operation("PATCH", "/fleets/devices", frozenset({"selector", "labels"})),
    "labels": Operation("GET", "/fleets/devices/{id}/labels"),
    "label": Operation("PATCH", "/fleets/devices/{id}/labels"),
    "rollouts_of": Operation("GET", "/fleets/devices/{id}/rollouts"),
    "types": Operation("GET", "/fleets/types"),
    "put_type": Operation("PUT", "/fleets/types/{name}", frozenset({"description"})),
    "delete_type": Operation("DELETE", "/fleets/types/{name}"),
    "releases": Operation("GET", "/fleets/releases", query=frozenset({"page[offset]", "page[size]"})),
    "release": Operation("GET", "/fleets/releases/{release}"),
    "create_release": Operation(
        "POST",
        "/fleets/releases",
        frozenset({"device", "revision", "state", "fragment", "name", "note", "types", "allow-unsigned"}),
    ),
    "delete_release": Operation("DELETE", "/fleets/releases/{release}"),
    "rollouts": Operation("GET", "/fleets/rollouts", query=frozenset({"page[offset]", "page[size]"})),
    "rollout": Operation("GET", "/fleets/rollouts/{rollout}"),
    "members": Operation("GET", "/fleets/rollouts/{rollout}/devices", query=_PAGED | {"state"}),
    "preview": Operation("POST", "/fleets/preview", _DRAFT),
    "create_rollout": Operation("POST", "/fleets/rollouts", _DRAFT),
    **{
        name: Operation("POST", f"/fleets/rollouts/{{rollout}}/{name}", frozenset({"reason"}))
        for name in ("pause", "resume", "abort", "finish", "rollback")
    },
}
#: States of a rollout in which nothing more happens by itself.
ENDED = frozenset({"settled", "finished", "stopped", "aborted", "rolled-back"})


class FleetClient:
    """A logged-in user of a hub. Give a bearer token, or a name and a password to log in with."""

    def __init__(self, url: str, *, token: str = "", user: str = "", password: str = "") -> None:
        """Connect. Raises `FleetError` when the login fails."""
        self.url = url.rstrip("/")
        self._client = httpx.Client(base_url=self.url, timeout=_TIMEOUT_S, trust_env=False)
        if not token:
            answer = self.request("POST", "/auth/login", body={"username": user, "password": password})
            token = str(answer["token"])
        self._client.headers["Authorization"] = f"Bearer {token}"

    def __enter__(self) -> FleetClient:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def request(self, method: str, path: str, *, body: Any = None, query: Mapping[str, str] | None = None) -> Any:
        """One request and its answer as JSON. Raises `FleetError` with the hub's own words."""
        try:
            response = self._client.request(method, path, json=body, params=dict(query or {}))
        except httpx.HTTPError as error:
            raise FleetError(f"the hub at {self.url} does not answer: {error}", hint="Is it running?") from error
        if response.status_code != 200:
            raise FleetError(_said(response), status=response.status_code)
        return response.json()

    def _do(
        self,
        name: str,
        places: Mapping[str, str] | None = None,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
    ) -> Any:
        operation = OPERATIONS[name]
        path = operation.path
        for place, value in (places or {}).items():
            path = path.replace(f"{{{place}}}", quote(value, safe=""))
        sent = {} if body is None and operation.method in {"POST", "PUT", "PATCH"} else body
        return self.request(operation.method, path, body=sent, query=query)

    def hand_in(self, sha: str, size_bytes: int, opened: Callable[[], IO[bytes] | None]) -> None:
        """Hand an object in, unless the account has it already."""
        asked = {"objectname": sha, "size": str(size_bytes), "sha256sum": sha}
        response = self._client.post("/objects/", json=asked)
        if response.status_code == httpx.codes.CONFLICT:
            return
        if response.status_code != httpx.codes.OK:
            raise FleetError(_said(response), status=response.status_code)
        stream = opened()
        put = self._client.put(
            response.json()["signed-puturl"], content=stream, headers={"Content-Length": str(size_bytes)}
        )
        if put.status_code != httpx.codes.OK:
            raise FleetError(f"the object {sha}: {_said(put)}", status=put.status_code)

    # -- labels and types --------------------------------------------------------------------------------------------

    def devices(self, selector: str = "*") -> list[dict[str, Any]]:
        """Every device that the selector matches, with its labels."""
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            query = {"selector": selector, "page[size]": str(_PAGE), "page[after]": after}
            page = self._do("devices", query=query)
            found += page
            if len(page) < _PAGE:
                return found
            after = page[-1]["nick"]

    def labels(self, device: str) -> dict[str, str]:
        """The labels of a device, by id or nick."""
        return dict(self._do("labels", {"id": device}))

    def label(self, device: str, changes: Mapping[str, str | None]) -> dict[str, str]:
        """Set labels of a device; None removes one. Answers all of them."""
        return dict(self._do("label", {"id": device}, body=dict(changes)))

    def label_all(self, selector: str, changes: Mapping[str, str | None]) -> list[str]:
        """Set labels of every device that the selector matches; answers the ids of those that changed."""
        return list(self._do("label_all", body={"selector": selector, "labels": dict(changes)})["changed"])

    def types(self) -> list[dict[str, Any]]:
        """Device types."""
        return list(self._do("types"))

    def put_type(self, name: str, description: str) -> dict[str, Any]:
        """Make or change a device type."""
        return dict(self._do("put_type", {"name": name}, body={"description": description}))

    def delete_type(self, name: str) -> None:
        """Delete a device type."""
        self._do("delete_type", {"name": name})

    # -- releases ----------------------------------------------------------------------------------------------------

    def releases(self) -> list[dict[str, Any]]:
        """Releases, newest first."""
        return self._pages("releases")

    def release(self, name: str) -> dict[str, Any]:
        """One release by name or id."""
        return dict(self._do("release", {"release": name}))

    def create_release(self, **draft: Any) -> dict[str, Any]:
        """Make a release: `device` (and `revision`) or `state`, `fragment`, `name`, `note`, `types`."""
        members = {key.replace("_", "-"): value for key, value in draft.items() if value is not None}
        return dict(self._do("create_release", body=members))

    def delete_release(self, name: str) -> None:
        """Delete a release that no rollout brings."""
        self._do("delete_release", {"release": name})

    # -- rollouts ----------------------------------------------------------------------------------------------------

    def rollouts(self) -> list[dict[str, Any]]:
        """Rollouts, newest first."""
        return self._pages("rollouts")

    def rollout(self, name: str) -> dict[str, Any]:
        """One rollout by name or id, with its counts."""
        return dict(self._do("rollout", {"rollout": name}))

    def members(self, rollout: str, state: str = "") -> list[dict[str, Any]]:
        """Every device of a rollout, or those in a state."""
        found: list[dict[str, Any]] = []
        query = {"page[size]": str(_PAGE), **({"state": state} if state else {})}
        while True:
            page = self._do("members", {"rollout": rollout}, query=query)
            found += page
            if len(page) < _PAGE:
                return found
            query["page[after]"] = page[-1]["device"]

    def rollouts_of(self, device: str) -> list[dict[str, Any]]:
        """A device in all its rollouts; by id."""
        return list(self._do("rollouts_of", {"id": device}))

    @staticmethod
    def _draft(release: str, selector: str, name: str, spec: Mapping[str, Any] | None) -> dict[str, Any]:
        draft: dict[str, Any] = {"release": release, "selector": selector, "spec": dict(spec or {})}
        return {**draft, "name": name} if name else draft

    def preview(self, release: str, selector: str, *, spec: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What a rollout would do."""
        return dict(self._do("preview", body=self._draft(release, selector, "", spec)))

    def create_rollout(
        self, release: str, selector: str, *, name: str = "", spec: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Begin a rollout."""
        return dict(self._do("create_rollout", body=self._draft(release, selector, name, spec)))

    def act(self, action: str, rollout: str, reason: str = "") -> dict[str, Any]:
        """`pause`, `resume`, `abort`, `finish` or `rollback`."""
        return dict(self._do(action, {"rollout": rollout}, body={"reason": reason} if reason else {}))

    def wait(self, rollout: str, *, timeout_s: float, seen: Any = None) -> dict[str, Any]:
        """The rollout once it has ended and nothing of it is under way. Raises TimeoutError.

        `seen` is called with every answer on the way.
        """
        deadline_s, pause = time.monotonic() + timeout_s, threading.Event()
        while True:
            found = self.rollout(rollout)
            if seen is not None:
                seen(found)
            if found["state"] in ENDED and not under_way(found):
                return found
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"rollout {rollout} is {found['state']} after {timeout_s:g} s: {found['reason']}")
            pause.wait(_POLL_S)

    def _pages(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self._do(name, query={"page[size]": str(_PAGE), "page[offset]": str(len(found))})
            found += page
            if len(page) < _PAGE:
                return found


def under_way(rollout: Mapping[str, Any]) -> int:
    """How many devices of a rollout are not in a final state."""
    counts = rollout["counts"]
    return sum(int(counts[state]) for state in ("waiting", "offered", "updating", "deferred", "going-back"))


def bad(rollout: Mapping[str, Any], states: Iterable[str] = ("failed", "silent", "unfit", "stuck", "expired")) -> int:
    """How many devices ended badly."""
    return sum(int(rollout["counts"][state]) for state in states)


def _said(response: httpx.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        body = {}
    message = body.get("msg") or body.get("Error") if isinstance(body, dict) else ""
    return str(message or f"the hub answered {response.status_code}")
