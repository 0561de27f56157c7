"""The dashboard in a real Chromium: what people do there; axe on every page; bytes on the wire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import Caller, DeviceCaller
from brickless.testkit.hub_fleet import Fleet, furnished

pytestmark = pytest.mark.needs("chromium")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
MAX_PAGE_BYTES = 300_000
PATIENCE_MS = 60_000


class World(NamedTuple):
    """A hub with a furnished fleet, and a browser."""

    hub: HubProcess
    fleet: Fleet
    browser: Browser


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    data_dir = str(tmp_path_factory.mktemp("hub") / "data")
    with (
        running_hub(data_dir, arguments=["--no-rate-limits"]) as hub,
        httpx.Client(base_url=hub.url, timeout=60) as client,
        sync_playwright() as playwright,
    ):
        fleet = furnished(Caller(client).login("user1", "user1"))
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield World(hub, fleet, browser)
        browser.close()


@pytest.fixture
def context(world: World) -> Iterator[BrowserContext]:
    made = world.browser.new_context(base_url=world.hub.url)
    made.set_default_timeout(PATIENCE_MS)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A signed-in page; an error of a script, or a rule of the content policy that was broken, fails the test."""
    faults: list[str] = []
    made = context.new_page()
    made.on("pageerror", lambda error: faults.append(str(error)))
    made.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    sign_in(made)
    yield made
    assert faults == []


def sign_in(page: Page) -> None:
    page.goto("/")
    page.get_by_label("Nick or e-mail").fill("user1")
    page.get_by_label("Password").fill("user1")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Fleet of user1")).to_be_visible()


def tab_to(page: Page, name: str, *, limit: int = 80) -> None:
    """Press Tab until what has the focus is called so, as a person without a mouse does."""
    for _ in range(limit):
        page.keyboard.press("Tab")
        found = page.evaluate(
            "() => { const e = document.activeElement; return (e.labels?.[0]?.innerText || e.innerText || '').trim() }"
        )
        if found.startswith(name):
            return
    raise AssertionError(f"no way by keyboard to {name!r}")


# -- ten tasks of people ---------------------------------------------------------------------------------------------


def test_sign_in_by_keyboard(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/")
    expect(page.get_by_label("Nick or e-mail")).to_be_focused()  # from the start, once the page is there
    page.keyboard.type("user1")
    page.keyboard.press("Tab")
    page.keyboard.type("user1")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Fleet of user1")).to_be_visible()
    expect(page.locator("#live")).to_have_text("live")


def test_claim_a_device(page: Page, world: World) -> None:
    record = Caller(world.fleet.owner.client).post("/devices/").json()
    page.get_by_role("link", name="Devices", exact=True).click()
    page.get_by_role("link", name="Claim a device").click()
    page.get_by_label("Device id").fill(record["id"])
    page.get_by_label("Challenge").fill(record["challenge"])
    page.get_by_role("button", name="Claim it").click()
    expect(page.get_by_text(record["id"])).to_be_visible()
    expect(page.get_by_text("no revision yet")).to_be_visible()


def test_claim_from_a_code_that_a_phone_reads(page: Page, world: World) -> None:
    record = Caller(world.fleet.owner.client).post("/devices/").json()
    page.goto(f"/dash-ui/claim?device={record['id']}&challenge={record['challenge']}")
    code = page.get_by_role("img", name="QR code")
    assert code.evaluate("image => image.complete && image.naturalWidth > 100")
    page.get_by_role("button", name="Claim it").click()
    expect(page.get_by_text(record["id"])).to_be_visible()


def test_find_devices_by_label_and_version(page: Page) -> None:
    page.get_by_role("link", name="Devices", exact=True).click()
    page.get_by_label("Labels").fill("site=hamburg")
    page.get_by_label("Container").fill("web=1.27")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("row", name="pump-000")).to_be_visible()
    expect(page.get_by_role("row", name="pump-001")).to_have_count(0)
    page.get_by_role("link", name="pump-000").click()
    expect(page.get_by_role("heading", name="pump-000")).to_be_visible()


def test_watch_a_device_update_live(page: Page, world: World) -> None:
    device = world.fleet.devices["pump-004"]
    page.goto(f"/dash-ui/devices/{device.id}")
    expect(page.locator("#live")).to_have_text("live")
    rev = world.fleet.deploy(device, "1.28")
    device.put(f"/trails/{device.id}/steps/{rev}/progress", report("DOWNLOADING", 40, "Retrieved 2 of 5 objects"))
    expect(page.locator("#now")).to_contain_text("Retrieved 2 of 5 objects")
    expect(page.locator("#now progress")).to_have_attribute("value", "40")
    device.put(f"/trails/{device.id}/steps/{rev}/progress", report("DONE", 100, "Update finished"))
    expect(page.locator("#now")).to_contain_text("DONE")
    expect(page.locator("#revisions")).to_contain_text("web 1.28")
    device.post("/logs/", [{"msg": "a line that comes by itself", "src": "stdout", "lvl": "INFO"}])
    expect(page.locator("#logs")).to_contain_text("a line that comes by itself")


def report(status: str, percent: int, message: str) -> dict[str, Any]:
    return {"status": status, "progress": percent, "status-msg": message}


def test_roll_back_in_two_clicks(page: Page, world: World) -> None:
    device = world.fleet.devices["pump-006"]
    page.goto(f"/dash-ui/devices/{device.id}")
    page.get_by_role("link", name="2", exact=True).click()
    expect(page.locator(".diff")).to_contain_text("nginx 1.26")
    expect(page.locator(".diff")).to_contain_text("nginx 1.27")
    page.go_back()
    page.get_by_role("button", name="Roll back to 1").click()
    page.get_by_role("button", name="Roll back now").click()
    expect(page.locator("#revisions")).to_contain_text("roll back to revision 1")


def test_pages_work_without_scripts(world: World) -> None:
    context = world.browser.new_context(base_url=world.hub.url, java_script_enabled=False)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    sign_in(page)
    device: DeviceCaller = world.fleet.devices["pump-008"]
    page.goto(f"/dash-ui/devices/{device.id}")
    page.get_by_role("button", name="Roll back to 1").click()
    page.get_by_role("button", name="Roll back now").click()
    expect(page.get_by_text("roll back to revision 1")).to_be_visible()
    context.close()


def test_change_metadata_by_keyboard(page: Page, world: World) -> None:
    device = world.fleet.devices["pump-002"]
    page.goto(f"/dash-ui/devices/{device.id}")
    tab_to(page, "User metadata")
    page.keyboard.press("Control+A")
    page.keyboard.type("owner=plant 4")
    tab_to(page, "Save metadata")
    page.keyboard.press("Enter")
    page.wait_for_load_state()
    expect(page.get_by_label("User metadata")).to_have_value("owner=plant 4")
    assert world.fleet.owner.get(f"/devices/{device.id}/user-meta").json() == {"owner": "plant 4"}


def test_make_a_release_and_roll_it_out_then_pause_and_abort(page: Page, world: World) -> None:
    page.goto("/dash-ui/releases")
    page.get_by_label("Name", exact=True).fill("web-by-hand")
    page.get_by_label("From the device").fill("pump-000")
    page.get_by_label("Revision").fill("1")
    page.get_by_label("Parts", exact=False).first.fill("#web")
    page.get_by_label("The parts may be without a signature").check()
    page.get_by_role("button", name="Make the release").click()
    page.get_by_role("row", name="web-by-hand").get_by_role("link", name="Roll out").click()
    expect(page.get_by_label("Release", exact=True)).to_have_value("web-by-hand")
    page.get_by_label("Devices, by labels").fill("site=hamburg")
    page.get_by_label("Name", exact=True).fill("by hand")
    page.get_by_role("button", name="Look first").click()
    expect(page.get_by_text("devices match")).to_be_visible()
    page.get_by_role("button", name="Start the rollout").click()
    expect(page.get_by_role("heading", name="by hand")).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Pause it").click()
    expect(page.locator("#now")).to_contain_text("paused")
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Resume it").click()
    page.get_by_role("button", name="Abort").click()
    page.get_by_role("button", name="Abort it").click()
    expect(page.locator("#now")).to_contain_text("aborted")


def test_pause_a_rollout_by_keyboard(page: Page, world: World) -> None:
    page.goto(f"/dash-ui/rollouts/{world.fleet.rollout}")
    tab_to(page, "Pause")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Pause it")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Pause it")).to_be_hidden()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Pause it")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#now")).to_contain_text("paused")
    tab_to(page, "Resume")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page.locator("#now")).not_to_contain_text("paused")


def test_invite_a_member_and_read_it_in_the_audit_log(page: Page) -> None:
    page.get_by_role("link", name="Settings").click()
    page.get_by_label("Name of a new organisation").fill("by-hand")
    page.get_by_role("button", name="Make an organisation").click()
    page.get_by_label("Account").select_option("by-hand")
    page.get_by_role("button", name="Switch").click()
    page.get_by_role("link", name="Settings").click()
    page.get_by_label("E-mail address").fill("ada@example.com")
    page.get_by_label("Role", exact=True).select_option("operator")
    page.get_by_role("button", name="Invite").click()
    expect(page.locator("#secret")).not_to_be_empty()
    page.get_by_role("link", name="Audit").click()
    expect(page.get_by_text("POST /dash-ui/settings/invitations")).to_be_visible()
    page.get_by_role("link", name="Verify the log").click()
    expect(page.get_by_text("The log is whole")).to_be_visible()


def test_make_and_delete_a_token(page: Page) -> None:
    page.get_by_role("link", name="Tokens").click()
    page.get_by_label("Name").first.fill("from-a-browser")
    page.get_by_role("button", name="Make a token").click()
    expect(page.locator("#secret")).not_to_be_empty()
    page.get_by_role("link", name="Go on").click()
    page.get_by_role("row", name="from-a-browser").get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete it").locator("visible=true").click()
    expect(page.get_by_role("row", name="from-a-browser")).to_have_count(0)


# -- every page ------------------------------------------------------------------------------------------------------


def pages(fleet: Fleet) -> dict[str, str]:
    """Every kind of page."""
    device = f"/dash-ui/devices/{fleet.devices['pump-000'].id}"
    return {
        "fleet": "/", "devices": "/dash-ui/devices", "device": device, "revision": f"{device}/revisions/2",
        "claim": "/dash-ui/claim", "releases": "/dash-ui/releases", "rollouts": "/dash-ui/rollouts",
        "rollout": f"/dash-ui/rollouts/{fleet.rollout}", "audit": "/dash-ui/audit?verify=1",
        "tokens": "/dash-ui/tokens",
        "settings": "/dash-ui/settings", "webhook": f"/dash-ui/settings/webhooks/{fleet.webhook}",
        "invitation": "/dash-ui/invitation", "missing": "/dash-ui/devices/000000000000000000000000",
    }  # fmt: skip


def serious(page: Page) -> list[str]:
    """What axe finds that keeps people from using the page."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {[node['html'] for node in one['nodes']][:3]}"
        for one in found
        if one["impact"] in {"serious", "critical"}
    ]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)])
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_screen(world: World, scheme: Any, width: int) -> None:
    context = world.browser.new_context(
        base_url=world.hub.url, color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto("/")
    found = {"sign-in": serious(page)}
    sign_in(page)
    for name, place in pages(world.fleet).items():
        page.goto(place)
        found[name] = serious(page)
        if page.evaluate("document.documentElement.scrollWidth") > width:
            found[name].append(f"wider than {width} pixels")
    context.close()
    assert {name: faults for name, faults in found.items() if faults} == {}


def test_pages_are_small(world: World, context: BrowserContext) -> None:
    page = context.new_page()
    sign_in(page)
    sizes: dict[str, int] = {}
    for name, place in pages(world.fleet).items():
        received: list[int] = []
        page.on("requestfinished", lambda done, received=received: received.append(size_of(done)))
        with page.expect_request_finished(lambda request: request.is_navigation_request()):
            page.goto(place, wait_until="load")
        sizes[name] = sum(received)
    assert {name: size for name, size in sizes.items() if size > MAX_PAGE_BYTES} == {}
    assert sizes["fleet"] > 1000


def size_of(request: Any) -> int:
    found = request.sizes()
    return int(found["responseBodySize"]) + int(found["responseHeadersSize"])
