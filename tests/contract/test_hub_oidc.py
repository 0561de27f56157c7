"""Signing in at a real OpenID provider, which the test starts: code with PKCE, linking, and what is refused."""

from __future__ import annotations

import html
import json
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from brickless.hub.__main__ import main
from brickless.hub.domain import oidc
from brickless.hub.domain.errors import Forbidden, Malformed
from brickless.hub.domain.oidc import Person, Provider
from brickless.linux import process
from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import Caller

USERS = (
    {"sub": "ada", "email": "ada@example.com", "email_verified": True, "preferred_username": "Ada Lovelace"},
    {"sub": "user1-there", "email": "no-reply-user1@accounts.pantahub.com", "email_verified": True},
    {"sub": "doubtful", "email": "doubtful@example.com", "email_verified": False},
    {"sub": "second", "email": "second@example.com", "email_verified": True, "preferred_username": "ada-lovelace"},
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    port = free_port()
    users = [word for user in USERS for word in ("--user-claims", json.dumps(user))]
    command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port), "--require-nonce", "1"]
    running = process.spawn([*command, *users], purpose="the OpenID provider")
    address = f"http://localhost:{port}"
    deadline_s = time.monotonic() + 60
    try:
        while True:
            try:
                httpx.get(f"{address}/.well-known/openid-configuration").raise_for_status()
                break
            except httpx.HTTPError:
                assert time.monotonic() < deadline_s
        yield address
    finally:
        running.kill()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, issuer: str) -> Iterator[HubProcess]:
    folder = tmp_path_factory.mktemp("hub")
    secret = folder / "secret"
    secret.write_text("the hub's secret\n")
    arguments = [
        "--no-rate-limits", "--no-sign-up", "--oidc-sign-up", "--oidc-issuer", issuer, "--oidc-client-id", "hub",
        "--oidc-client-secret-file", str(secret), "--oidc-name", "Example Inc",
    ]  # fmt: skip
    with running_hub(str(folder / "data"), arguments=arguments) as running:
        yield running


@pytest.fixture
def browser(hub: HubProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=hub.url, timeout=60) as client:
        yield client


def form_token(text: str) -> str:
    found = re.search(r'name="form" value="([^"]+)"', text)
    assert found is not None
    return found.group(1)


def leads_to(answer: httpx.Response) -> str:
    found = re.search(r'http-equiv="refresh" content="0;url=([^"]+)"', answer.text)
    assert found is not None, answer.text
    return html.unescape(found.group(1))


def start(browser: httpx.Client) -> str:
    page = browser.get("/dash-ui/devices").text
    return leads_to(browser.post("/dash-ui/oidc/start", data={"form": form_token(page), "next": "/dash-ui/devices"}))


def agree(place: str, subject: str) -> str:
    """What the person does at the provider; returns where it sends the browser."""
    with httpx.Client(timeout=60) as there:
        assert there.get(place).status_code == 200
        answer = there.post(place, data={"sub": subject})
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]


def sign_in(browser: httpx.Client, subject: str) -> httpx.Response:
    return browser.get(agree(start(browser), subject))


def test_a_stranger_gets_an_account_and_comes_back_to_it(browser: httpx.Client, hub: HubProcess) -> None:
    assert "Sign in with Example Inc" in browser.get("/").text
    place = start(browser)
    asked = parse_qs(urlsplit(place).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert len(asked["nonce"][0]) == len(asked["state"][0]) == 43
    arrived = browser.get(agree(place, "ada"))
    assert arrived.status_code == 200
    assert leads_to(arrived) == "/dash-ui/devices"
    assert "Fleet of ada-lovelace" in browser.get("/").text
    assert "GET /dash-ui/oidc/callback" in browser.get("/dash-ui/audit").text
    with httpx.Client(base_url=hub.url, timeout=60) as again:
        sign_in(again, "ada")
        assert "Fleet of ada-lovelace" in again.get("/").text


def test_a_taken_nick_gets_an_ending(browser: httpx.Client) -> None:
    sign_in(browser, "second")
    found = re.search(r"Fleet of (\S+)</h1>", browser.get("/").text)
    assert found is not None
    assert found.group(1).startswith("ada-lovelace")


def test_an_address_alone_opens_no_account_until_its_owner_links_it(browser: httpx.Client, hub: HubProcess) -> None:
    refused = sign_in(browser, "user1-there")
    assert refused.status_code == 409
    assert "link it under Settings" in refused.text
    page = browser.get("/").text
    browser.post("/dash-ui/sign-in", data={"form": form_token(page), "name": "user1", "password": "user1"})
    settings = browser.get("/dash-ui/settings").text
    assert "Link with Example Inc" in settings
    fields = {"form": form_token(settings), "next": "/dash-ui/settings"}
    browser.get(agree(leads_to(browser.post("/dash-ui/oidc/start", data=fields)), "user1-there"))
    assert "Your account is linked" in browser.get("/dash-ui/settings").text
    with httpx.Client(base_url=hub.url, timeout=60) as elsewhere:
        sign_in(elsewhere, "user1-there")
        assert "Fleet of user1" in elsewhere.get("/").text
    with httpx.Client(base_url=hub.url, timeout=60) as other:
        page = other.get("/").text
        other.post("/dash-ui/sign-in", data={"form": form_token(page), "name": "user2", "password": "user2"})
        fields = {"form": form_token(other.get("/dash-ui/settings").text)}
        answer = other.get(agree(leads_to(other.post("/dash-ui/oidc/start", data=fields)), "user1-there"))
        assert answer.status_code == 409


def test_an_address_that_nobody_verified_makes_no_account(browser: httpx.Client) -> None:
    assert sign_in(browser, "doubtful").status_code == 403
    assert 'type="password"' in browser.get("/").text


def test_an_answer_that_this_browser_did_not_ask_for(browser: httpx.Client, hub: HubProcess) -> None:
    answer = agree(start(browser), "ada")
    with httpx.Client(base_url=hub.url, timeout=60) as victim:
        assert victim.get(answer).status_code == 403
        start(victim)
        assert victim.get(answer).status_code == 403
        assert 'type="password"' in victim.get("/").text
    assert browser.get(answer).status_code == 200
    with httpx.Client(base_url=hub.url, timeout=60) as thief:
        thief.cookies.update(browser.cookies)
        assert thief.get(answer).status_code == 403, "a code and its cookie work once"


def test_what_the_provider_refuses(browser: httpx.Client) -> None:
    start(browser)
    said = browser.get("/dash-ui/oidc/callback?error=access_denied&state=x")
    assert said.status_code == 403
    assert "access_denied" in said.text


def test_only_our_own_pages_start_it(browser: httpx.Client) -> None:
    assert browser.post("/dash-ui/oidc/start", data={"next": "/"}).status_code == 403


def test_the_made_account_has_no_password_that_anybody_knows(hub: HubProcess) -> None:
    with httpx.Client(base_url=hub.url, timeout=60) as client:
        for password in ("", "ada", "password"):
            answer = Caller(client).post("/auth/login", {"username": "ada-lovelace", "password": password})
            assert answer.status_code == 401


PROVIDER = Provider("https://id.example.com", "hub", "secret", "Example", sign_up=True)


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "a"}, {"sub": "a", "nonce": "other"}, {"nonce": "n"}, {"sub": "", "nonce": "n"},
        {"sub": 7, "nonce": "n"},
        {"sub": "x" * 256, "nonce": "n"}, {"sub": "a", "nonce": "n", "aud": ["hub", "other"]},
        {"sub": "a", "nonce": "n", "aud": ["hub", "other"], "azp": "other"},
    ],
)  # fmt: skip
def test_tokens_that_prove_nothing(claims: dict[str, Any]) -> None:
    with pytest.raises(Forbidden):
        oidc.person(claims, PROVIDER, nonce="n")


def test_an_unverified_address_counts_for_nothing() -> None:
    claims: dict[str, object] = {"sub": "a", "nonce": "n", "email": "a@example.com", "email_verified": "true"}
    assert oidc.person(claims, PROVIDER, nonce="n") == Person("a", "", "")


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://evil.example"}, {"token_endpoint": "http://id.example.com/token"}, {"jwks_uri": None},
        {"authorization_endpoint": "javascript:alert(1)"},
    ],
)  # fmt: skip
def test_documents_that_are_refused(change: dict[str, Any]) -> None:
    document = {
        "issuer": PROVIDER.issuer, "authorization_endpoint": "https://id.example.com/a",
        "token_endpoint": "https://id.example.com/t", "jwks_uri": "https://id.example.com/k",
    }  # fmt: skip
    assert oidc.endpoints(dict(document), PROVIDER.issuer).token == "https://id.example.com/t"
    with pytest.raises(Malformed):
        oidc.endpoints({**document, **change}, PROVIDER.issuer)


def test_symmetric_and_missing_signatures_are_no_choice() -> None:
    assert not {"none", "HS256", "HS384", "HS512"} & set(oidc.ALGORITHMS)


@pytest.mark.parametrize("name", ["Ada Lovelace", "ÄÖ", "", "a", "../../x", "x" * 100, "<b>"])
def test_nicks_from_anywhere(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9_-]{3,23}", oidc.nick_of(Person("s", "me@example.com", name)))


@pytest.mark.parametrize(
    ("issuer", "more", "word"),
    [
        ("https://id.example.com", [], "--oidc-client-id"),
        ("http://id.example.com", ["--oidc-client-id", "x", "--oidc-client-secret-file", "/dev/null"], "https"),
    ],
)
def test_the_command_line_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], issuer: str, more: list[str], word: str
) -> None:
    assert main(["--data", str(tmp_path / "d"), "--oidc-issuer", issuer, *more]) == 2
    assert word in capsys.readouterr().err
