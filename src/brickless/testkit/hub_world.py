"""Every route of a hub, called by every kind of caller on fresh targets: what the permission tables are tried with.

The table is a file of lines `METHOD path status...`, one status a caller; people review it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from brickless.testkit.hub_client import SPEC, Caller, DeviceCaller, claimed_device, post_revision, sha256

READ_DEVICES = "prn:pantahub.com:apis:/base/devices.readonly"
CALLERS = ("nobody", "owner", "other", "device", "sibling", "foreign", "session", "anonymous", "admin")
#: Tokens are the permission there (test_hub_wire), or the operator's secret is (test_hub_operations).
ELSEWHERE = (
    "/local-s3/",
    "/s3/",
    "/livez/",
    "/readyz/",
    "/healthz/",
    "/metrics/",
    "/swagger/",
    "/callbacks/",
    "/cron/",
)


def registration(nick: str, kind: str = "confidential") -> dict[str, Any]:
    """An application that may read devices."""
    return {
        "type": kind,
        "nick": nick,
        "redirect_uris": ["https://app.example.com/back"],
        "scopes": [{"id": "devices.readonly", "service": "prn:pantahub.com:apis:/base"}],
    }


class Parts(NamedTuple):
    """What a target has besides its device. A call that needs less gets less: each part costs several requests."""

    fleet: bool = True
    app: bool = True
    tokens: bool = True
    org: bool = True
    hook: bool = True


EVERYTHING = Parts()


def parts_for(key: str) -> Parts:
    """What the route's path or body names."""
    return Parts(
        fleet=" /fleets/" in key,
        app=any(part in key for part in ("{app}", "POST /auth/authorize", "POST /auth/code")),
        tokens="/tokens/{id}" in key,
        org="{org}" in key,
        hook="/webhooks/{id}" in key,
    )


class Target(NamedTuple):
    """Something of the owner's that a call aims at; what `Parts` left out is empty."""

    id: str
    sha: str
    token_id: str
    api_token_id: str
    nick: str
    challenge: str
    org: str
    invitation_id: str
    release: str
    rollout: str
    app: str
    webhook_id: str
    delivery_id: str
    owner_nick: str = "user1"
    owner_prn: str = "prn:pantahub.com:auth:/user1"
    member: str = "user3"


class World:
    """The callers, and fresh targets."""

    _seen: tuple[Target, DeviceCaller] | None = None
    _numbers = count(1)

    def __init__(self, client: httpx.Client) -> None:
        nobody = Caller(client)
        owner = nobody.login("user1", "user1")
        other = nobody.login("user2", "user2")
        scope = "devices.readonly objects.readonly trails.readonly"
        self.owner = owner
        self.member = nobody.login("user3", "user3")
        self.callers: dict[str, Caller] = {
            "nobody": nobody,
            "owner": owner,
            "other": other,
            "sibling": claimed_device(owner).start_trail(),
            "foreign": claimed_device(other).start_trail(),
            "session": Caller(client, nobody.post("/auth/sessions").json()["token"]),
            "anonymous": nobody.login("prn:pantahub.com:auth:/anon", "x", scope=scope),
            "admin": nobody.login("admin", "admin"),
        }
        self.sha = owner.upload(b"in the target's state")

    def seen(self) -> tuple[Target, DeviceCaller]:
        """One target for all calls that change nothing of it."""
        if self._seen is None:
            self._seen = self.target()
        return self._seen

    def fresh_name(self) -> str:
        """A name that nothing has yet: lower-case, at most 20 characters."""
        return f"n{next(self._numbers)}-{secrets.token_hex(4)}"

    def target(self, parts: Parts = EVERYTHING) -> tuple[Target, DeviceCaller]:
        """A fresh target of the owner's, and the device that it is."""
        owner = self.owner
        device = claimed_device(owner).start_trail()
        post_revision(owner, device.id, {"#spec": SPEC, "a": self.sha})
        nick = owner.get(f"/devices/{device.id}").json()["nick"]
        release, rollout = self.fleet(device.id) if parts.fleet else ("", "")
        app_id = owner.post("/apps/", registration(f"app-{device.id[-18:]}")).json()["id"] if parts.app else ""
        return self.named(
            Target(
                device.id, self.sha, *(tokens_of(owner) if parts.tokens else ("", "")), nick, device.challenge,
                *(self.organisation() if parts.org else ("", "")), release, rollout, app_id,
                *(hooked(owner) if parts.hook else ("", "")),
            )
        ), device  # fmt: skip

    def named(self, target: Target) -> Target:
        """The target with the names of its owner and of a member, when they are not the usual ones."""
        return target

    def organisation(self) -> tuple[str, str]:
        """An organisation with a member, and an invitation that is open."""
        org = f"org-{self.fresh_name()}"
        self.owner.post("/orgs/", {"nick": org}).raise_for_status()
        offer = {"email": "somebody@example.com", "role": "viewer"}
        invitation = self.owner.post(f"/orgs/{org}/invitations", offer).json()
        self.member.post("/orgs/accept", {"token": invitation["token"]}).raise_for_status()
        return org, self.owner.post(f"/orgs/{org}/invitations", offer).json()["id"]

    def fleet(self, unique: str) -> tuple[str, str]:
        """A release that no rollout brings, and a rollout of another one, to no device."""
        self.owner.call("PUT", "/fleets/types/board", {}).raise_for_status()
        used, free = (
            self.owner.post(
                "/fleets/releases", {"state": {"#spec": SPEC, "note.json": {name: unique}}, "name": f"{name}-{unique}"}
            ).json()["id"]
            for name in ("used", "free")
        )
        rollout = self.owner.post("/fleets/rollouts", {"release": used, "selector": f"there={unique}"}).json()
        return free, rollout["id"]


def tokens_of(owner: Caller) -> tuple[str, str]:
    """Ids of a join token and of an API token of the owner's."""
    return (
        owner.post("/devices/tokens").json()["id"],
        owner.post("/tokens/", {"scopes": [READ_DEVICES]}).json()["id"],
    )


def hooked(owner: Caller) -> tuple[str, str]:
    """Ids of a webhook of the owner's, which leads nowhere, and of a delivery to it. Few are kept."""
    # The first one belongs to the target that is only read.
    for webhook in owner.get("/webhooks/").json()[1:]:
        owner.delete(f"/webhooks/{webhook['id']}").raise_for_status()
    webhook_id: str = owner.post("/webhooks/", {"url": "https://hook.invalid/"}).json()["id"]
    delivery_id: str = owner.post(f"/webhooks/{webhook_id}/ping").json()["id"]
    return webhook_id, delivery_id


def body_of(key: str, target: Target, fresh: str) -> Any:
    """A body that would succeed for whoever may; `fresh` is a name that nothing has yet."""
    content = sha256(key.encode())
    return {
        "POST /auth/login": {"username": "user1", "password": "user1"},
        "POST /auth/accounts": {"email": f"{fresh}@example.com", "nick": fresh, "password": "password"},
        "POST /auth/recover": {"email": "nobody@example.com"},
        "POST /auth/password": {"token": "x", "password": "y"},
        "PUT /devices/{id}": {"nick": f"put-{fresh}"},
        "PATCH /devices/{id}": {"nick": f"patch-{fresh}"},
        "PUT /devices/{id}/user-meta": {"a": 1},
        "PATCH /devices/{id}/user-meta": {"a": 1},
        "PUT /devices/{id}/device-meta": {"a": 1},
        "PATCH /devices/{id}/device-meta": {"a": 1},
        "POST /trails/": {"#spec": SPEC},
        "POST /trails/{id}/steps": {"rev": -1, "state": {"#spec": SPEC}},
        "PUT /trails/{id}/steps/{rev}/state": {"#spec": SPEC},
        "PUT /trails/{id}/steps/{rev}/progress": {"status": "DONE"},
        "POST /trails/{id}/steps/{rev}/objects": {"objectname": "x", "size": "1", "sha256sum": content},
        "POST /objects/": {"objectname": "x", "size": "1", "sha256sum": content},
        "PUT /objects/{sha}": {"objectname": "x", "owner": target.owner_prn, "sha256sum": target.sha},
        "POST /logs/": {"msg": "x"},
        "POST /tokens/": {"scopes": [READ_DEVICES]},
        "POST /apps/": registration(f"new-{fresh}"),
        "PUT /apps/{app}": registration(""),
        "PUT /subscriptions/admin/subscription": {"subject": target.owner_prn, "plan": "UNLIMITED"},
        "POST /auth/authorize": {"service": target.app, "scopes": READ_DEVICES},
        "POST /auth/code": {"service": target.app, "scopes": READ_DEVICES},
        "POST /auth/token": {"access-code": "x"},
        "POST /webhooks/": {"url": "https://hook.invalid/"},
        "PUT /webhooks/{id}": {"enabled": False},
        "POST /orgs/": {"nick": f"o-{fresh}"},
        "POST /orgs/accept": {"token": "x"},
        "POST /orgs/{org}/invitations": {"email": "somebody@example.com", "role": "viewer"},
        "PUT /orgs/{org}/members/{member}": {"role": "operator"},
        "PATCH /fleets/devices": {"selector": f"there={fresh}", "labels": {"a": "b"}},
        "PATCH /fleets/devices/{id}/labels": {"a": "b"},
        "PUT /fleets/types/{name}": {},
        "POST /fleets/releases": {"state": {"#spec": SPEC, "note.json": {"made": fresh}}},
        "POST /fleets/rollouts": {"release": target.release, "selector": f"there={fresh}"},
        "POST /fleets/preview": {"release": target.release, "selector": f"there={fresh}"},
        "POST /logs/cursor": {"next-cursor": "x"},
        "PUT /trails/{id}/steps/{rev}/meta": {"a": 1},
    }.get(key)


def routes(client: httpx.Client) -> list[str]:
    """`METHOD path` of everything that the hub says it serves."""
    paths = client.get("/swagger/doc.json").json()["paths"]
    return [
        f"{method.upper()} {path}"
        for path, methods in paths.items()
        for method in methods
        if not path.startswith(ELSEWHERE)
    ]


def status(world: World, key: str, name: str, *, changes: bool = True) -> int:
    """What the caller of this name gets for the route.

    On a fresh target when the call may change one: `changes` says that it is expected to succeed.
    """
    seen = world.seen()  # before any other, see `hooked`
    spares = not changes or key.startswith("GET ") or "{" not in key
    target, device = seen if spares else world.target(parts_for(key))
    caller = device if name == "device" else world.callers[name]
    method, _, path = key.partition(" ")
    record = target.id
    if "/invitations/" in path:
        record = target.invitation_id
    elif path.startswith("/webhooks/"):
        record = target.webhook_id
    elif "/tokens/" in path:
        record = target.token_id if path.startswith("/devices/") else target.api_token_id
    for field, value in (
        ("{id}", record),
        ("{rev}", "1"),
        ("{sha}", target.sha),
        ("{user}", target.owner_nick),
        ("{owner}", target.owner_nick),
        ("{filename}", "a.tar"),
        ("{org}", target.org),
        ("{app}", target.app),
        ("{delivery}", target.delivery_id),
        ("{member}", target.member),
        ("{device}", target.nick),
        ("{release}", target.release),
        ("{rollout}", target.rollout),
        ("{name}", "board"),
    ):
        path = path.replace(field, value)
    if key == "GET /trails/{id}/steps/{rev}/.pvrremote":
        path = f"/trails/{target.id}/steps/1/.pvrremote"
    if key == "GET /logs/live":
        path += f"?dev={target.id}"
    if key in {"GET /events/", "GET /logs/live"}:  # never end by themselves
        headers = {"Authorization": f"Bearer {caller.token}"} if caller.token else {}
        with caller.client.stream(method, path, headers=headers) as answer:
            return answer.status_code
    return caller.call(method, path, body_of(key, target, world.fresh_name())).status_code


def table(path: Path) -> dict[str, dict[str, int]]:
    """The reviewed table: by `METHOD path` and caller, the status. Raises ValueError when its columns are others."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    names = lines[0].split()[2:]
    if tuple(names) != CALLERS:
        raise ValueError(f"{path}: the columns are {names}, not {CALLERS}")
    cells = (line.split() for line in lines[1:])
    return {f"{method} {path}": dict(zip(names, map(int, statuses), strict=True)) for method, path, *statuses in cells}


def describe(ask: Callable[[str, str], int], keys: list[str]) -> str:
    """The table as text, for when a route is added: `python -c` with this function and `status`, then review."""
    lines = [f"{'METHOD':6} {'PATH':46} " + " ".join(f"{name:9}" for name in CALLERS)]
    for key in keys:
        method, _, path = key.partition(" ")
        lines.append(f"{method:6} {path:46} " + " ".join(f"{ask(key, name):<9}" for name in CALLERS))
    return "\n".join(line.rstrip() for line in lines) + "\n"
