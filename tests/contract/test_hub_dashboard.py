"""The dashboard over HTTP: signing in, pages, forms, what other sites and lesser roles cannot do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from brickless.hub.app import Hub, Settings
from brickless.hub.domain.access import GRANTS, Role
from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, DeviceCaller, claimed_device, post_revision


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    data_dir = str(tmp_path_factory.mktemp("hub") / "data")
    with running_hub(data_dir, arguments=["--no-rate-limits"]) as running:
        yield running


@pytest.fixture
def browser(hub: HubProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=hub.url, timeout=60) as client:
        yield client


@pytest.fixture
def user(hub: HubProcess) -> Iterator[Caller]:
    with httpx.Client(base_url=hub.url, timeout=60) as client:
        yield Caller(client).login("user1", "user1")


def form_token(text: str) -> str:
    found = re.search(r'name="form" value="([^"]+)"', text)
    assert found is not None
    return found.group(1)


def sign_in(browser: httpx.Client, name: str = "user1", password: str = "user1", **headers: str) -> httpx.Response:
    token = form_token(browser.get("/").text)
    fields = {"form": token, "name": name, "password": password}
    return browser.post("/dash-ui/sign-in", data=fields, headers=headers)


def send(browser: httpx.Client, place: str, **fields: str) -> httpx.Response:
    return browser.post(place, data={"form": form_token(browser.get("/dash-ui/settings").text), **fields})


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line[6:])


def web(version: str) -> dict[str, Any]:
    """A container of a state."""
    run = {"#spec": "service-manifest-run@1", "name": "web", "type": "lxc", "root-volume": "r", "config": "c"}
    source = {"#spec": "service-manifest-src@1", "docker_name": "nginx", "docker_tag": version}
    return {"#spec": SPEC, "web/run.json": run, "web/src.json": source}


def deploy(user: Caller, device: DeviceCaller, version: str, status: str = "DONE") -> int:
    sha = user.upload(version.encode())
    rev: int = post_revision(user, device.id, {**web(version), "web/r": sha, "web/c": sha})["rev"]
    device.put(f"/trails/{device.id}/steps/{rev}/progress", {"status": status, "progress": 100}).raise_for_status()
    return rev


def test_nobody_sees_only_the_form(browser: httpx.Client) -> None:
    page = browser.get("/")
    assert page.status_code == 200
    assert 'type="password"' in page.text
    for place in ("/dash-ui/devices", "/dash-ui/audit", "/dash-ui/settings"):
        assert 'type="password"' in browser.get(place).text
    assert browser.get("/dash-ui/events").status_code == 403
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert browser.get("/dash-ui/static/dashboard.css").headers["content-type"].startswith("text/css")
    assert browser.get("/dash-ui/static/..%2fpages.py").status_code == 404


def test_sign_in_leads_to_the_wanted_page_and_sign_out_ends_it(browser: httpx.Client, user: Caller) -> None:
    device = claimed_device(user)
    nick = user.get(f"/devices/{device.id}").json()["nick"]
    form = browser.get("/dash-ui/devices?q=x").text
    assert 'name="next" value="/dash-ui/devices?q=x"' in form
    fields = {"form": form_token(form), "name": "user1", "password": "user1", "next": "/dash-ui/devices"}
    answer = browser.post("/dash-ui/sign-in", data=fields)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dash-ui/devices")
    for word in ("HttpOnly", "SameSite=Strict"):
        assert word in answer.headers["set-cookie"]
    assert nick in browser.get(f"/dash-ui/devices?q={nick}").text
    session = browser.cookies["brickless_session"]
    assert send(browser, "/dash-ui/sign-out").status_code == 303
    assert 'type="password"' in browser.get("/").text
    assert "user1" not in session


@pytest.mark.parametrize(
    "place", ["//evil.example/", "https://evil.example/", "/\\evil.example", "javascript:x", "/a\nb"]
)
def test_signing_in_leads_to_no_other_site(browser: httpx.Client, place: str) -> None:
    fields = {"form": form_token(browser.get("/").text), "name": "user1", "password": "user1", "next": place}
    assert browser.post("/dash-ui/sign-in", data=fields).headers["location"] == "/"


@pytest.mark.parametrize(("name", "password"), [("user1", "wrong"), ("", ""), ("prn:pantahub.com:auth:/anon", "x")])
def test_wrong_sign_ins(browser: httpx.Client, name: str, password: str) -> None:
    answer = sign_in(browser, name, password)
    assert answer.status_code == 401
    assert "Unknown name or wrong password" in answer.text
    assert "brickless_session" not in browser.cookies


def test_a_device_does_not_sign_in_here(browser: httpx.Client, user: Caller) -> None:
    device = claimed_device(user)
    assert sign_in(browser, device.prn, device.secret).status_code == 401


def test_another_site_can_neither_sign_in_nor_send_a_form(browser: httpx.Client, hub: HubProcess, user: Caller) -> None:
    assert sign_in(browser, Origin="https://evil.example").status_code == 403
    with httpx.Client(base_url=hub.url) as attacker:
        foreign = form_token(attacker.get("/").text)
    fields = {"form": foreign, "name": "user1", "password": "user1"}
    browser.get("/")
    assert browser.post("/dash-ui/sign-in", data=fields).status_code == 403
    assert browser.post("/dash-ui/sign-in", data={"name": "user1", "password": "user1"}).status_code == 403
    sign_in(browser)
    device = claimed_device(user)
    for data in ({"form": foreign, "nick": "stolen"}, {"nick": "stolen"}):
        assert browser.post(f"/dash-ui/devices/{device.id}/rename", data=data).status_code == 403
    own = {"form": form_token(browser.get("/dash-ui/settings").text), "nick": "stolen"}
    origin = {"Origin": "https://evil.example"}
    assert browser.post(f"/dash-ui/devices/{device.id}/rename", data=own, headers=origin).status_code == 403
    assert user.get(f"/devices/{device.id}").json()["nick"] != "stolen"


def test_a_forged_session_is_none(browser: httpx.Client, user: Caller) -> None:
    browser.cookies.set("brickless_session", user.token)
    assert 'type="password"' in browser.get("/").text


def test_text_of_devices_is_no_markup(browser: httpx.Client, user: Caller) -> None:
    device = claimed_device(user).start_trail()
    post_revision(user, device.id, {"#spec": SPEC})
    report = {"status": "ERROR", "status-msg": "<script>alert(1)</script>", "progress": 100}
    device.put(f"/trails/{device.id}/steps/1/progress", report)
    device.put(f"/devices/{device.id}/device-meta", {"<b>x": "<img src=x>"})
    device.post("/logs/", [{"msg": "<script>alert(2)</script>", "src": "<i>", "lvl": "INFO"}])
    sign_in(browser)
    for place in (f"/dash-ui/devices/{device.id}", f"/dash-ui/devices?q={device.id}"):
        page = browser.get(place).text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        assert "<script>alert" not in page
        assert "<img src=x>" not in page


def test_devices_are_found(browser: httpx.Client, user: Caller) -> None:
    sign_in(browser)
    found, other = (claimed_device(user).start_trail() for _ in range(2))
    deploy(user, found, "9.1")
    deploy(user, other, "9.2", "ERROR")
    user.patch(f"/fleets/devices/{found.id}/labels", {"site": "here-9"}).raise_for_status()
    for query in (
        "container=web%3D9.1",
        "labels=site%3Dhere-9",
        f"q={found.id}",
        "container=web&status=DONE&labels=site%3Dhere-9",
    ):
        page = browser.get(f"/dash-ui/devices?{query}").text
        assert f'id="d-{found.id}"' in page, query
        assert f'id="d-{other.id}"' not in page, query
    assert f'id="d-{other.id}"' in browser.get("/dash-ui/devices?status=ERROR").text
    wrong = browser.get("/dash-ui/devices?labels=site%3D%3D%3D")
    assert wrong.status_code == 200
    assert 'role="alert"' in wrong.text
    assert 'role="alert"' in browser.get("/dash-ui/devices?revision=x").text


def test_pages_of_devices_follow_each_other(browser: httpx.Client, hub: HubProcess) -> None:
    with httpx.Client(base_url=hub.url, timeout=60) as client:
        owner = Caller(client).login("user2", "user2")
        made = {claimed_device(owner).id for _ in range(60)}
        sign_in(browser, "user2", "user2")
        page = browser.get("/dash-ui/devices").text
        assert "60 devices" in page
        shown = set(re.findall(r'id="d-([0-9a-f]{24})"', page))
        following = re.search(r'rel="next" href="([^"]+)"', page)
        assert following is not None
        rest = set(re.findall(r'id="d-([0-9a-f]{24})"', browser.get(following.group(1).replace("&amp;", "&")).text))
    assert (len(shown), shown | rest, shown & rest) == (50, made, set())


def test_a_device_from_its_claim_to_its_removal(browser: httpx.Client, user: Caller) -> None:
    sign_in(browser)
    record = Caller(user.client).post("/devices/").json()
    form = browser.get(f"/dash-ui/claim?device={record['id']}&challenge={record['challenge']}").text
    assert f'value="{record["challenge"]}"' in form
    assert "data:image/svg+xml" in form
    assert send(browser, "/dash-ui/claim", device=record["id"], challenge="no-such-words").status_code == 400
    place = f"/dash-ui/devices/{record['id']}"
    assert (
        send(browser, "/dash-ui/claim", device=record["id"], challenge=record["challenge"]).headers["location"] == place
    )
    device = DeviceCaller(user.client, record).logged_in().start_trail()
    deploy(user, device, "1.26")
    deploy(user, device, "1.27", "ERROR")
    diff = browser.get(f"{place}/revisions/2").text
    assert "nginx 1.26" in diff
    assert "nginx 1.27" in diff
    assert send(browser, f"{place}/rollback", rev="1").headers["location"] == place
    step = user.get(f"/trails/{record['id']}/steps/3").json()
    assert step["commit-msg"] == "roll back to revision 1"
    assert step["state"]["web/src.json"]["docker_tag"] == "1.26"
    send(browser, f"{place}/meta", meta="a=1\r\nb=x=y")
    assert user.get(f"/devices/{record['id']}/user-meta").json() == {"a": "1", "b": "x=y"}
    assert send(browser, f"{place}/meta", meta="nonsense").status_code == 400
    send(browser, f"{place}/labels", change="site=berlin, old=1")
    send(browser, f"{place}/labels", change="old-")
    assert user.get(f"/fleets/devices/{record['id']}/labels").json() == {"site": "berlin"}
    nick = f"renamed-{record['id'][-6:]}"
    send(browser, f"{place}/rename", nick=nick)
    assert nick in browser.get(place).text
    assert send(browser, f"{place}/delete").headers["location"] == "/dash-ui/devices"
    assert browser.get(place).status_code == 404


def test_releases_and_rollouts(browser: httpx.Client, user: Caller) -> None:
    sign_in(browser)
    device = claimed_device(user).start_trail()
    deploy(user, device, "5.0")
    name = f"web-{device.id[-6:]}"
    user.patch(f"/fleets/devices/{device.id}/labels", {"lab": name}).raise_for_status()
    made = send(browser, "/dash-ui/releases", device=device.id, fragment="#web", name=name, allow_unsigned="1")
    assert made.status_code == 303, made.text
    assert name in browser.get("/dash-ui/releases").text
    draft = {"release": name, "selector": f"lab={name}", "name": name, "canary": "1"}
    look = send(browser, "/dash-ui/rollouts", do="preview", **draft)
    assert "<b>1</b> device match" in look.text
    place = send(browser, "/dash-ui/rollouts", do="start", **draft).headers["location"]
    assert name in browser.get(place).text
    assert send(browser, f"{place}/pause").status_code == 303
    assert "paused" in browser.get(place).text
    assert send(browser, f"{place}/resume").status_code == 303
    assert send(browser, f"{place}/abort").status_code == 303
    assert "aborted" in browser.get(place).text
    assert send(browser, f"{place}/pause").status_code == 409
    assert send(browser, "/dash-ui/rollouts", do="start", **{**draft, "release": "no-such"}).status_code == 404


def test_tokens_webhooks_and_the_audit_log(browser: httpx.Client, user: Caller) -> None:
    sign_in(browser)
    shown = send(browser, "/dash-ui/tokens/api", name="ci-of-a-test", scope="devices.readonly").text
    secret = re.search(r'<code id="secret">([^<]+)</code>', shown)
    assert secret is not None
    program = Caller(user.client).login("user1", secret.group(1))
    assert program.get("/devices/").status_code == 200
    token = re.search(r"/dash-ui/tokens/api/([0-9a-f]{24})/delete", browser.get("/dash-ui/tokens").text)
    assert token is not None
    send(browser, token.group(0))
    joined = send(browser, "/dash-ui/tokens/join", nick="line-1").text
    assert "data:image/svg+xml" in joined
    place = send(browser, "/dash-ui/settings/webhooks", url="https://hook.invalid/", kinds="rollout.* device.created")
    hook = place.headers["location"]
    assert "whsec_" in browser.get(hook).text
    send(browser, f"{hook}/ping")
    assert "webhook.ping" in browser.get(hook).text
    send(browser, f"{hook}/switch")
    assert "<dd>off</dd>" in browser.get(hook).text
    assert send(browser, f"{hook}/remove").status_code == 303
    assert browser.get(hook).status_code == 404
    audit = browser.get("/dash-ui/audit?verify=1").text
    assert "The log is whole" in audit
    assert "POST /dash-ui/settings/webhooks/{id}/remove" in audit


def test_an_organisation_by_its_pages(browser: httpx.Client, hub: HubProcess) -> None:
    sign_in(browser)
    send(browser, "/dash-ui/settings/orgs", nick="pages-inc")
    assert send(browser, "/dash-ui/act", org="pages-inc").headers["location"] == "/"
    assert "Fleet of pages-inc" in browser.get("/").text
    shown = send(browser, "/dash-ui/settings/invitations", email="x@example.com", role="viewer").text
    secret = re.search(r'<code id="secret">([^<]+)</code>', shown)
    assert secret is not None
    with httpx.Client(base_url=hub.url, timeout=60) as guest:
        sign_in(guest, "user3", "user3")
        assert guest.get("/dash-ui/invitation").status_code == 200
        assert send(guest, "/dash-ui/settings/accept", token=secret.group(1)).status_code == 303
        send(guest, "/dash-ui/act", org="pages-inc")
        assert "Fleet of pages-inc" in guest.get("/").text
        assert guest.get("/dash-ui/tokens").status_code == 403
        assert send(guest, "/dash-ui/claim", device="0" * 24, challenge="x").status_code == 403
        send(browser, "/dash-ui/settings/members/user3", role="operator")
        assert guest.get("/dash-ui/claim").status_code == 200
        send(browser, "/dash-ui/settings/members/user3/remove")
        assert "Fleet of user3" in guest.get("/").text
        assert send(guest, "/dash-ui/act", org="pages-inc").status_code == 404


def test_no_page_shows_another_accounts_things(browser: httpx.Client, hub: HubProcess, user: Caller) -> None:
    device = claimed_device(user).start_trail()
    user.put(f"/devices/{device.id}/public").raise_for_status()
    sign_in(browser, "user2", "user2")
    place = f"/dash-ui/devices/{device.id}"
    for page in (place, f"/dash-ui/events?logs={device.id}", f"{place}/revisions/0"):
        assert browser.get(page).status_code == 404
    for form in ("rollback", "meta", "labels", "rename", "delete"):
        fields = {"rev": "0", "meta": "a=1", "change": "a=1", "nick": "stolen"}
        assert send(browser, f"{place}/{form}", **fields).status_code == 404
    assert device.id not in browser.get(f"/dash-ui/devices?q={device.id}").text.replace(f'value="{device.id}"', "")


def test_each_page_is_closed_to_roles_that_may_not(tmp_path: Any, hub: HubProcess, user: Caller) -> None:
    """Every page and every form, by every role: what the role does not open is refused before anything happens."""
    service = next(
        one for one in Hub(Settings(str(tmp_path / "data"))).application._router.services if one.prefix == "/dash-ui/"
    )
    needs = {(route.method, route.pattern): getattr(route.handler, "needs", None) for route in service.routes}
    guarded = {key: found for key, found in needs.items() if found is not None}
    assert {key for key, found in needs.items() if found is None} <= {
        ("POST", "sign-in"), ("POST", "sign-out"), ("GET", "events"), ("GET", "static/{name}"),
        ("POST", "oidc/start"), ("GET", "oidc/callback"),
    }  # fmt: skip
    nick = f"roles-{tmp_path.name[-8:]}".replace("_", "-")
    user.post("/orgs/", {"nick": nick}).raise_for_status()
    for role in Role:
        account = f"{nick[-8:]}-{role[:9]}"
        nobody = Caller(user.client)
        details = {"email": f"{account}@example.com", "nick": account, "password": "password"}
        nobody.post("/auth/accounts", details).raise_for_status()
        offer = user.post(f"/orgs/{nick}/invitations", {"email": "x@example.com", "role": role.value}).json()
        nobody.login(account, "password").post("/orgs/accept", {"token": offer["token"]}).raise_for_status()
        with httpx.Client(base_url=hub.url, timeout=60) as browser:
            sign_in(browser, account, "password")
            send(browser, "/dash-ui/act", org=nick)
            token = form_token(browser.get("/dash-ui/settings").text)
            for (method, pattern), wanted in guarded.items():
                if wanted and GRANTS[role].isdisjoint(wanted):
                    place = f"/dash-ui/{re.sub('{[a-z]+}', '0' * 24, pattern)}"
                    answer = browser.request(method, place, data={"form": token} if method == "POST" else None)
                    assert answer.status_code == 403, (role, method, pattern)


def test_pages_are_told_what_changes_and_only_ones_own(hub: HubProcess, browser: httpx.Client, user: Caller) -> None:
    device = claimed_device(user).start_trail()
    stranger = Caller(user.client).login("user2", "user2")
    sign_in(browser)
    with browser.stream("GET", "/dash-ui/events") as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        lines = stream.iter_lines()
        assert next(lines) == "retry: 3000"
        foreign = claimed_device(stranger).start_trail()
        post_revision(user, device.id, {"#spec": SPEC})
        found = events(lines)
        first = next(event for event in found if event["subject"] in {device.id, foreign.id})
        assert first == {"kind": "step.posted", "subject": device.id, "text": ""}
        device.put(f"/trails/{device.id}/steps/1/progress", {"status": "ERROR", "progress": 100})
        assert next(found) == {"kind": "step.progress", "subject": device.id, "text": "Revision 1: ERROR"}
        user.delete(f"/devices/{device.id}")
        assert next(found)["kind"] == "device.removed"


def test_open_pages_do_not_keep_the_hub_from_stopping(tmp_path: Any) -> None:
    with running_hub(str(tmp_path / "data")) as hub, httpx.Client(base_url=hub.url, timeout=60) as browser:
        sign_in(browser)
        with browser.stream("GET", "/dash-ui/events") as stream:
            lines = stream.iter_lines()
            assert hub.process is not None
            hub.process.terminate()
            assert list(events(lines)) == []
        assert hub.process.wait(30) == 0
