"""Personal API tokens: what they allow, and what no token ever does (contract hub.md sections 6.2 and 11.3)."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import Caller, claimed_device

BASE = "prn:pantahub.com:apis:/base/"
READ = [BASE + "devices.readonly"]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, hub_storage: Any) -> Iterator[HubProcess]:
    data_dir = str(tmp_path_factory.mktemp("hub") / "data")
    with running_hub(
        data_dir, arguments=[*hub_storage.arguments, "--no-rate-limits"], environment=hub_storage.environment
    ) as running:
        yield running


@pytest.fixture
def nobody(hub: HubProcess) -> Iterator[Caller]:
    with httpx.Client(base_url=hub.url) as client:
        yield Caller(client)


@pytest.fixture
def user(nobody: Caller) -> Caller:
    return nobody.login("user1", "user1")


def create(user: Caller, **fields: Any) -> dict[str, Any]:
    answer = user.post("/tokens/", {"scopes": READ, **fields})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def is_refused(caller: Caller, name: str, password: str) -> bool:
    return caller.post("/auth/login", {"username": name, "password": password}).status_code == 401


def test_a_token_logs_in_by_its_name_or_its_owners(nobody: Caller, user: Caller) -> None:
    token = create(user, name="ci")
    assert (token["type"], token["scopes"], token["owner"]) == ("SESSION", READ, user.claims["prn"])
    for name in ("ci", "user1", "no-reply-user1@accounts.pantahub.com"):
        program = nobody.login(name, token["secret"])
        claims = program.claims
        assert (claims["id"], claims["nick"], claims["prn"]) == (name, "ci", user.claims["prn"])
        assert (claims["type"], claims["roles"], claims["scopes"]) == ("SESSION", "session", READ[0])
        assert claims["exp"] - claims["orig_iat"] == 300
        assert program.get("/devices/").status_code == 200
        assert program.post("/devices/", {}).status_code == 403
        assert program.post("/tokens/", {"scopes": READ}).status_code == 403


def test_it_is_shown_once_and_listed_without_its_secret(nobody: Caller, user: Caller) -> None:
    token = create(user)
    assert token["name"].count("_") == 2
    listed = user.get("/tokens/?page[size]=1000").json()
    assert token["id"] in {item["id"] for item in listed["items"]}
    assert token["secret"] not in str(listed)
    assert listed["items"][-1]["parse-scopes"][0]["id"] == "devices.readonly"
    assert "secret" not in user.get(f"/tokens/{token['id']}").json()
    other = nobody.login("user2", "user2")
    assert other.get(f"/tokens/{token['id']}").status_code == 403
    assert other.delete(f"/tokens/{token['id']}").status_code == 403


def test_pages(nobody: Caller) -> None:
    user = nobody.login("user3", "user3")
    for _ in range(5):
        create(user)
    first = user.get("/tokens/?page[size]=2").json()
    assert (first["total"], len(first["items"]), first["current_page"]) == (5, 2, 1)
    second = user.get(first["next"]).json()
    assert not {item["id"] for item in first["items"]} & {item["id"] for item in second["items"]}


def test_a_deleted_token_ends_at_once_also_for_refreshes(nobody: Caller, user: Caller) -> None:
    token = create(user)
    program = nobody.login(token["name"], token["secret"])
    assert program.get("/auth/login").status_code == 200
    assert user.delete(f"/tokens/{token['id']}").json() == {"success": True}
    assert is_refused(nobody, token["name"], token["secret"])
    assert program.get("/auth/login").status_code == 401


def test_knowing_an_id_is_not_knowing_a_token(nobody: Caller, user: Caller) -> None:
    token = create(user)
    for secret in ("x", "", "0" * 16):
        forged = base64.urlsafe_b64encode(f"{token['id']}:{secret}".encode()).decode().rstrip("=")
        assert is_refused(nobody, token["name"], forged)
        device = nobody.post("/devices/", {"secret": forged}).json()
        assert nobody.login(device["prn"], forged).claims["owner"] == ""
        body = {"email": f"{device['id']}@example.com", "nick": f"n{device['id'][-12:]}", "password": forged}
        if nobody.post("/auth/accounts", body).status_code == 200:
            assert nobody.login(body["nick"], forged).claims["nick"] == body["nick"]
    assert is_refused(nobody, "user2", token["secret"])
    assert is_refused(nobody, "", token["secret"])


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "ADMIN"}, {"type": "SERVICE"}, {"type": "CLIENT"}, {"type": "DEVICE"}, {"scopes": []},
        {"scopes": "all"},
        {"scopes": ["all"]}, {"scopes": [BASE + "everything"]}, {"scopes": [1]}, {"expire-at": "yesterday"},
        {"expire-at": "2001-01-01T00:00:00Z"}, {"name": "x" * 101},
    ],
)  # fmt: skip
def test_what_no_token_is(user: Caller, fields: dict[str, Any]) -> None:
    assert user.post("/tokens/", {"scopes": READ, **fields}).status_code == 400


def test_a_name_is_taken_once(user: Caller) -> None:
    create(user, name="taken")
    answer = user.post("/tokens/", {"name": "taken", "scopes": READ})
    assert (answer.status_code, answer.json()["msg"]) == (409, "token name is already taken")


def test_a_narrow_login_makes_no_wide_token(nobody: Caller) -> None:
    narrow = nobody.login("user1", "user1", scope="devices.readonly")
    assert narrow.post("/tokens/", {"scopes": [BASE + "all"]}).status_code == 403
    assert narrow.post("/tokens/", {"scopes": READ}).status_code == 200


def test_a_deleted_device_refreshes_no_token(nobody: Caller, user: Caller) -> None:
    device = claimed_device(user)
    assert device.get("/auth/login").status_code == 200
    user.delete(f"/devices/{device.id}")
    assert device.get("/auth/login").status_code == 401
