"""`make bench B=dashboard`: each page of the dashboard in a real Chromium, with 10,000 devices in the database.

Figures, for each page: milliseconds until it is interactive (the browser's own clock, from the start of the navigation
to the end of DOMContentLoaded), the hub's part of that, and bytes over the wire; the worst page counts. Each page is
loaded five times; the median counts. BENCH_DASHBOARD_DEVICES takes another number of devices.
"""

from __future__ import annotations

import os
import secrets
import statistics
import sys
import tempfile
import time
from typing import Any

import httpx
from playwright.sync_api import Page, sync_playwright
from sqlalchemy import create_engine, insert

from bench.hub import rows
from bench.report import report
from brickless.hub.adapters import fleet_tables
from brickless.testkit.hub import running_hub
from brickless.testkit.hub_client import Caller
from brickless.testkit.hub_fleet import Fleet, furnished

DEVICES = int(os.environ.get("BENCH_DASHBOARD_DEVICES", "10000"))
LOADS = 5
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
STATE = b'{"#spec":"pantavisor-service-system@1"}'


def fill(data_dir: str, owner: str) -> None:
    """Claimed devices with a revision and labels, straight into the database."""
    engine = create_engine(f"sqlite:///{data_dir}/hub.sqlite")
    now_ms = time.time_ns() // 1_000_000
    with engine.begin() as connection:
        for start in range(0, DEVICES, 1000):
            ids = [f"{number:08x}{secrets.token_hex(8)}" for number in range(start, min(start + 1000, DEVICES))]
            for table, row in rows(owner, STATE, now_ms).items():
                connection.execute(insert(table), [row(record_id) for record_id in ids])
            labels = [
                {"device_id": record_id, "labels": f'{{"site":"s{number % 50}"}}', "modified_ms": now_ms}
                for number, record_id in enumerate(ids)
            ]
            connection.execute(insert(fleet_tables.device_labels), labels)
    engine.dispose()


def places(fleet: Fleet) -> dict[str, str]:
    """Every page that a fleet's size could slow down, and searches."""
    device = f"/dash-ui/devices/{fleet.devices['pump-000'].id}"
    return {
        "fleet": "/", "devices": "/dash-ui/devices", "by_label": "/dash-ui/devices?labels=site%3Ds7",
        "by_status": "/dash-ui/devices?status=ERROR", "by_version": "/dash-ui/devices?container=web%3D1.27",
        "by_name": "/dash-ui/devices?q=pump", "last_page": "/dash-ui/devices?after=pump-000&id=0",
        "device": device, "revision": f"{device}/revisions/2", "releases": "/dash-ui/releases",
        "rollouts": "/dash-ui/rollouts", "rollout": f"/dash-ui/rollouts/{fleet.rollout}", "audit": "/dash-ui/audit",
        "tokens": "/dash-ui/tokens", "settings": "/dash-ui/settings",
    }  # fmt: skip


def measured(page: Page, place: str) -> dict[str, float]:
    """Median of several loads without a cache."""
    found: list[dict[str, Any]] = []
    for _ in range(LOADS):
        page.goto(place, wait_until="load")
        found.append(
            page.evaluate(
                """() => { const n = performance.getEntriesByType("navigation")[0];
                const all = [n, ...performance.getEntriesByType("resource")];
                return { interactive_ms: n.domContentLoadedEventEnd, hub_ms: n.responseStart - n.requestStart,
                         bytes: all.reduce((sum, one) => sum + one.transferSize, 0) } }"""
            )
        )
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def main() -> None:
    """Fill, look, report."""
    with (
        tempfile.TemporaryDirectory() as data,
        running_hub(f"{data}/hub", arguments=["--no-rate-limits"]) as hub,
        httpx.Client(base_url=hub.url, timeout=60) as client,
        sync_playwright() as playwright,
    ):
        user = Caller(client).login("user1", "user1")
        fleet = furnished(user)
        fill(f"{data}/hub", user.claims["prn"])
        print(f"bench dashboard: {DEVICES} devices", file=sys.stderr)
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        page = browser.new_context(base_url=hub.url).new_page()
        page.goto("/")
        page.fill("#name", "user1")
        page.fill("#password", "user1")
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector("nav")
        figures = {name: measured(page, place) for name, place in places(fleet).items()}
        browser.close()
    for name, figure in figures.items():
        shown = ", ".join(f"{value:.0f} {unit}" for unit, value in figure.items())
        print(f"{name:12} {shown}")
    flat = {f"{name}_{unit}": figure[unit] for name, figure in figures.items() for unit in ("interactive_ms", "hub_ms")}
    worst = {
        f"worst_{unit}": max(one[unit] for one in figures.values()) for unit in ("interactive_ms", "hub_ms", "bytes")
    }
    report("dashboard", {"devices": DEVICES, **worst, **flat})


if __name__ == "__main__":
    main()
