"""Webhooks to a real receiver: signed, in CloudEvents, tried again, logged, kept from private addresses."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import queue
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import httpx
import pytest

from brickless.hub.domain import webhooks
from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, claimed_device, post_revision


class Got(NamedTuple):
    """A request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """A web server on loopback that answers what it is told to, 204 otherwise."""

    def __init__(self) -> None:
        self.got: queue.Queue[Got] = queue.Queue()
        self.answers: queue.Queue[int] = queue.Queue()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.got.put(Got(self.path, {key.lower(): value for key, value in self.headers.items()}, body))
                try:
                    status = outer.answers.get_nowait()
                except queue.Empty:
                    status = 204
                self.send_response(status)
                self.send_header("Location", f"{outer.url}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def next(self) -> Got:
        return self.got.get(timeout=60)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, hub_database: list[str]) -> Iterator[HubProcess]:
    data_dir = str(tmp_path_factory.mktemp("hub") / "data")
    arguments = ["--no-rate-limits", "--webhook-networks", "127.0.0.0/8", *hub_database]
    with running_hub(data_dir, arguments=arguments) as running:
        yield running


@pytest.fixture
def user(hub: HubProcess) -> Iterator[Caller]:
    with httpx.Client(base_url=hub.url, timeout=60) as client:
        yield Caller(client).login("user1", "user1")


@pytest.fixture
def receiver(user: Caller) -> Iterator[Receiver]:
    made = Receiver()
    yield made
    for webhook in user.get("/webhooks/").json():
        user.delete(f"/webhooks/{webhook['id']}").raise_for_status()
    made.server.shutdown()
    made.server.server_close()


def hook(user: Caller, receiver: Receiver, **more: Any) -> dict[str, Any]:
    answer = user.post("/webhooks/", {"url": f"{receiver.url}/hook", **more})
    answer.raise_for_status()
    made: dict[str, Any] = answer.json()
    return made


def settled(user: Caller, webhook: dict[str, Any], state: str) -> dict[str, Any]:
    """The newest delivery, once it is in this state."""
    deadline_s = time.monotonic() + 60
    while True:
        newest: dict[str, Any] = user.get(f"/webhooks/{webhook['id']}/deliveries").json()[0]
        if newest["state"] == state and (newest["error"] or state == "delivered"):
            return newest
        assert time.monotonic() < deadline_s, newest


def test_events_arrive_signed_as_cloudevents(user: Caller, receiver: Receiver) -> None:
    webhook = hook(user, receiver, events=["step.posted"])
    device = claimed_device(user).start_trail()
    assert json.loads(receiver.next().body)["data"]["rev"] == 0
    post_revision(user, device.id, {"#spec": SPEC})
    got = receiver.next()
    event = json.loads(got.body)
    assert got.path == "/hook"
    assert got.headers["content-type"].startswith("application/cloudevents+json")
    assert {name: event[name] for name in ("specversion", "type", "subject", "source")} == {
        "specversion": "1.0",
        "type": "io.brickless.step.posted",
        "subject": device.id,
        "source": "prn:pantahub.com:auth:/user1",
    }
    assert event["data"]["rev"] == 1
    key = base64.b64decode(webhook["secret"].removeprefix("whsec_"))
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert got.headers["webhook-signature"] == f"v1,{expected}"
    assert abs(int(got.headers["webhook-timestamp"]) - time.time()) < 600
    assert settled(user, webhook, "delivered")["status"] == 204


def test_a_failed_delivery_is_tried_again_and_logged(user: Caller, receiver: Receiver) -> None:
    webhook = hook(user, receiver, events=["device.created"])
    receiver.answers.put(503)
    device = claimed_device(user)
    first = receiver.next()
    failed = settled(user, webhook, "pending")
    assert (failed["status"], failed["error"]) == (503, "the receiver answered 503")
    assert failed["next-attempt"] > failed["time-created"]
    again = receiver.next()
    assert (again.body, again.headers["webhook-id"]) == (first.body, first.headers["webhook-id"])
    assert json.loads(again.body)["subject"] == device.id
    done = settled(user, webhook, "delivered")
    assert done["attempts"] == 2


def test_a_redirect_is_not_followed(user: Caller, receiver: Receiver) -> None:
    webhook = hook(user, receiver)
    receiver.answers.put(307)
    user.post(f"/webhooks/{webhook['id']}/ping").raise_for_status()
    assert receiver.next().path == "/hook"
    assert settled(user, webhook, "pending")["status"] == 307
    assert receiver.got.empty()


def test_ping_and_retry(user: Caller, receiver: Receiver) -> None:
    webhook = hook(user, receiver, events=["rollout.*"])
    delivery = user.post(f"/webhooks/{webhook['id']}/ping").json()
    assert json.loads(receiver.next().body)["type"] == "io.brickless.webhook.ping"
    settled(user, webhook, "delivered")
    user.post(f"/webhooks/{webhook['id']}/deliveries/{delivery['id']}/retry").raise_for_status()
    assert receiver.next().headers["webhook-id"] == delivery["id"]


def test_only_ones_own_events(hub: HubProcess, user: Caller, receiver: Receiver) -> None:
    hook(user, receiver, events=["device.created"])
    stranger = Caller(user.client).login("user2", "user2")
    claimed_device(stranger)
    mine = claimed_device(user)
    assert json.loads(receiver.next().body)["subject"] == mine.id


def test_what_is_pending_survives_the_hub(user: Caller, receiver: Receiver, hub: HubProcess) -> None:
    webhook = hook(user, receiver, events=["device.created"])
    receiver.answers.put(500)
    device = claimed_device(user)
    receiver.next()
    settled(user, webhook, "pending")
    hub.kill()
    hub.start()
    assert json.loads(receiver.next().body)["subject"] == device.id
    with httpx.Client(base_url=hub.url, timeout=60) as client:
        again = Caller(client).login("user1", "user1")
        for made in again.get("/webhooks/").json():
            again.delete(f"/webhooks/{made['id']}").raise_for_status()
        user.client.base_url = hub.url  # type: ignore[assignment]  # the setter takes a text too


@pytest.mark.parametrize(
    "wanted",
    [
        {"url": "ftp://example.com/"}, {"url": ""}, {"url": "https://user:pass@example.com/"}, {"url": "https:///x"},
        {"url": "https://example.com/#x"}, {"url": "https://example.com/", "events": []},
        {"url": "https://example.com/", "events": ["nonsense"]}, {"url": f"https://example.com/{'x' * 1000}"},
        {"url": "https://example.com:99999/"}, {"url": "https://example.com/", "enabled": "yes"},
    ],
)  # fmt: skip
def test_webhooks_that_are_refused(user: Caller, wanted: dict[str, Any]) -> None:
    assert user.post("/webhooks/", wanted).status_code == 400


def test_there_is_a_limit(user: Caller, receiver: Receiver) -> None:
    for _ in range(20):
        hook(user, receiver)
    assert user.post("/webhooks/", {"url": receiver.url}).status_code == 409


def test_private_addresses_are_refused_unless_allowed(tmp_path: Any) -> None:
    with (
        running_hub(str(tmp_path / "data"), arguments=["--no-rate-limits"]) as hub,
        httpx.Client(base_url=hub.url) as c,
    ):
        user, receiver = Caller(c).login("user1", "user1"), Receiver()
        for url in (receiver.url, receiver.url.replace("127.0.0.1", "localhost"), "http://[::ffff:127.0.0.1]/"):
            webhook = user.post("/webhooks/", {"url": url}).json()
            user.post(f"/webhooks/{webhook['id']}/ping").raise_for_status()
            refused = settled(user, webhook, "pending")
            assert refused["status"] == 0
            assert "no webhook may go" in refused["error"] or "https" in refused["error"]
        assert receiver.got.empty()
        receiver.server.shutdown()
        receiver.server.server_close()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:10.0.0.1",
        "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::",
        "2001:db8::1", "192.0.2.1", "198.18.0.1",
    ],
)  # fmt: skip
def test_addresses_to_which_nothing_is_sent(address: str) -> None:
    assert not webhooks.reachable(ipaddress.ip_address(address), "https", ())


def test_addresses_to_which_webhooks_go() -> None:
    public, private = ipaddress.ip_address("93.184.216.34"), ipaddress.ip_address("10.1.2.3")
    assert webhooks.reachable(public, "https", ())
    assert webhooks.reachable(ipaddress.ip_address("2606:4700::1111"), "https", ())
    assert not webhooks.reachable(public, "http", ())
    assert webhooks.reachable(private, "http", (ipaddress.ip_network("10.0.0.0/8"),))
    assert not webhooks.reachable(private, "http", (ipaddress.ip_network("10.2.0.0/16"),))


def test_it_is_given_up_in_the_end() -> None:
    waits = [webhooks.next_due_ms(attempt, 0) for attempt in range(1, 10)]
    assert waits[-1] is None
    assert waits[:-1] == sorted(filter(None, waits[:-1]))
    assert 86_400_000 < sum(filter(None, waits)) < 3 * 86_400_000
