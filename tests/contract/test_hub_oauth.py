"""Applications, their grants, PKCE, plans and the operators' callbacks, against the real hub (contract 1.6, 1.7, 6)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import jwt
import pytest

from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, claimed_device, post_revision, sha256

BASE = "prn:pantahub.com:apis:/base"
READ = f"{BASE}/devices.readonly"
REDIRECT = "https://app.example.com/back"
VERIFIER = "a-verifier-of-forty-three-characters-or-more-0"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
LOOPBACK = "http://127.0.0.1:4455/callback"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, hub_storage: Any) -> Iterator[HubProcess]:
    data_dir = str(tmp_path_factory.mktemp("hub") / "data")
    arguments, environment = [*hub_storage.arguments, "--no-rate-limits"], hub_storage.environment
    with running_hub(data_dir, arguments=arguments, environment=environment) as running:
        yield running


@pytest.fixture
def client(hub: HubProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=hub.url, timeout=30) as made:
        yield made


@pytest.fixture
def nobody(client: httpx.Client) -> Caller:
    return Caller(client)


@pytest.fixture
def user(nobody: Caller) -> Caller:
    return nobody.login("user1", "user1")


@pytest.fixture
def other(nobody: Caller) -> Caller:
    return nobody.login("user2", "user2")


def registration(**changed: Any) -> dict[str, Any]:
    return {
        "type": "confidential", "name": "An app", "logo": "", "redirect_uris": [REDIRECT],
        "scopes": [{"id": "devices.readonly", "service": BASE}], "exposed_scopes": [], **changed,
    }  # fmt: skip


def registered(owner: Caller, **changed: Any) -> dict[str, Any]:
    answer = owner.post("/apps/", registration(**changed))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def asked(app: dict[str, Any], **changed: str) -> dict[str, str]:
    return {
        "service": app["prn"], "scopes": READ, "redirect_uri": REDIRECT, "state": "s1", "response_type": "token",
        **changed,
    }  # fmt: skip


def claims(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


class TestApps:
    def test_an_application_is_registered_shown_and_deleted(self, user: Caller, other: Caller) -> None:
        app = registered(user, nick="My First App")
        assert app["prn"] == "prn:pantahub.com:apis:/my-first-app"
        assert len(app["secret"]) == 30
        assert list(app) == [
            "id", "name", "logo", "type", "nick", "prn", "owner", "secret", "redirect_uris", "scopes",
            "ExposedScopesLength", "time-created", "time-modified",
        ]  # fmt: skip
        for name in (app["id"], app["prn"], app["nick"]):
            again = user.get(f"/apps/{quote(name, safe='')}").json()
            assert again == {key: value for key, value in app.items() if key != "secret"}
        foreign = other.get(f"/apps/{quote(app['prn'], safe='')}").json()
        assert (foreign["id"], foreign["owner"], foreign["type"]) == ("0" * 24, "", "")
        assert "redirect_uris" not in foreign
        assert app["id"] in {found["id"] for found in user.get("/apps/").json()}
        assert other.get("/apps/", headers={}).json() == []
        assert other.put(f"/apps/{app['id']}", registration()).status_code == 404
        assert other.delete(f"/apps/{app['id']}").status_code == 404
        changed = user.put(f"/apps/{app['id']}", registration(name="Renamed", type="public")).json()
        assert (changed["name"], changed["nick"]) == ("Renamed", app["nick"])
        assert user.delete(f"/apps/{app['id']}").json()["deleted-at"]
        assert user.get(f"/apps/{app['id']}").status_code == 404
        assert user.delete(f"/apps/{app['id']}").status_code == 404

    def test_a_nick_is_unique_for_ever(self, user: Caller, other: Caller) -> None:
        app = registered(user, nick="unique-app")
        assert other.post("/apps/", registration(nick="Unique App")).status_code == 409
        user.delete(f"/apps/{app['id']}")
        assert other.post("/apps/", registration(nick="unique-app")).status_code == 409

    @pytest.mark.parametrize(
        "changed",
        [
            {"type": ""}, {"type": "secret"}, {"scopes": []}, {"redirect_uris": []}, {"logo": "x" * 15 * 1024},
            {"scopes": [{"id": "made.up", "service": BASE}]}, {"scopes": "devices"}, {"scopes": [1]},
            {"redirect_uris": ["javascript:alert(1)"]}, {"redirect_uris": ["https://x/#y"]},
            {"redirect_uris": ["/relative"]}, {"redirect_uris": ["https://user@x/"]}, {"redirect_uris": [7]},
            {"redirect_uris": ["https://x"] * 51}, {"nick": "///"}, {"nick": "base"},
        ],
    )  # fmt: skip
    def test_what_cannot_be_is_refused(self, user: Caller, changed: dict[str, Any]) -> None:
        assert user.post("/apps/", registration(**changed)).status_code == 400

    def test_only_confidential_ones_have_a_secret(self, user: Caller) -> None:
        for kind in ("public", "pkce"):
            assert "secret" not in registered(user, type=kind)

    def test_scopes_are_base_ones_exposed_ones_or_the_apps_own(self, user: Caller, nobody: Caller) -> None:
        offering = registered(user, nick="offering", exposed_scopes=[{"id": "weather", "description": "Rain"}])
        wanted = [
            {"id": "devices", "service": ""}, {"id": "weather", "service": offering["prn"]},
            {"id": "devices", "service": "prn:elsewhere"},
        ]  # fmt: skip
        app = registered(user, nick="wanting", scopes=wanted)
        assert [(scope["id"], scope["service"]) for scope in app["scopes"]] == [
            ("devices", BASE), ("weather", offering["prn"]), ("devices", app["prn"]),
        ]  # fmt: skip
        every = nobody.get("/apps/scopes").json()
        assert [scope["id"] for scope in every[:3]] == ["all", "profile", "profile.readonly"]
        assert {"id": "weather", "service": offering["prn"], "description": "Rain"} in every
        mine = nobody.get(f"/apps/scopes?serviceID={app['prn']}").json()
        assert [scope["id"] for scope in mine] == ["devices", "weather", "devices"]
        assert nobody.get("/apps/scopes?serviceID=unknown").status_code == 404

    def test_an_app_logs_in_with_its_secret_and_reaches_nothing(self, user: Caller, nobody: Caller) -> None:
        app = registered(user)
        for wrong in ("x", "", app["secret"] + "x"):
            body = {"username": app["prn"], "password": wrong}
            assert nobody.post("/auth/login", body).status_code == 401
        service = nobody.login(app["prn"], app["secret"])
        assert (service.claims["type"], service.claims["scopes"]) == ("SERVICE", "")
        for path in ("/devices/", "/trails/", "/objects/", "/logs/"):
            assert service.get(path).status_code == 403, path
        unknown = {"username": "prn:pantahub.com:apis:/nothing", "password": "x"}
        assert nobody.post("/auth/login", unknown).status_code == 401


class TestImplicit:
    def test_a_token_in_the_fragment_reads_what_was_granted_and_no_more(self, user: Caller) -> None:
        app = registered(user, type="public")
        answer = user.post("/auth/authorize", asked(app)).json()
        assert (answer["token_type"], answer["scopes"]) == ("bearer", READ)
        target = urlsplit(answer["redirect_uri"])
        fragment = parse_qs(target.fragment)
        assert [pair.partition("=")[0] for pair in target.fragment.split("&")] == sorted(fragment)
        assert fragment["access_token"] == [answer["token"]]
        assert (fragment["state"], fragment["token_type"]) == (["s1"], ["bearer"])
        found = claims(answer["token"])
        assert (found["aud"], found["prn"], found["id"]) == (app["prn"], user.claims["prn"], user.claims["prn"])
        assert isinstance(found["exp"], int)
        assert len(answer["token"]) < 1000
        granted = Caller(user.client, answer["token"])
        assert granted.get("/devices/").status_code == 200
        assert granted.post("/devices/", {"nick": "x"}).status_code == 403
        assert granted.get("/objects/").status_code == 403

    @pytest.mark.parametrize(
        "changed",
        [
            {"service": "prn:pantahub.com:apis:/none"}, {"service": ""}, {"scopes": f"{BASE}/devices"},
            {"scopes": "devices.readonly"}, {"redirect_uri": REDIRECT + "/more"},
            {"redirect_uri": "https://app.example.com.evil.com/back"}, {"redirect_uri": "https://evil.com/"},
        ],
    )  # fmt: skip
    def test_what_was_not_registered_is_refused(self, user: Caller, changed: dict[str, str]) -> None:
        app = registered(user, type="public")
        for path in ("/auth/authorize", "/auth/code"):
            assert user.post(path, asked(app, **changed)).status_code == 400

    def test_what_was_given_to_a_program_gives_nothing_on(self, user: Caller) -> None:
        app = registered(user, type="public")
        granted = Caller(user.client, user.post("/auth/authorize", asked(app)).json()["token"])
        assert granted.post("/auth/authorize", asked(app)).status_code == 403
        assert granted.post("/tokens/", {"scopes": [f"{BASE}/all"]}).status_code == 403
        limited = Caller(user.client).login("user1", "user1", scope="objects.readonly")
        assert limited.post("/auth/authorize", asked(app)).status_code == 403
        device = claimed_device(user)
        assert device.post("/auth/authorize", asked(app)).status_code == 403

    def test_a_deleted_application_cannot_refresh(self, user: Caller) -> None:
        app = registered(user, type="public")
        granted = Caller(user.client, user.post("/auth/authorize", asked(app)).json()["token"])
        assert granted.get("/auth/login").status_code == 200
        user.delete(f"/apps/{app['id']}")
        assert granted.get("/auth/login").status_code == 401


class TestCode:
    def test_a_code_becomes_a_token_once(self, user: Caller, nobody: Caller) -> None:
        app = registered(user)
        service = nobody.login(app["prn"], app["secret"])
        answer = user.post("/auth/code", asked(app)).json()
        assert parse_qs(urlsplit(answer["redirect_uri"]).query) == {"code": [answer["code"]], "state": ["s1"]}
        body = {"access-code": answer["code"], "comment": "test"}
        granted = service.post("/auth/token", body)
        assert granted.status_code == 200
        assert granted.json()["scopes"] == READ
        found = claims(granted.json()["token"])
        assert (found["prn"], found["aud"], found["type"]) == (user.claims["prn"], app["prn"], "USER")
        assert service.post("/auth/token", body).status_code == 401

    def test_only_the_application_itself_exchanges(self, user: Caller, nobody: Caller) -> None:
        app, foreign = registered(user), registered(user)
        body = {"access-code": user.post("/auth/code", asked(app)).json()["code"]}
        assert user.post("/auth/token", body).status_code == 401
        assert nobody.login(foreign["prn"], foreign["secret"]).post("/auth/token", body).status_code == 401
        service = nobody.login(app["prn"], app["secret"])
        assert service.post("/auth/token", {"access-code": "garbage"}).status_code == 401
        assert service.post("/auth/token", content=b"{").status_code == 400
        assert service.post("/auth/token", body).status_code == 200

    def test_a_public_application_gets_no_code(self, user: Caller) -> None:
        app = registered(user, type="public")
        assert user.post("/auth/code", asked(app, response_type="code")).status_code == 400


def begun(client: httpx.Client, **changed: str) -> httpx.Response:
    query = {
        "client_id": "pvr", "redirect_uri": LOOPBACK, "code_challenge": CHALLENGE, "code_challenge_method": "S256",
        "scope": "devices.readonly", "state": "s2", "response_type": "code", **changed,
    }  # fmt: skip
    return client.get("/auth/oauth/authorize", params={key: value for key, value in query.items() if value})


def redeemed(nobody: Caller, code: str, **changed: str) -> httpx.Response:
    body = {
        "grant_type": "authorization_code", "access-code": code, "code_verifier": VERIFIER, "redirect_uri": LOOPBACK,
        **changed,
    }  # fmt: skip
    return nobody.post("/auth/oauth/token", body)


class TestPkce:
    def test_a_command_line_client_gets_its_users_token(self, hub: HubProcess, user: Caller, nobody: Caller) -> None:
        started = begun(user.client)
        assert started.status_code == 307
        target = urlsplit(started.headers["location"])
        assert f"{target.scheme}://{target.netloc}{target.path}" == f"{hub.url}/oauth2/authorize"
        cookies = started.headers.get_list("set-cookie")
        assert all("HttpOnly; SameSite=Lax" in cookie for cookie in cookies)
        code = parse_qs(target.query)["auth_code"][0]
        assert user.client.cookies["pkce_auth_code"] == code
        agreed = user.post("/auth/code", {"state": "s2"})
        assert agreed.json()["code"] == code
        assert agreed.json()["redirect_uri"] == f"{LOOPBACK}?code={code}&state=s2"
        assert "pkce_auth_code" not in user.client.cookies
        answer = redeemed(nobody, code)
        assert list(answer.json()) == ["token", "token_type"]
        token = Caller(user.client, answer.json()["token"])
        assert token.claims["prn"] == user.claims["prn"]
        assert token.get("/devices/").status_code == 200
        assert token.get("/objects/").status_code == 403
        assert token.get("/auth/login").status_code == 200
        again = redeemed(nobody, code)
        assert (again.status_code, again.json()["msg"]) == (400, "Authorization code is invalid or expired")

    @pytest.mark.parametrize("missing", ["client_id", "redirect_uri", "code_challenge", "code_challenge_method"])
    def test_missing_parameters(self, client: httpx.Client, missing: str) -> None:
        answer = begun(client, **{missing: ""})
        assert (answer.status_code, answer.json()["msg"]) == (400, "Missing required PKCE parameters")

    @pytest.mark.parametrize(
        "changed",
        [{"code_challenge_method": "plain"}, {"code_challenge": "short"}, {"redirect_uri": "https://evil.com/"}],
    )
    def test_what_is_not_supported(self, client: httpx.Client, changed: dict[str, str]) -> None:
        assert begun(client, **changed).status_code == 400

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"code_verifier": VERIFIER + "x"}, "Code verifier is invalid"),
            (
                {"redirect_uri": "http://127.0.0.1:1/"},
                "Provided redirect_uri does not match the one",
            ),
            ({"grant_type": "password"}, "The grant type is not supported"),
            ({"access-code": "unknown"}, "Authorization code is invalid or expired"),
            ({"code_verifier": ""}, "Invalid request payload"),
        ],
    )
    def test_every_refusal_has_its_sentence(
        self, user: Caller, nobody: Caller, changed: dict[str, str], message: str
    ) -> None:
        code = parse_qs(urlsplit(begun(user.client).headers["location"]).query)["auth_code"][0]
        user.post("/auth/code", {"auth_code": code})
        answer = redeemed(nobody, code, **changed)
        assert answer.status_code == 400
        assert answer.json()["msg"].startswith(message)

    def test_nobody_agreed_or_somebody_did_already(self, user: Caller, other: Caller, nobody: Caller) -> None:
        code = parse_qs(urlsplit(begun(user.client).headers["location"]).query)["auth_code"][0]
        assert user.post("/auth/code", {"auth_code": code}).status_code == 200
        assert other.post("/auth/code", {"auth_code": code}).status_code == 400
        fresh = parse_qs(urlsplit(begun(user.client).headers["location"]).query)["auth_code"][0]
        answer = redeemed(nobody, fresh)
        assert answer.json()["msg"] == "Authorization code already used or expired"

    def test_a_registered_client_keeps_to_its_registration(self, user: Caller) -> None:
        app = registered(user, type="pkce", redirect_uris=["http://localhost:1/callback"])
        assert begun(user.client, client_id=app["prn"], scope=READ, redirect_uri=LOOPBACK).status_code == 400
        free_port = "http://localhost:5544/callback"
        assert begun(user.client, client_id=app["prn"], scope=READ, redirect_uri=free_port).status_code == 307
        answer = begun(user.client, client_id=app["prn"], scope=f"{BASE}/all", redirect_uri=free_port)
        assert answer.status_code == 400


class TestPlans:
    def test_a_plan_limits_objects_and_devices_and_keeps_its_history(self, nobody: Caller) -> None:
        admin = nobody.login("admin", "admin")
        fields = {"email": "limited@example.com", "nick": "limited", "password": "a good password"}
        subject = nobody.post("/auth/accounts", fields).json()["prn"]
        user = nobody.login("limited", "a good password")
        (before,) = user.get("/subscriptions/").json()["Subs"]
        assert before["type"] == "prn::subscriptions:UNLIMITED"
        path = "/subscriptions/admin/subscription"
        body = {"subject": subject, "plan": "prn::subscriptions:FREE", "attrs": {"OBJECTS": "1KiB", "DEVICES": 1}}
        assert admin.put(path, body).json()["attr"] == {"DEVICES": 1, "OBJECTS": "1KiB"}
        assert user.put(path, body).status_code == 403
        assert user.post("/devices/", {"nick": "first"}).status_code == 200
        second = user.post("/devices/", {"nick": "second"})
        assert (second.status_code, second.json()["msg"][:14]) == (413, "Quota exceeded")
        unclaimed = nobody.post("/devices/").json()
        claim = f"/devices/{unclaimed['id']}?challenge={unclaimed['challenge']}"
        assert user.put(claim).status_code == 413
        user.upload(b"x" * 1000)
        large = {"objectname": "x", "size": "25", "sha256sum": sha256(b"large")}
        assert user.post("/objects/", large).status_code == 413
        admin.put(path, {"subject": subject, "plan": "UNLIMITED"})
        assert user.put(claim).status_code == 200
        assert user.post("/objects/", large).status_code == 200
        (now,) = user.get("/subscriptions").json()["Subs"]
        assert [entry["type"] for entry in now["history"]] == ["prn::subscriptions:FREE"]
        stats = user.get("/dash/").json()["subscription"]
        assert stats["plan-id"] == "prn::subscriptions:UNLIMITED"

    @pytest.mark.parametrize(
        "body",
        [
            {}, {"subject": "prn:::accounts:/" + "0" * 24, "plan": "NONE"}, {"subject": "x", "plan": 7},
            {"subject": "x", "plan": "FREE", "attrs": {"CPU": 1}}, {"subject": "x", "plan": "FREE", "attrs": 5},
            {"subject": "x", "plan": "FREE", "attrs": {"OBJECTS": "much"}},
        ],
    )  # fmt: skip
    def test_what_is_no_plan_is_refused(self, nobody: Caller, body: dict[str, Any]) -> None:
        admin = nobody.login("admin", "admin")
        assert admin.put("/subscriptions/admin/subscription", body).status_code == 412

    def test_devices_have_no_subscription(self, user: Caller) -> None:
        assert claimed_device(user).get("/subscriptions/").status_code == 501


def test_callbacks_tell_what_is_public(hub: HubProcess, client: httpx.Client, user: Caller) -> None:
    secret = (Path(hub.data_dir) / "keys" / "operator.secret").read_text()
    operator = httpx.BasicAuth("saadmin", secret)
    device = claimed_device(user).start_trail()
    sha = user.upload(b"public soon")
    post_revision(user, device.id, {"#spec": SPEC, "a": sha})
    path = f"/callbacks/devices/{device.id}"
    assert client.put(path).status_code == 401
    assert user.put(path).status_code == 401
    steps = [f"{device.id}-0", f"{device.id}-1"]
    assert client.put(path, auth=operator).json() == {
        "device_id": device.id, "steps_marked_as_public": [], "steps_marked_as_non_public": steps,
    }  # fmt: skip
    user.put(f"/devices/{device.id}/public")
    assert client.put(path, auth=operator).json()["steps_marked_as_public"] == steps
    assert client.put(f"{path}?timemodified=2020-01-01T00:00:00Z", auth=operator).status_code == 304
    step = client.put(f"/callbacks/steps/{device.id}-1", auth=operator).json()
    assert (step["object_sha"], step["public"]) == ([sha], True)
    assert client.put(f"/callbacks/steps/{device.id}-9", auth=operator).status_code == 404
    assert client.put("/callbacks/steps/x-y", auth=operator).status_code == 400
    for what in ("devices", "steps"):
        assert client.put(f"/cron/public/{what}", auth=operator).json() == []
        assert client.put(f"/cron/public/{what}").status_code == 401
