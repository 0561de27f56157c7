"""The dashboard over HTTP: signing in, the rows, what another site cannot do, changes that arrive by themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, claimed_device, post_revision


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    data_dir = str(tmp_path_factory.mktemp("hub") / "data")
    with running_hub(data_dir, arguments=["--no-rate-limits"]) as running:
        yield running


@pytest.fixture
def browser(hub: HubProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=hub.url, timeout=30) as client:
        yield client


@pytest.fixture
def user(hub: HubProcess) -> Iterator[Caller]:
    with httpx.Client(base_url=hub.url) as client:
        yield Caller(client).login("user1", "user1")


def form_token(text: str) -> str:
    found = re.search(r'name="form" value="([^"]+)"', text)
    assert found is not None
    return found.group(1)


def sign_in(browser: httpx.Client, name: str = "user1", password: str = "user1", **headers: str) -> httpx.Response:
    token = form_token(browser.get("/").text)
    fields = {"form": token, "name": name, "password": password}
    return browser.post("/dash-ui/sign-in", data=fields, headers=headers)


def events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])


def test_nobody_sees_only_the_form(browser: httpx.Client) -> None:
    page = browser.get("/")
    assert page.status_code == 200
    assert 'type="password"' in page.text
    assert 'id="devices"' not in page.text
    assert browser.get("/dash-ui/events").status_code == 403
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert browser.get("/dash-ui/static/dashboard.css").headers["content-type"].startswith("text/css")
    assert browser.get("/dash-ui/static/..%2fpages.py").status_code == 404


def test_sign_in_shows_the_devices_and_sign_out_ends_it(browser: httpx.Client, user: Caller) -> None:
    device = claimed_device(user)
    nick = user.get(f"/devices/{device.id}").json()["nick"]
    answer = sign_in(browser)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    for word in ("HttpOnly", "SameSite=Strict"):
        assert word in answer.headers["set-cookie"]
    page = browser.get("/").text
    assert nick in page
    assert "none yet" in page
    session = browser.cookies["brickless_session"]
    assert browser.post("/dash-ui/sign-out", data={"form": form_token(page)}).status_code == 303
    assert 'type="password"' in browser.get("/").text
    assert "user1" not in session


@pytest.mark.parametrize(("name", "password"), [("user1", "wrong"), ("", ""), ("prn:pantahub.com:auth:/anon", "x")])
def test_wrong_sign_ins(browser: httpx.Client, name: str, password: str) -> None:
    answer = sign_in(browser, name, password)
    assert answer.status_code == 401
    assert "Unknown name or wrong password" in answer.text
    assert "brickless_session" not in browser.cookies


def test_a_device_does_not_sign_in_here(browser: httpx.Client, user: Caller) -> None:
    device = claimed_device(user)
    assert sign_in(browser, device.prn, device.secret).status_code == 401


def test_another_site_can_neither_sign_in_nor_out(browser: httpx.Client, hub: HubProcess) -> None:
    assert sign_in(browser, Origin="https://evil.example").status_code == 403
    with httpx.Client(base_url=hub.url) as attacker:
        foreign = form_token(attacker.get("/").text)
    fields = {"form": foreign, "name": "user1", "password": "user1"}
    browser.get("/")
    assert browser.post("/dash-ui/sign-in", data=fields).status_code == 403
    assert browser.post("/dash-ui/sign-in", data={"name": "user1", "password": "user1"}).status_code == 403


def test_a_forged_session_is_none(browser: httpx.Client, user: Caller) -> None:
    browser.cookies.set("brickless_session", user.token)
    assert 'type="password"' in browser.get("/").text


def test_text_of_devices_is_no_markup(browser: httpx.Client, user: Caller) -> None:
    device = claimed_device(user).start_trail()
    post_revision(user, device.id, {"#spec": SPEC})
    report = {"status": "ERROR", "status-msg": "<script>alert(1)</script>", "progress": 100}
    device.put(f"/trails/{device.id}/steps/1/progress", report)
    sign_in(browser)
    page = browser.get("/").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>alert" not in page
    assert "runs 0" in page


def test_changes_arrive_by_themselves_and_only_ones_own(hub: HubProcess, browser: httpx.Client, user: Caller) -> None:
    device = claimed_device(user).start_trail()
    stranger = Caller(user.client).login("user2", "user2")
    sign_in(browser)
    with browser.stream("GET", "/dash-ui/events") as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        found = events(stream.iter_lines())
        seen = next(data for name, data in found if name == "row" and data["id"] == device.id)
        assert ">DONE<" in seen["html"]
        foreign = claimed_device(stranger).start_trail()
        post_revision(user, device.id, {"#spec": SPEC})
        row = next(data for name, data in found if name == "row" and data["id"] in {device.id, foreign.id})
        assert row["id"] == device.id
        assert ">NEW<" in row["html"]
        report = {"status": "ERROR", "status-msg": "container web exited with 1", "progress": 100}
        device.put(f"/trails/{device.id}/steps/1/progress", report)
        row = next(data for name, data in found if name == "row")
        assert "container web exited with 1" in row["html"]
        times = next(data for name, data in found if name == "seen")
        assert device.id in times
        user.delete(f"/devices/{device.id}")
        assert next(data for name, data in found if name == "gone") == {"id": device.id}


def test_open_pages_do_not_keep_the_hub_from_stopping(tmp_path: Any) -> None:
    with running_hub(str(tmp_path / "data")) as hub, httpx.Client(base_url=hub.url, timeout=30) as browser:
        sign_in(browser)
        with browser.stream("GET", "/dash-ui/events") as stream:
            lines = stream.iter_lines()
            assert hub.process is not None
            hub.process.terminate()
            assert list(events(lines)) == []
        assert hub.process.wait(8) == 0
