"""What contract hub.md section 11.3 found in the reference must not exist here: attacks that fail."""

from __future__ import annotations

import base64
import hmac
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, DeviceCaller, claimed_device, post_revision, sha256


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, hub_storage: Any) -> Iterator[HubProcess]:
    data_dir = str(tmp_path_factory.mktemp("hub") / "data")
    with running_hub(
        data_dir,
        arguments=[*hub_storage.arguments, "--no-rate-limits", "--log-level", "debug"],
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
def stranger(nobody: Caller) -> Caller:
    return nobody.login("user2", "user2")


@pytest.fixture
def device(user: Caller) -> DeviceCaller:
    return claimed_device(user).start_trail()


def b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class TestLogins:
    def test_a_password_that_is_somebodys_token_id_gives_nothing(self, nobody: Caller, user: Caller) -> None:
        token_id = user.post("/devices/tokens").json()["id"]
        password = base64.urlsafe_b64encode(f"{token_id}:x".encode()).decode().rstrip("=")
        device = nobody.post("/devices/", {"secret": password}).json()
        claims = nobody.login(device["prn"], password).claims
        assert (claims["prn"], claims["owner"]) == (device["prn"], "")
        for name in (token_id, f"prn:::auth-tokens:/{token_id}", "user1"):
            assert nobody.post("/auth/login", {"username": name, "password": password}).status_code == 401

    @pytest.mark.parametrize("name", ["prn:pantahub.com:apis:/base", "prn:pantahub.com:apis:/anything"])
    def test_app_names_do_not_log_in_with_any_password(self, nobody: Caller, name: str) -> None:
        assert nobody.post("/auth/login", {"username": name, "password": "any"}).status_code == 401

    def test_impersonation_is_for_administrators(self, nobody: Caller) -> None:
        assert nobody.login("user1==>user2", "user1").claims["nick"] == "user1"
        claims = nobody.login("admin==>user2", "admin").claims
        assert claims["nick"] == "user2"
        answer = nobody.post("/auth/login", {"username": "user1==>admin", "password": "admin"})
        assert answer.status_code == 401

    @pytest.mark.parametrize("alteration", ["none", "hs256 with the public key", "foreign key", "no expiry"])
    def test_forged_tokens(self, hub: HubProcess, user: Caller, alteration: str) -> None:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        claims = user.claims | {"roles": "admin"}
        key = serialization.load_pem_private_key(Path(hub.data_dir, "keys", "token.pem").read_bytes(), password=None)
        if alteration == "none":
            token = jwt.encode(claims, None, algorithm="none")
        elif alteration == "hs256 with the public key":
            public = key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            signed = b".".join(b64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
            token = (signed + b"." + b64(hmac.digest(public, signed, "sha256"))).decode()
        elif alteration == "foreign key":
            token = jwt.encode(claims, rsa.generate_private_key(65537, 2048), algorithm="RS256")
        else:
            del claims["exp"]
            assert isinstance(key, rsa.RSAPrivateKey)
            token = jwt.encode(claims, key, algorithm="RS256")
        assert Caller(user.client, token).get("/devices/").status_code == 401

    def test_recovery_tells_nobody_who_has_an_account(self, nobody: Caller) -> None:
        known = nobody.post("/auth/recover", {"email": "no-reply-user1@accounts.pantahub.com"})
        unknown = nobody.post("/auth/recover", {"email": "nobody@example.com"})
        assert (known.status_code, known.content) == (unknown.status_code, unknown.content) == (200, b"true")

    def test_a_recovery_link_works_once_and_is_no_session(self, hub: HubProcess, nobody: Caller) -> None:
        body = {"email": "lost@example.com", "nick": "lost-it", "password": "the old one"}
        nobody.post("/auth/accounts", body)
        nobody.post("/auth/recover", {"email": body["email"]})
        mail = max(Path(hub.data_dir, "mail").glob("*.eml")).read_bytes()
        token = mail.replace(b"=\n", b"").split(b"#token=3D")[1].split()[0].decode()
        assert Caller(nobody.client, token).get("/devices/").status_code == 401
        assert nobody.post("/auth/password", {"token": token, "password": "a new one"}).content == b"true"
        assert nobody.login("lost-it", "a new one").token
        assert nobody.post("/auth/password", {"token": token, "password": "a third one"}).status_code == 400
        assert nobody.post("/auth/password", {"token": "garbage", "password": "x"}).status_code == 400


class TestTenants:
    def test_a_stranger_sees_nothing_of_a_private_device(
        self, stranger: Caller, user: Caller, device: DeviceCaller
    ) -> None:
        sha = user.upload(b"private bytes")
        post_revision(user, device.id, {"#spec": SPEC, "a": sha})
        trail = f"/trails/{device.id}"
        reads = [
            f"/devices/{device.id}", f"/devices/{device.id}/user-meta", trail, f"{trail}/steps", f"{trail}/steps/1",
            f"{trail}/steps/1/state", f"{trail}/steps/1/meta", f"{trail}/steps/1/objects", f"{trail}/.pvrremote",
            f"{trail}/steps/1/objects/{sha}", f"{trail}/steps/1/objects/{sha}/blob", f"{trail}/steps/1/.pvrremote",
            f"{trail}/summary", f"/objects/{sha}", f"/objects/{sha}/blob",
        ]  # fmt: skip
        for caller in (stranger, claimed_device(stranger).start_trail(), stranger_session(stranger)):
            for path in reads:
                answer = caller.get(path)
                assert answer.status_code in {400, 403, 404}, (path, answer.text)
                assert sha not in answer.text
            assert caller.get("/devices/?owner=prn:pantahub.com:auth:/user1").json() == []
            assert sha not in caller.get("/objects/").text

    def test_a_stranger_changes_nothing(self, stranger: Caller, user: Caller, device: DeviceCaller) -> None:
        post_revision(user, device.id, {"#spec": SPEC})
        before = user.get(f"/devices/{device.id}").content, user.get(f"/trails/{device.id}/steps/1").content
        writes = [
            ("PUT", f"/devices/{device.id}", {"nick": "stolen"}),
            ("PATCH", f"/devices/{device.id}", {"nick": "stolen"}),
            ("PUT", f"/devices/{device.id}/public", None), ("DELETE", f"/devices/{device.id}/public", None),
            ("PUT", f"/devices/{device.id}/user-meta", {"a": 1}),
            ("PATCH", f"/devices/{device.id}/user-meta", {"a": 1}),
            ("PUT", f"/devices/{device.id}/device-meta", {"a": 1}),
            ("PATCH", f"/devices/{device.id}/device-meta", {"a": 1}), ("DELETE", f"/devices/{device.id}", None),
            ("POST", f"/trails/{device.id}/steps", {"rev": -1, "state": {}}),
            ("PUT", f"/trails/{device.id}/steps/1/state", {}), ("PUT", f"/trails/{device.id}/steps/1/meta", {}),
            ("PUT", f"/trails/{device.id}/steps/1/progress", {"status": "DONE"}),
            ("PUT", f"/trails/{device.id}/steps/1/cancel", None), ("PUT", f"/trails/{device.id}/steps/1/wontgo", None),
            ("POST", f"/trails/{device.id}/steps/1/objects", {"sha256sum": "0" * 64}),
        ]  # fmt: skip
        for caller in (stranger, claimed_device(stranger).start_trail(), claimed_device(user).start_trail()):
            for method, path, body in writes:
                answer = caller.call(method, path, body)
                assert answer.status_code in {400, 403, 404}, (method, path, answer.text)
        after = user.get(f"/devices/{device.id}").content, user.get(f"/trails/{device.id}/steps/1").content
        assert after == before

    def test_a_claimed_device_cannot_be_claimed_again(self, stranger: Caller, user: Caller) -> None:
        device = claimed_device(user)
        answer = stranger.put(f"/devices/{device.id}?challenge={device.challenge}")
        assert answer.status_code == 403
        assert stranger.put(f"/devices/{device.id}?challenge=").status_code == 403

    def test_one_device_reaches_no_sibling(self, user: Caller, device: DeviceCaller) -> None:
        sibling = claimed_device(user).start_trail()
        sha = user.upload(b"for the sibling only")
        post_revision(user, sibling.id, {"#spec": SPEC, "a": sha})
        for path in (f"/trails/{sibling.id}/steps", f"/trails/{sibling.id}/steps/1/objects", f"/objects/{sha}"):
            assert device.get(path).status_code == 403
        assert sha not in device.get("/objects/").text
        assert device.post(f"/trails/{sibling.id}/steps", {"rev": -1, "state": {}}).status_code == 403
        assert [item["id"] for item in device.get("/devices/").json()] == [device.id]
        assert device.get("/logs/").status_code == 403
        assert device.delete(f"/devices/{sibling.id}").status_code == 403

    def test_knowing_a_sha_gives_no_bytes(self, stranger: Caller, user: Caller) -> None:
        sha = user.upload(b"the neighbour's file")
        announced = stranger.post("/objects/", {"objectname": "x", "size": "20", "sha256sum": sha})
        assert announced.status_code == 200  # not 409: that would tell that somebody has it
        assert stranger.client.get(announced.json()["signed-geturl"]).status_code == 404
        theirs = claimed_device(stranger).start_trail()
        body = {"rev": -1, "state": {"#spec": SPEC, "a": sha}}
        assert stranger.post(f"/trails/{theirs.id}/steps", body).status_code == 422
        put = stranger.client.put(announced.json()["signed-puturl"], content=b"the neighbour's fil!")
        assert put.status_code == 400
        assert stranger.client.get(announced.json()["signed-geturl"]).status_code == 404

    def test_public_objects_are_linked_and_private_again_later(self, stranger: Caller, user: Caller) -> None:
        source = claimed_device(user).start_trail()
        sha = user.upload(b"published bytes")
        post_revision(user, source.id, {"#spec": SPEC, "a": sha})
        user.put(f"/devices/{source.id}/public")
        body = {"objectname": "mine", "size": "1", "sha256sum": sha}
        refused = stranger.post("/objects/?autolink=no", body)
        assert (refused.status_code, refused.headers["pantahub-object-type"]) == (200, "object")
        linked = stranger.post("/objects/", body)
        assert (linked.status_code, linked.headers["pantahub-object-type"]) == (409, "link")
        assert (linked.json()["objectname"], linked.json()["sizeint"]) == ("mine", 15)
        assert stranger.client.get(linked.json()["signed-geturl"]).content == b"published bytes"
        theirs = claimed_device(stranger).start_trail()
        post_revision(stranger, theirs.id, {"#spec": SPEC, "a": sha})

    def test_foreign_token_types_read_no_private_trail(self, nobody: Caller, device: DeviceCaller) -> None:
        session = Caller(nobody.client, nobody.post("/auth/sessions").json()["token"])
        assert session.get(f"/trails/{device.id}/steps").status_code == 403
        assert session.get("/trails/").json() == []

    def test_deleting_a_strangers_device_shows_nothing(self, stranger: Caller, device: DeviceCaller) -> None:
        answer = stranger.delete(f"/devices/{device.id}")
        assert answer.status_code == 403
        assert device.id not in answer.text


def stranger_session(stranger: Caller) -> Caller:
    return Caller(stranger.client, stranger.post("/auth/sessions").json()["token"])


class TestSecrets:
    def test_no_query_is_a_filter_on_a_secret(self, stranger: Caller, user: Caller) -> None:
        device = user.post("/devices/", {"secret": "abcdef"}).json()
        user.put(f"/devices/{device['id']}/public")
        everything = {item["id"] for item in stranger.get("/devices/?owner-nick=user1").json()}
        for query in ("secret=^abc", "secret=^zzz", "secret_hash=^x", "challenge=!x", "$where=1", "garbage=true"):
            found = {item["id"] for item in stranger.get(f"/devices/?owner-nick=user1&{query}").json()}
            assert found == everything, query

    def test_prefix_filters_are_text_not_patterns(self, user: Caller) -> None:
        for nick in ("pre-one", "Pre-two", "other%x"):
            user.post("/devices/", {"nick": nick})

        def nicks(query: str) -> set[str]:
            return {item["nick"] for item in user.get(f"/devices/?{query}").json()}

        assert nicks("nick=^pre-") == {"pre-one", "Pre-two"}
        assert nicks("nick=^.*") == set()
        assert nicks("nick=^%25") == set()
        assert nicks("nick=^p_e") == set()
        assert nicks("nick=other%25x") == {"other%x"}
        assert "pre-one" not in nicks("nick=!pre-one")

    @pytest.mark.parametrize(
        "condition", ['{"$where":"1"}', '{"$expr":{}}', '{"status":{"$regex":".*"}}', '{"x":1}', "["]
    )
    def test_summary_filters_take_no_operator_of_a_database(self, user: Caller, condition: str) -> None:
        claimed_device(user).start_trail()
        assert user.get(f"/trails/summary?filter={condition}").status_code == 400

    def test_a_body_assigns_only_what_it_may(self, nobody: Caller, user: Caller) -> None:
        body = {
            "garbage": True,
            "mark_public_processed": True,
            "challenge": "mine",
            "id": "0" * 24,
            "owner": "x",
            "public": True,
        }
        record = nobody.post("/devices/", body).json()
        assert record["id"] != "0" * 24
        assert (record["owner"], record["garbage"], record["public"]) == ("", False, False)
        assert record["challenge"] != "mine"
        device = claimed_device(user)
        for change in ({"id": "0" * 24}, {"prn": "x"}, {"owner": "x"}, {"time-created": "x"}):
            assert user.put(f"/devices/{device.id}", change).status_code == 403
        assert user.put(f"/devices/{device.id}", {"garbage": True}).json()["garbage"] is False
        assert user.put(f"/devices/{device.id}", {"id": device.id, "nick": f"n-{device.id}"}).status_code == 200

    def test_nothing_that_logs_in_is_stored_or_logged(self, hub: HubProcess, nobody: Caller, user: Caller) -> None:
        password = "correct horse battery staple"
        nobody.post("/auth/accounts", {"email": "s@example.com", "nick": "secretive", "password": password})
        token = nobody.login("secretive", password).token
        device = nobody.post("/devices/", {"secret": "chosen device secret"}).json()
        generated = nobody.post("/devices/").json()["secret"]
        join = user.post("/devices/tokens").json()["token"]
        nobody.post("/auth/login", {"username": device["prn"], "password": "a wrong guess"})
        Caller(nobody.client, token + "x").get("/devices/")
        secrets = [password, token, "chosen device secret", generated, join, "a wrong guess"]
        files = [path for path in Path(hub.data_dir).rglob("*") if path.is_file()]
        for path in [*files, Path(f"{hub.data_dir}.log")]:
            content = path.read_bytes()
            for secret in secrets:
                assert secret.encode() not in content, (path, secret)

    def test_answers_hold_no_hash(self, nobody: Caller, user: Caller, device: DeviceCaller) -> None:
        for path in ("/auth/", "/auth/accounts", "/devices/", f"/devices/{device.id}", "/devices/tokens"):
            text = user.get(path).text
            for word in ("argon2", "hmac-sha256", "hash", "password", '"secret"'):
                assert word not in text, (path, word)

    def test_keys_and_data_are_for_the_hub_alone(self, hub: HubProcess) -> None:
        keys = Path(hub.data_dir, "keys")
        assert {path.name for path in keys.iterdir()} == {"token.pem", "seal.key", "pepper.key", "operator.secret"}
        for path in (Path(hub.data_dir), keys, *keys.iterdir()):
            assert stat.S_IMODE(os.stat(path).st_mode) & 0o077 == 0, path

    def test_only_administrators_list_all_accounts(self, nobody: Caller, user: Caller) -> None:
        assert user.get("/auth/accounts?asadmin=1").status_code == 403
        listed = nobody.login("admin", "admin").get("/auth/accounts?asadmin=1").json()
        assert {"user1", "user2"} <= {account["nick"] for account in listed}


class TestHostileHttp:
    @pytest.mark.parametrize(
        "path", ["/..%2f..%2fetc/passwd", "/local-s3/..%2f..%2fkeys", "/objects/..%2fseal.key", "/%00"]
    )
    def test_paths_stay_inside(self, user: Caller, path: str) -> None:
        assert user.get(path).status_code in {400, 403, 404}

    def test_an_object_name_is_no_header(self, user: Caller) -> None:
        data = b"named badly"
        name = 'a"\r\nSet-Cookie: x=1\r\n\u2028é'
        body = {"objectname": name, "size": str(len(data)), "sha256sum": sha256(data)}
        access = user.post("/objects/", body).json()
        user.client.put(access["signed-puturl"], content=data)
        answer = user.client.get(access["signed-geturl"])
        assert answer.status_code == 200
        assert "set-cookie" not in answer.headers
        assert answer.headers["content-disposition"].startswith('attachment; filename="a__')

    def test_deep_and_wide_json_is_refused(self, user: Caller, device: DeviceCaller) -> None:
        deep = b'{"a":' * 3000 + b"1" + b"}" * 3000
        assert user.put(f"/devices/{device.id}/user-meta", content=deep).status_code == 400
        wide = json.dumps({f"key-{number}": 1 for number in range(3000)}).encode()
        assert user.put(f"/devices/{device.id}/user-meta", content=wide).status_code == 413
        large = json.dumps({"a": "x" * 2_000_000}).encode()
        assert device.put(f"/devices/{device.id}/device-meta", content=large).status_code == 413

    def test_strange_text_survives_and_never_crashes(self, user: Caller, device: DeviceCaller) -> None:
        content = rb'{"a.b\u0000":"\ud800","<&>":"\u2028","n":1e2,"f":1.5,"big":12345678901234567890}'
        assert user.put(f"/devices/{device.id}/user-meta", content=content).status_code == 200
        answer = device.get(f"/devices/{device.id}/user-meta")
        assert answer.status_code == 200
        assert answer.json() == {
            "a.b\u0000": "\ufffd", "<&>": "\u2028", "n": 100, "f": 1.5, "big": 12345678901234567890,
        }  # fmt: skip

    def test_too_many_query_fields(self, user: Caller) -> None:
        assert user.get("/devices/?" + "&".join(f"a{number}=1" for number in range(200))).status_code == 400


def test_rate_limits_end_guessing(tmp_path: Path) -> None:
    with running_hub(str(tmp_path / "data")) as hub, httpx.Client(base_url=hub.url) as client:
        nobody = Caller(client)
        statuses = [
            nobody.post("/auth/login", {"username": "user1", "password": f"guess {number}"}).status_code
            for number in range(22)
        ]
        assert statuses == [401] * 20 + [429] * 2
        limited = nobody.post("/auth/login", {"username": "user1", "password": "user1"})
        assert limited.status_code == 429
        assert int(limited.headers["retry-after"]) >= 1
    with running_hub(str(tmp_path / "data")) as hub, httpx.Client(base_url=hub.url) as client:
        nobody = Caller(client)
        user = nobody.login("user1", "user1")
        device = nobody.post("/devices/").json()
        path = f"/devices/{device['id']}?challenge"
        statuses = [user.put(f"{path}=a-b-{number}").status_code for number in range(22)]
        assert statuses == [403] * 20 + [429] * 2
        # Two a second come back while we count, so a slow machine needs more than the 120 of the first minute.
        registered = (nobody.post("/devices/").status_code for _ in range(2000))
        assert next(status for status in registered if status != 200) == 429
