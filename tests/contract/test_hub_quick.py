"""The shortest way of an idle poll gives the bytes of the ordinary way, and nothing that is not true any more."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, DeviceCaller, claimed_device, post_revision

POLL = '/steps?progress.status=%7B"$in":["NEW","DOWNLOADING","INPROGRESS","TESTING","QUEUED"]%7D'


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    data_dir = str(tmp_path_factory.mktemp("hub") / "data")
    with running_hub(data_dir, arguments=["--no-rate-limits"]) as running:
        yield running


@pytest.fixture
def user(hub: HubProcess) -> Iterator[Caller]:
    with httpx.Client(base_url=hub.url, timeout=30) as client:
        yield Caller(client).login("user1", "user1")


@pytest.fixture
def device(user: Caller) -> DeviceCaller:
    return claimed_device(user).start_trail()


class Wire:
    """One connection, requests as bytes."""

    def __init__(self, hub: HubProcess) -> None:
        self.sock = socket.create_connection(("127.0.0.1", hub.port), timeout=30)
        self.file = self.sock.makefile("rb")

    def ask(self, target: str, token: str, *, more: str = "", version: str = "1.1", method: str = "GET") -> bytes:
        head = f"{method} {target} HTTP/{version}\r\nHost: hub\r\nAuthorization: Bearer {token}\r\n{more}\r\n"
        self.sock.sendall(head.encode())
        return self.answer()

    def answer(self) -> bytes:
        lines = []
        while (line := self.file.readline()) != b"\r\n":
            assert line, lines
            lines.append(line)
        (length,) = [int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length")]
        return b"".join(lines) + b"\r\n" + self.file.read(length)

    def close(self) -> None:
        self.file.close()
        self.sock.close()


@pytest.fixture
def wire(hub: HubProcess) -> Iterator[Wire]:
    made = Wire(hub)
    yield made
    made.close()


def plain(answer: bytes) -> bytes:
    return re.sub(rb"(x-runtime|date): [^\r]+", rb"\1: ", answer)


def test_a_fresh_connection_may_begin_with_a_poll_that_is_known(hub: HubProcess, device: DeviceCaller) -> None:
    for _ in range(4):
        made = Wire(hub)
        for _ in range(2):
            assert made.ask(f"/trails/{device.id}/steps", device.token).endswith(b"[]")
        assert made.ask(f"/devices/{device.id}", device.token).startswith(b"HTTP/1.1 200")
        made.close()


@pytest.mark.parametrize("what", ["steps", "user-meta"])
def test_both_ways_answer_the_same_bytes(wire: Wire, device: DeviceCaller, what: str) -> None:
    target = f"/trails/{device.id}{POLL}" if what == "steps" else f"/devices/{device.id}/user-meta"
    answers = {plain(wire.ask(target, device.token)) for _ in range(5)}
    ordinary = plain(wire.ask(target, device.token, more="X-Trace-Id: 1\r\n"))
    assert answers == {ordinary}
    assert (b"phjsonformat" in ordinary) is (what == "steps")


def test_what_is_written_is_seen_by_the_very_next_poll(wire: Wire, user: Caller, device: DeviceCaller) -> None:
    steps, meta = f"/trails/{device.id}{POLL}", f"/devices/{device.id}/user-meta"
    for _ in range(3):
        assert wire.ask(steps, device.token).endswith(b"[]")
        assert wire.ask(meta, device.token).endswith(b"{}")
    post_revision(user, device.id, {"#spec": SPEC})
    assert b'"rev":1' in wire.ask(steps, device.token)
    user.patch(meta, {"a": 1})
    assert wire.ask(meta, device.token).endswith(b'{"a":1}')
    user.delete(f"/devices/{device.id}")
    assert wire.ask(steps, device.token).startswith(b"HTTP/1.1 404")
    assert wire.ask(meta, device.token).startswith(b"HTTP/1.1 404")


def test_another_token_target_method_or_header_goes_the_ordinary_way(
    wire: Wire, user: Caller, device: DeviceCaller
) -> None:
    sibling = claimed_device(user).start_trail()
    target = f"/trails/{device.id}/steps"
    for _ in range(3):
        assert wire.ask(target, device.token).startswith(b"HTTP/1.1 200")
    assert wire.ask(target, sibling.token).startswith(b"HTTP/1.1 403")
    assert wire.ask(target, device.token + "x").startswith(b"HTTP/1.1 401")
    assert wire.ask(target, device.token, more="Authorization: Bearer x\r\n").startswith(b"HTTP/1.1 401")
    assert b"access-control-allow-origin" in wire.ask(target, device.token, more="Origin: https://x\r\n")
    assert wire.ask(target, device.token, method="PUT").startswith(b"HTTP/1.1 405")
    assert wire.ask(target, device.token).startswith(b"HTTP/1.1 200")


def test_requests_in_a_row_are_answered_in_order(wire: Wire, device: DeviceCaller) -> None:
    target, meta = f"/trails/{device.id}/steps", f"/devices/{device.id}/user-meta"
    for _ in range(2):
        wire.ask(target, device.token)
        wire.ask(meta, device.token)
    head = f"HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {device.token}\r\n"
    slow = f"GET /devices/{device.id} {head}\r\n"
    row = [f"GET {target} {head}\r\n", slow, f"GET {meta} {head}\r\n", slow, f"GET {target} {head}\r\n"]
    wire.sock.sendall("".join(row).encode())
    answers = [wire.answer() for _ in row]
    assert [answer[-2:] for answer in (answers[0], answers[2], answers[4])] == [b"[]", b"{}", b"[]"]
    assert all(device.id.encode() in answers[number] for number in (1, 3))


def test_http_1_0_and_close_end_the_connection(hub: HubProcess, device: DeviceCaller) -> None:
    target = f"/trails/{device.id}/steps"
    for more, version in (("", "1.0"), ("Connection: close\r\n", "1.1")):
        made = Wire(hub)
        made.ask(target, device.token) if version == "1.1" else None
        made.ask(target, device.token, more=more, version=version)
        assert made.file.read() == b""
        made.close()


def test_polls_are_counted_and_devices_seen(hub: HubProcess, wire: Wire, user: Caller, device: DeviceCaller) -> None:
    secret = (Path(hub.data_dir) / "keys" / "operator.secret").read_text()

    def count() -> int:
        text = user.client.get("/metrics/", auth=("saadmin", secret)).text
        found = re.search(r'hub_requests_total\{method="GET",route="/trails/\{id\}/steps",status="200"\} (\d+)', text)
        return int(found[1]) if found else 0

    before = count()
    for _ in range(7):
        wire.ask(f"/trails/{device.id}/steps", device.token)
    assert count() == before + 7
    assert user.get(f"/trails/{device.id}/summary").json()["real-ip"] == "127.0.0.1"
