"""The scenarios of contract hub.md section 9.1 (U, D, T, S, O, L) against the real hub, each by its number."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, DeviceCaller, claimed_device, post_revision, sha256

UNKNOWN = "0123456789abcdef01234567"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, hub_storage: Any) -> Iterator[HubProcess]:
    data_dir = str(tmp_path_factory.mktemp("hub") / "data")
    with running_hub(
        data_dir,
        arguments=[*hub_storage.arguments, "--verify-email", "--no-rate-limits"],
        environment=hub_storage.environment,
    ) as running:
        yield running


@pytest.fixture
def nobody(hub: HubProcess) -> Iterator[Caller]:
    with httpx.Client(base_url=hub.url) as client:
        yield Caller(client)


@pytest.fixture
def user(nobody: Caller) -> Caller:
    return nobody.login("user1", "user1")


@pytest.fixture
def device(user: Caller) -> DeviceCaller:
    return claimed_device(user)


@pytest.fixture
def trail(device: DeviceCaller) -> DeviceCaller:
    return device.start_trail()


def account(name: str) -> dict[str, str]:
    return {"email": f"{name}@example.com", "nick": name, "password": "a good password"}


def mailed_link(hub: HubProcess, address: str) -> str:
    for path in sorted(Path(hub.data_dir, "mail").glob("*.eml"), reverse=True):
        message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        if message["To"] == address:
            link = re.search(r"https?://\S+", message.get_content())
            assert link is not None
            return link.group()
    raise AssertionError(f"no mail to {address}")


def is_hub_error(answer: httpx.Response, status: int) -> None:
    """Form 1 of section 7: what clients parse, and no key that the mocker would take for success."""
    body = answer.json()
    assert answer.status_code == status, body
    assert body["code"] == status
    assert re.fullmatch(r"REST-ERR-ID-\d{19}", body["error"])
    assert not {"id", "rev", "token", "prn", "secret"} & set(body)


class TestUsers:
    def test_u1_register_with_all_data(self, nobody: Caller) -> None:
        answer = nobody.post("/auth/accounts", account("registered"))
        assert answer.status_code == 200
        body = answer.json()
        assert (body["nick"], body["email"], body["type"]) == ("registered", "registered@example.com", "USER")
        assert re.fullmatch(r"prn:::accounts:/[0-9a-f]{24}", body["prn"])
        assert not [key for key in body if "password" in key]

    @pytest.mark.parametrize("missing", ["email", "password", "nick"])
    def test_u2_register_without(self, nobody: Caller, missing: str) -> None:
        body = account("incomplete")
        del body[missing]
        is_hub_error(nobody.post("/auth/accounts", body), 412)

    def test_u3_email_is_unique_whatever_its_case(self, nobody: Caller) -> None:
        assert nobody.post("/auth/accounts", account("email-first")).status_code == 200
        twice = account("email-second") | {"email": "EMAIL-FIRST@example.com"}
        answer = nobody.post("/auth/accounts", twice)
        is_hub_error(answer, 412)
        assert answer.json()["msg"] == "Email or Nick already in use"

    def test_u4_nick_is_unique_whatever_its_case(self, nobody: Caller) -> None:
        assert nobody.post("/auth/accounts", account("nick-first")).status_code == 200
        twice = account("nick-first") | {"email": "other@example.com", "nick": "Nick-First"}
        is_hub_error(nobody.post("/auth/accounts", twice), 412)

    def test_u5_verify_account_once(self, hub: HubProcess, nobody: Caller) -> None:
        nobody.post("/auth/accounts", account("verified"))
        link = mailed_link(hub, "verified@example.com")
        assert nobody.get(link).status_code == 200
        is_hub_error(nobody.get(link), 412)

    def test_u6_verify_unknown_account(self, nobody: Caller) -> None:
        is_hub_error(nobody.get(f"/auth/verify?id={UNKNOWN}&challenge=x"), 403)

    def test_u7_login_after_verification_by_nick_email_and_prn(self, hub: HubProcess, nobody: Caller) -> None:
        prn = nobody.post("/auth/accounts", account("login")).json()["prn"]
        credentials = {"username": "login", "password": "a good password"}
        is_login_failure(nobody.post("/auth/login", credentials))
        nobody.get(mailed_link(hub, "login@example.com"))
        for name in ("login", "login@example.com", prn):
            answer = nobody.post("/auth/login", credentials | {"username": name})
            assert answer.status_code == 200
            assert list(answer.json()) == ["token"]
            assert len(answer.json()["token"]) < 1000

    @pytest.mark.parametrize("password", ["wrong", ""])
    def test_u8_login_invalid_or_empty(self, nobody: Caller, password: str) -> None:
        is_login_failure(nobody.post("/auth/login", {"username": "user1", "password": password}))

    def test_u9_refresh(self, user: Caller) -> None:
        before = user.claims
        answer = user.get("/auth/login")
        assert answer.status_code == 200
        after = Caller(user.client, answer.json()["token"]).claims
        assert after["orig_iat"] == before["orig_iat"]
        assert after["exp"] >= before["exp"]

    def test_u10_refresh_with_garbage(self, nobody: Caller) -> None:
        answer = Caller(nobody.client, "garbage").get("/auth/login")
        assert answer.status_code == 401
        assert answer.content == b'{"Error":"Not Authorized"}'


def is_login_failure(answer: httpx.Response) -> None:
    is_hub_error(answer, 401)
    assert "msg" not in answer.json()
    assert "www-authenticate" not in answer.headers


class TestDevices:
    def test_d1_register_by_user(self, user: Caller) -> None:
        answer = user.post("/devices", {"secret": "kept-as-it-is", "user-meta": {"a": 1}})
        assert answer.status_code == 200
        body = answer.json()
        assert body["owner"] == user.claims["prn"]
        assert body["secret"] == "kept-as-it-is"
        assert "challenge" not in body
        assert body["user-meta"] == {"a": 1}

    def test_d2_register_for_claiming(self, nobody: Caller) -> None:
        answer = nobody.post("/devices/")
        body = answer.json()
        assert answer.status_code == 200
        assert body["owner"] == ""
        assert re.fullmatch(r"[a-z]+-[a-z]+-[a-z]+", body["challenge"])
        assert re.fullmatch(r"[a-z0-9]{15}", body["secret"])
        assert re.fullmatch(r"__unregistered__[a-z]+_[a-z]{10}", body["nick"])
        before_metas = ["id", "prn", "nick", "owner", "secret", "time-created", "time-modified", "challenge"]
        assert list(body)[:8] == before_metas

    def test_d3_claim(self, nobody: Caller, user: Caller) -> None:
        record = nobody.post("/devices/").json()
        device = DeviceCaller(nobody.client, record).logged_in()
        assert device.get(f"/devices/{device.id}").json()["challenge"] == record["challenge"]
        assert device.claims["owner"] == ""
        answer = user.put(f"/devices/{device.id}?challenge={device.challenge}")
        assert answer.status_code == 200
        assert answer.json()["owner"] == user.claims["prn"]
        assert not answer.json()["nick"].startswith("__unregistered__")
        assert device.get(f"/devices/{device.id}").json()["owner"] == user.claims["prn"]
        assert device.logged_in().claims["owner"] == user.claims["prn"]

    def test_d4_claim_unknown_or_with_a_wrong_challenge(self, nobody: Caller, user: Caller) -> None:
        is_hub_error(user.put(f"/devices/{UNKNOWN}?challenge=a-b-c"), 404)
        record = nobody.post("/devices/").json()
        is_hub_error(user.put(f"/devices/{record['id']}?challenge=a-b-c"), 403)
        is_hub_error(user.put(f"/devices/{record['id']}"), 403)

    def test_d5_list_devices(self, nobody: Caller) -> None:
        owner = nobody.login("user2", "user2")
        created = [owner.post("/devices/", {"nick": f"listed-{number}"}).json() for number in range(3)]
        listed = {device["nick"]: device for device in owner.get("/devices/").json()}
        for device in created:
            found = listed[device["nick"]]
            assert (found["prn"], found["owner"]) == (device["prn"], owner.claims["prn"])
            assert "secret" not in found  # hashed at rest: shown once, at registration

    def test_d6_details_and_unknown(self, user: Caller, device: DeviceCaller) -> None:
        body = user.get(f"/devices/{device.id}").json()
        assert body["owner-nick"] == "user1"
        assert "secret" not in body
        by_nick = user.get(f"/devices/{body['nick']}").json()
        assert by_nick["id"] == device.id
        assert user.get(f"/devices/np/user1/{body['nick']}").json()["id"] == device.id
        is_hub_error(user.get(f"/devices/{UNKNOWN}"), 404)
        is_hub_error(user.get("/devices/no-such-nick"), 400)

    def test_d7_change_nick(self, user: Caller, device: DeviceCaller) -> None:
        nick = f"renamed-{device.id}"
        assert user.patch(f"/devices/{device.id}", {"nick": nick}).json()["nick"] == nick
        assert user.patch(f"/devices/{device.id}", {"nick": ""}).json()["nick"] == nick
        is_hub_error(user.patch(f"/devices/{UNKNOWN}", {"nick": "x"}), 404)
        is_hub_error(user.patch(f"/devices/{device.id}", {"nick": "not a nick"}), 400)
        other = claimed_device(user)
        is_hub_error(user.patch(f"/devices/{other.id}", {"nick": nick}), 409)

    def test_d8_change_secret(self, user: Caller, device: DeviceCaller) -> None:
        answer = user.put(f"/devices/{device.id}", {"secret": "another secret"})
        assert answer.json()["secret"] == "another secret"
        is_login_failure(device.post("/auth/login", {"username": device.prn, "password": device.secret}))
        assert device.login(device.prn, "another secret").token
        is_hub_error(user.put(f"/devices/{UNKNOWN}", {"secret": "x"}), 404)
        is_hub_error(user.put(f"/devices/{device.id}", {"secret": ""}), 403)

    def test_d9_make_public(self, nobody: Caller, user: Caller, device: DeviceCaller) -> None:
        stranger = nobody.login("user2", "user2")
        is_hub_error(stranger.get(f"/devices/{device.id}"), 403)
        assert user.put(f"/devices/{device.id}/public").json()["public"] is True
        seen = stranger.get(f"/devices/{device.id}").json()
        assert (seen["user-meta"], seen["device-meta"]) == ({}, {})
        is_hub_error(user.put(f"/devices/{UNKNOWN}/public"), 404)
        is_hub_error(device.put(f"/devices/{device.id}/public"), 403)

    def test_d10_make_private(self, nobody: Caller, user: Caller, device: DeviceCaller) -> None:
        user.put(f"/devices/{device.id}/public").raise_for_status()
        assert user.delete(f"/devices/{device.id}/public").json()["public"] is False
        is_hub_error(nobody.login("user2", "user2").get(f"/devices/{device.id}"), 403)
        is_hub_error(user.delete(f"/devices/{UNKNOWN}/public"), 404)
        is_hub_error(device.delete(f"/devices/{device.id}/public"), 403)

    def test_d11_device_login(self, nobody: Caller, device: DeviceCaller) -> None:
        claims = nobody.login(device.prn, device.secret).claims
        assert (claims["type"], claims["roles"], claims["prn"]) == ("DEVICE", "device", device.prn)
        for password in ("wrong", ""):
            is_login_failure(nobody.post("/auth/login", {"username": device.prn, "password": password}))

    def test_d12_device_meta(self, user: Caller, device: DeviceCaller) -> None:
        meta = {"interfaces": {"eth0.ipv4": ["10.0.2.15"]}, "storage": {"free": 1}, "a.b": None}
        answer = device.put(f"/devices/{device.id}/device-meta", meta)
        assert answer.content == b'{"status":"ok"}'
        assert user.get(f"/devices/{device.id}").json()["device-meta"] == meta
        device.patch(f"/devices/{device.id}/device-meta", {"storage": None, "new": True})
        assert user.get(f"/devices/{device.id}").json()["device-meta"] == {
            "interfaces": {"eth0.ipv4": ["10.0.2.15"]},
            "new": True,
        }
        is_hub_error(device.put(f"/devices/{UNKNOWN}/device-meta", meta), 404)
        is_hub_error(user.put(f"/devices/{device.id}/device-meta", meta), 400)
        assert user.get(f"/devices/{device.id}/device-meta").status_code == 405

    def test_d13_user_meta(self, user: Caller, device: DeviceCaller) -> None:
        meta = {"pvr-sdk.authorized_keys": "ssh-ed25519 <AAAA>", "web/key": "value"}
        assert user.put(f"/devices/{device.id}/user-meta", meta).json() == meta
        answer = device.get(f"/devices/{device.id}/user-meta")
        assert answer.content == rb'{"pvr-sdk.authorized_keys":"ssh-ed25519 \u003cAAAA\u003e","web/key":"value"}'
        patch = {"web/key": None, "added": 1}
        assert user.patch(f"/devices/{device.id}/user-meta", patch).json() == patch
        merged = {"pvr-sdk.authorized_keys": "ssh-ed25519 <AAAA>", "added": 1}
        assert device.get(f"/devices/{device.id}/user-meta").json() == merged
        is_hub_error(user.put(f"/devices/{UNKNOWN}/user-meta", meta), 404)
        is_hub_error(device.patch(f"/devices/{device.id}/user-meta", {"x": 1}), 400)

    def test_d14_delete(self, user: Caller, trail: DeviceCaller) -> None:
        answer = user.delete(f"/devices/{trail.id}")
        assert answer.status_code == 200
        assert answer.json()["garbage"] is True
        is_hub_error(user.get(f"/devices/{trail.id}"), 404)
        is_hub_error(user.delete(f"/devices/{trail.id}"), 404)
        is_hub_error(trail.get(f"/trails/{trail.id}/steps"), 404)
        is_login_failure(trail.post("/auth/login", {"username": trail.prn, "password": trail.secret}))


class TestTrails:
    def test_t1_create_trail(self, device: DeviceCaller) -> None:
        sha = device.upload(b"root file system")
        state = {"#spec": SPEC, "web/root.squashfs": sha}
        answer = device.post("/trails/", state)
        body = answer.json()
        assert answer.status_code == 200
        assert (body["factory-state"], body["device"], body["id"]) == (state, device.prn, device.id)
        assert list(body) == sorted(body)
        assert answer.headers["phjsonformat"] == "gibson042-canonicaljson"

    def test_t2_create_trail_without_a_valid_token(self, nobody: Caller) -> None:
        assert nobody.post("/trails/", {"#spec": SPEC}).status_code == 401

    def test_t3_list_trails_of_the_device(self, trail: DeviceCaller) -> None:
        assert [item["id"] for item in trail.get("/trails/").json()] == [trail.id]


class TestSteps:
    def test_s1_create_step(self, user: Caller, trail: DeviceCaller) -> None:
        step = post_revision(user, trail.id, {"#spec": SPEC, "a.json": {"b": 1}}, rev=1)
        assert step["progress"]["status"] == "NEW"
        assert step["committer"] == user.claims["prn"]
        assert step["progress-time"] == "1970-01-01T00:00:00Z"
        assert step["state-sha"] == sha256(b'{"#spec":"pantavisor-service-system@1","a.json":{"b":1}}')
        keys = (
            "commit-msg committer device garbage id mark_public_processed meta owner progress progress-time rev state "
            "state-sha step-time time-created time-modified trail-id used_objects"
        )
        assert list(step) == keys.split()

    def test_s2_get_step(self, user: Caller, trail: DeviceCaller) -> None:
        step = post_revision(user, trail.id, {"#spec": SPEC})
        assert user.get(f"/trails/{trail.id}/steps/1").json() == step
        assert user.get(f"/trails/{trail.id}/steps/1/").json() == step
        assert user.get(f"/trails/{trail.id}/steps/1/state").content == b'{"#spec":"pantavisor-service-system@1"}'
        is_hub_error(user.get(f"/trails/{trail.id}/steps/2"), 404)
        is_hub_error(user.get(f"/trails/{trail.id}/steps/x"), 404)

    def test_s3_list_steps(self, user: Caller, trail: DeviceCaller) -> None:
        for _ in range(3):
            post_revision(user, trail.id, {"#spec": SPEC})
        assert [step["rev"] for step in user.get(f"/trails/{trail.id}/steps").json()] == [1, 2, 3]
        assert [step["rev"] for step in trail.get(f"/trails/{trail.id}/steps").json()] == [1]

    def test_s4_update_progress(self, user: Caller, trail: DeviceCaller) -> None:
        post_revision(user, trail.id, {"#spec": SPEC})
        total = {"total_size": 9, "start_time": 1, "current_time": 2, "total_downloaded": 3}
        report = {
            "status": "DOWNLOADING",
            "status-msg": "Retry 1",
            "progress": 5,
            "retries": 3,
            "downloads": {"total": total},
        }
        echoed = trail.put(f"/trails/{trail.id}/steps/1/progress", report).json()
        assert echoed["status"] == "DOWNLOADING"
        assert echoed["retries"] == 3
        assert echoed["downloads"] == {"objects": None, "total": total}
        step = user.get(f"/trails/{trail.id}/steps/1").json()
        assert step["progress"] == echoed
        assert not step["progress-time"].startswith("1970")


class TestObjects:
    def test_o1_create_object(self, device: DeviceCaller) -> None:
        sha = sha256(b"some bytes")
        answer = device.post("/objects/", {"objectname": "some", "size": "10", "sha256sum": sha})
        body = answer.json()
        assert answer.status_code == 200
        assert answer.headers["pantahub-object-type"] == "object"
        owner = device.claims["owner"]
        assert body["storage-id"] == sha256(f"{owner}/{sha}".encode())
        assert (body["id"], body["size"], body["sizeint"], body["expire-time"]) == (sha, "10", 10, "15")
        for url in (body["signed-puturl"], body["signed-geturl"]):
            assert "/local-s3/" in url
            assert "&" not in url
            assert "?" not in url

    def test_o2_list_objects(self, nobody: Caller) -> None:
        owner = nobody.login("user3", "user3")
        shas = {owner.upload(f"object {number}".encode()) for number in range(3)}
        assert shas <= {item["sha256sum"] for item in owner.get("/objects/").json()}


class TestLogs:
    def test_l1_create_log(self, device: DeviceCaller) -> None:
        entry = {
            "tsec": 1,
            "tnano": 2,
            "rev": "0",
            "plat": "pantavisor",
            "src": "main.log",
            "lvl": "DEBUG",
            "msg": "up",
        }
        assert device.post("/logs/", entry).content == b'{"status":"ok"}'

    def test_l2_list_logs(self, user: Caller, device: DeviceCaller) -> None:
        for number in range(3):
            device.post("/logs/", [{"tsec": number, "msg": f"line {number}", "src": "s<1>"}])
        page = user.get(f"/logs/?dev={device.id}").json()
        assert page["count"] == 3
        assert [entry["msg"] for entry in page["entries"]] == ["line 2", "line 1", "line 0"]
        assert [entry["lvl"] for entry in page["entries"]] == ["INFO"] * 3
        assert "tnano" not in page["entries"][0]
        assert user.get(f"/logs/?dev={device.id}&lvl=ERROR").json() == {"start": 0, "page": 50, "count": 0}
