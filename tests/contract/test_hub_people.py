"""Profiles, the change feed and the account's overview (contract hub.md sections 6.3, 6.5 and 6.8)."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, claimed_device, post_revision


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, hub_storage: Any) -> Iterator[HubProcess]:
    data_dir = str(tmp_path_factory.mktemp("hub") / "data")
    with running_hub(
        data_dir, arguments=[*hub_storage.arguments, "--no-rate-limits"], environment=hub_storage.environment
    ) as running:
        yield running


@pytest.fixture
def user(hub: HubProcess) -> Iterator[Caller]:
    with httpx.Client(base_url=hub.url) as client:
        yield Caller(client).login("user1", "user1")


def png(width: int, height: int, size: int = 100) -> str:
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + bytes(size)
    return base64.b64encode(data).decode()


class TestProfiles:
    def test_ones_own(self, user: Caller) -> None:
        changed = user.put("/profiles/", {"fullName": "User <One>", "picture": png(8, 8)}).json()
        assert (changed["nick"], changed["fullName"], changed["bio"]) == ("user1", "User <One>", "")
        assert changed["picture"].startswith("data:image/png;base64,")
        kept = user.put("/profiles/", {"bio": "more"}).json()
        assert (kept["fullName"], kept["bio"]) == ("User <One>", "more")
        assert user.get("/profiles/user1").json() == kept
        assert list(kept)[:3] == ["nick", "email", "fullName"]

    @pytest.mark.parametrize(
        "picture",
        ["!!", png(8, 9), png(0, 0), base64.b64encode(b"GIF89a").decode(), "data:image/png", png(8, 8, 1_000_000)],
    )
    def test_what_is_no_picture(self, user: Caller, picture: str) -> None:
        assert user.put("/profiles/", {"picture": picture}).status_code == 412

    def test_strangers_see_profiles_of_publishers_only(self, user: Caller) -> None:
        other = Caller(user.client).login("user2", "user2")
        other.put("/profiles/", {"bio": "publishes"})
        other.put("/profiles/config/meta", {"wifi": "secret"})
        assert user.get("/profiles/user2").status_code == 404
        assert [profile["nick"] for profile in user.get("/profiles/?nick=^user").json()] == ["user1"]
        device = claimed_device(other)
        other.put(f"/devices/{device.id}/public")
        seen = user.get("/profiles/user2").json()
        assert (seen["bio"], seen["email"], seen["meta"]) == ("publishes", "", {})
        assert [profile["nick"] for profile in user.get("/profiles/?nick=^USER").json()] == ["user1", "user2"]
        assert user.get("/profiles/?nick=^%25").json() == []
        assert user.get(f"/devices/{device.id}").json()["user-meta"] == {}

    def test_account_wide_user_meta_lies_under_the_devices_own(self, user: Caller) -> None:
        device = claimed_device(user)
        meta = f"/devices/{device.id}/user-meta"
        user.put(meta, {"a": "device"})
        assert device.get(meta).json() == {"a": "device"}
        assert user.put("/profiles/config/meta", {"b": "account", "a": "account"}).json() == {
            "a": "account",
            "b": "account",
        }
        assert device.get(meta).json() == {"a": "device", "b": "account"}
        assert user.get(f"/devices/{device.id}").json()["user-meta"] == {"a": "device", "b": "account"}
        user.put("/profiles/config/meta", {})
        assert device.get(meta).json() == {"a": "device"}


class TestChanges:
    def follow(self, user: Caller, link: str) -> list[dict[str, Any]]:
        """Every page from a link on."""
        found: list[dict[str, Any]] = []
        while True:
            page = user.get(link).json()
            if not page["data"]:
                assert page["links"]["next"] == ""
                return found
            found += page["data"]
            link = page["links"]["next"]

    @pytest.mark.parametrize(("kind", "expected"), [("devices", 3), ("trails", 3), ("steps", 6)])
    def test_a_reader_that_follows_sees_everything_once(self, user: Caller, kind: str, expected: int) -> None:
        owner = Caller(user.client).login("user3", "user3")
        start = owner.get("/changes/devices").json()["links"]["prev"].partition("before]=")[2]
        made = [claimed_device(owner).start_trail() for _ in range(3)]
        for device in made:
            post_revision(owner, device.id, {"#spec": SPEC})
        found = self.follow(owner, f"/changes/{kind}?page[size]=2&page[after]={start}")
        assert len(found) == expected
        assert all("garbage" not in item or item["garbage"] is False for item in found)
        back = owner.get(f"/changes/{kind}?page[size]=2&page[before]=9999-01-01T00:00:00Z").json()
        assert back["data"] == found[-len(back["data"]) :]
        assert len(back["data"]) >= 2

    @pytest.mark.parametrize("query", ["page[size]=x", "page[after]=yesterday", "page[before]=1"])
    def test_what_is_malformed(self, user: Caller, query: str) -> None:
        assert user.get(f"/changes/devices?{query}").status_code == 400

    def test_devices_do_not_follow(self, user: Caller) -> None:
        assert claimed_device(user).get("/changes/steps").status_code == 400


def test_the_overview(user: Caller) -> None:
    devices = [claimed_device(user).start_trail() for _ in range(6)]
    user.upload(bytes(1024 * 1024))
    post_revision(user, devices[0].id, {"#spec": SPEC})
    devices[0].put(f"/trails/{devices[0].id}/steps/1/progress", {"status": "ERROR", "status-msg": "no space"})
    found = user.get("/dash/").json()
    assert found["prn"] == user.claims["prn"]
    assert len(found["top-devices"]) == 5
    assert list(devices[1].get("/dash/").json()) == ["prn", "nick"]
    first = found["top-devices"][0]
    assert (first["device-id"], first["status"], first["message"]) == (devices[0].id, "ERROR", "no space")
    stats = found["subscription"]["quota-stats"]
    assert stats["DEVICES"]["Actual"] >= 6
    assert stats["OBJECTS"]["Actual"] >= 1 / 1024
