"""Pages that programs and mails send people to, in a real Chromium: agreeing to an application, a new password, and the
interface's page."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Response, expect, sync_playwright

from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import Caller
from brickless.testkit.hub_world import READ_DEVICES, registration

pytestmark = pytest.mark.needs("chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
PATIENCE_MS = 60_000
VERIFIER = "a-verifier-of-forty-three-characters-or-more-0"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
# Nobody listens there: what the browser is sent to is looked at on its way.
LOOPBACK = "http://127.0.0.1:9/callback"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    data_dir = str(tmp_path_factory.mktemp("hub") / "data")
    with running_hub(data_dir, arguments=["--no-rate-limits"]) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield made
        made.close()


@pytest.fixture
def page(hub: HubProcess, browser: Browser) -> Iterator[Page]:
    """A page of nobody; an error of a script or a broken rule of the content policy fails the test."""
    faults: list[str] = []
    context = browser.new_context(base_url=hub.url)
    context.set_default_timeout(PATIENCE_MS)
    made = context.new_page()
    made.on("pageerror", lambda error: faults.append(str(error)))
    made.on("console", lambda said: faults.append(said.text) if "Content Security" in said.text else None)
    yield made
    context.close()
    assert faults == []


@pytest.fixture
def nobody(hub: HubProcess) -> Iterator[Caller]:
    with httpx.Client(base_url=hub.url, timeout=60) as client:
        yield Caller(client)


def sign_in(page: Page) -> None:
    page.get_by_label("Nick or e-mail").fill("user1")
    page.get_by_label("Password").fill("user1")
    page.get_by_role("button", name="Sign in").click()


def sent_to(page: Page, button: str, place: str) -> dict[str, list[str]]:
    """What the application would be told once the button is pressed."""

    def leads_there(answer: Response) -> bool:
        return answer.headers.get("location", "").startswith(place)

    with page.expect_response(leads_there) as found, page.expect_request(lambda request: request.url.startswith(place)):
        page.get_by_role("button", name=button).click()
    parts = urlsplit(found.value.headers["location"])
    return parse_qs(parts.query or parts.fragment)


def pkce(hub: HubProcess) -> str:
    fields = {
        "client_id": "pvr", "redirect_uri": LOOPBACK, "code_challenge": CHALLENGE, "code_challenge_method": "S256",
        "scope": "devices.readonly", "state": "s 1",
    }  # fmt: skip
    return f"{hub.url}/auth/oauth/authorize?{urlencode(fields)}"


def test_a_program_on_ones_machine_gets_a_token(hub: HubProcess, page: Page, nobody: Caller) -> None:
    page.goto(pkce(hub))
    sign_in(page)
    expect(page.get_by_role("heading", name="Let a program that calls itself 'pvr' act for you?")).to_be_visible()
    expect(page.get_by_text("Read devices")).to_be_visible()
    assert Axe().run(page).response["violations"] == []
    told = sent_to(page, "Allow", LOOPBACK)
    assert told["state"] == ["s 1"]
    body = {
        "grant_type": "authorization_code", "access-code": told["code"][0], "code_verifier": VERIFIER,
        "redirect_uri": LOOPBACK,
    }  # fmt: skip
    token = nobody.post("/auth/oauth/token", body).json()["token"]
    assert Caller(nobody.client, token).claims["scopes"] == READ_DEVICES


def test_who_refuses_gives_nothing(hub: HubProcess, page: Page) -> None:
    page.goto(pkce(hub))
    sign_in(page)
    assert sent_to(page, "Refuse", LOOPBACK) == {"error": ["access_denied"], "state": ["s 1"]}


def test_an_application_gets_a_code_or_a_token(hub: HubProcess, page: Page, nobody: Caller) -> None:
    user = nobody.login("user1", "user1")
    wanted = {**registration("asking"), "name": "Asking <b>", "redirect_uris": [LOOPBACK]}
    app = user.post("/apps/", wanted).json()
    fields = {"client_id": app["prn"], "scope": READ_DEVICES, "redirect_uri": LOOPBACK, "state": "s2"}
    page.goto(f"{hub.url}/oauth2/authorize?{urlencode(fields)}")
    sign_in(page)
    expect(page.get_by_role("heading", name="Let Asking <b> act for you?")).to_be_visible()
    told = sent_to(page, "Allow", LOOPBACK)
    program = nobody.login(app["prn"], app["secret"])
    assert program.post("/auth/token", {"access-code": told["code"][0]}).json()["scopes"] == READ_DEVICES
    page.goto(f"{hub.url}/oauth2/authorize?{urlencode({**fields, 'response_type': 'token'})}")
    told = sent_to(page, "Allow", LOOPBACK)
    assert Caller(nobody.client, told["access_token"][0]).get("/devices/").status_code == 200


@pytest.mark.parametrize(
    "changed", [{"redirect_uri": "https://evil.example/"}, {"client_id": "nobody"}, {"scope": "made.up"}]
)
def test_what_the_application_may_not_ask_is_shown_and_leads_nowhere(
    hub: HubProcess, nobody: Caller, changed: dict[str, str]
) -> None:
    user = nobody.login("user1", "user1")
    user.post("/apps/", {**registration("wrong"), "redirect_uris": [LOOPBACK]})
    fields = {"client_id": "wrong", "scope": READ_DEVICES, "redirect_uri": LOOPBACK, **changed}
    with httpx.Client(base_url=hub.url, timeout=60, follow_redirects=True) as visitor:
        form = re.search(r'name="form" value="([^"]+)"', visitor.get("/").text)
        assert form is not None
        visitor.post("/dash-ui/sign-in", data={"form": form[1], "name": "user1", "password": "user1"})
        answer = visitor.get(f"/oauth2/authorize?{urlencode(fields)}")
        assert (answer.status_code, "Allow" in answer.text) == (400, False)
        form = re.search(r'name="form" value="([^"]+)"', visitor.get("/").text)
        assert form is not None
        answer = visitor.post("/dash-ui/grant", data={"form": form[1], "answer": "allow", **fields})
        assert answer.status_code == 400
        assert visitor.post("/dash-ui/grant", data={"answer": "allow", **fields}).status_code == 403


def test_a_mail_sets_a_new_password(hub: HubProcess, page: Page, nobody: Caller) -> None:
    account = {"email": "forgetful@example.com", "nick": "forgetful", "password": "forgotten"}
    nobody.post("/auth/accounts", account).raise_for_status()
    nobody.post("/auth/recover", {"email": account["email"]}).raise_for_status()
    files = Path(hub.data_dir, "mail").iterdir()
    mails = [message_from_bytes(path.read_bytes(), policy=default).get_content() for path in files]
    link = next(found[0] for text in mails if (found := re.search(r"http://\S+/reset_password#token=\S+", text)))
    page.goto(link)
    expect(page.get_by_label("What follows")).to_be_hidden()
    assert "#" not in page.url
    page.get_by_label("New password").fill("remembered")
    assert Axe().run(page).response["violations"] == []
    page.get_by_role("button", name="Set the password").click()
    expect(page.get_by_role("status").filter(has_text="counts from now on")).to_be_visible()
    assert nobody.login("forgetful", "remembered").token
    page.goto("about:blank")
    page.goto(link)
    page.get_by_label("New password").fill("again")
    page.get_by_role("button", name="Set the password").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert nobody.post("/auth/login", {"username": "forgetful", "password": "again"}).status_code == 401


def test_the_interfaces_page_describes_and_calls_every_route(hub: HubProcess, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{hub.url}/swagger/")
    paths = httpx.get(f"{hub.url}/swagger/doc.json").json()["paths"]
    assert page.locator("details").count() == sum(map(len, paths.values()))
    page.locator("#post--auth-login summary").click()
    login = page.locator("#post--auth-login")
    login.get_by_label("Body").fill('{"username": "user1", "password": "user1"}')
    login.get_by_role("button", name="Call").click()
    expect(login.locator("output")).to_contain_text("200")
    page.locator("#get--devices-id summary").click()
    device = page.locator("#get--devices-id")
    device.get_by_label("id (path, needed)").fill("0" * 24)
    device.get_by_role("button", name="Call").click()
    expect(device.locator("output")).to_contain_text("404")
    assert Axe().run(page).response["violations"] == []
    assert all(url.startswith((hub.url, "data:")) for url in asked)
