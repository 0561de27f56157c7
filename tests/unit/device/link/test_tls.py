"""Whom the agent trusts, and a clock that is wrong at boot: it moves forward only, and only to what has passed."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from brickless.device.link.http import Address, Client, HubUnreachableError, Transport
from brickless.device.link.tls import RELEASED_S, Clock, NoTrustError, Trust, matching
from brickless.testkit.certificates import Authority

DAY = timedelta(days=1)


class FakeClock:
    def __init__(self, now_s: float) -> None:
        self.now_s = now_s
        self.said: list[str] = []

    def set(self, seconds: float) -> None:
        self.now_s = seconds

    def clock(self, mark: Path) -> Clock:
        return Clock(str(mark), report=self.said.append, now=lambda: self.now_s, set_clock=self.set)


@contextmanager
def serving(context: ssl.SSLContext) -> Iterator[int]:
    """A TLS server that answers every connection with one empty 204."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(connection, server_side=True) as secure:
                    secure.recv(65536)
                    secure.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            except OSError:
                connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


def client(port: int, ca: str, clock: Clock, host: str = "127.0.0.1") -> Client:
    trust = Trust((ca,), clock)
    transport = Transport(5.0, trust.context)
    return Client(Address("https", host, port), transport._replace(on_early_certificate=trust.mend_clock(transport)))


def refusal(context: ssl.SSLContext, ca: Path, clock: Clock) -> str:
    """What a client says about a server that it does not talk to."""
    with serving(context) as port, pytest.raises(HubUnreachableError) as caught:
        client(port, str(ca), clock).request("GET", "/")
    return str(caught.value)


@pytest.fixture
def fake(tmp_path: Path) -> FakeClock:
    return FakeClock(RELEASED_S + 1e6)


def test_a_certificate_of_a_trusted_authority(tmp_path: Path, fake: FakeClock) -> None:
    authority = Authority(tmp_path)
    context, _ = authority.server()
    with serving(context) as port:
        found = client(port, str(tmp_path / "c*.pem"), fake.clock(tmp_path / "mark"))
        assert found.request("GET", "/").status == 204


def test_a_pinned_certificate_needs_no_authority(tmp_path: Path, fake: FakeClock) -> None:
    context, cert_file = Authority(tmp_path).server()
    with serving(context) as port:
        assert client(port, str(cert_file), fake.clock(tmp_path / "mark")).request("GET", "/").status == 204


@pytest.mark.parametrize("fault", ["other authority", "other host", "expired"])
def test_a_certificate_that_does_not_verify(tmp_path: Path, fake: FakeClock, fault: str) -> None:
    authority = Authority(tmp_path)
    trusted = Authority(tmp_path / "other").ca_file if fault == "other authority" else authority.ca_file
    hosts = ("hub.example",) if fault == "other host" else ("127.0.0.1",)
    last_day = -DAY if fault == "expired" else DAY
    context, _ = authority.server(hosts, first_day=-9 * DAY, last_day=last_day)
    assert "does not verify" in refusal(context, trusted, fake.clock(tmp_path / "mark"))
    assert fake.now_s == RELEASED_S + 1e6, "none of these moves the clock"


def test_a_certificate_that_is_too_young_moves_the_clock_to_its_first_day(tmp_path: Path, fake: FakeClock) -> None:
    authority = Authority(tmp_path)
    context, cert_file = authority.server(first_day=2 * DAY)
    # The machine's own clock stays where it is, so the second handshake fails as the first did.
    assert "not yet valid" in refusal(context, authority.ca_file, fake.clock(tmp_path / "mark"))
    first_day = x509.load_pem_x509_certificate(cert_file.read_bytes()).not_valid_before_utc.timestamp()
    assert fake.now_s == first_day + 1
    assert "first day of the hub's certificate" in fake.said[-1]


def test_a_stranger_cannot_move_the_clock(tmp_path: Path, fake: FakeClock) -> None:
    context, _ = Authority(tmp_path / "stranger").server(first_day=2 * DAY)
    trusted = Authority(tmp_path / "mine").ca_file
    assert "does not verify" in refusal(context, trusted, fake.clock(tmp_path / "mark"))
    assert fake.now_s == RELEASED_S + 1e6


def test_without_authorities_nothing_is_connected_to(tmp_path: Path, fake: FakeClock) -> None:
    trust = Trust((str(tmp_path / "*.pem"), str(tmp_path / "none.pem")), fake.clock(tmp_path / "mark"))
    with pytest.raises(NoTrustError, match="PV_HUB_CA"):
        trust.context()


def test_a_broken_authority_file_is_named(tmp_path: Path, fake: FakeClock) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(NoTrustError, match=r"ca\.pem is not a PEM file"):
        Trust((str(tmp_path / "ca.pem"),), fake.clock(tmp_path / "mark")).context()


def test_the_clock_starts_at_what_has_surely_passed(tmp_path: Path) -> None:
    mark = tmp_path / "config/clock"
    fake = FakeClock(0.0)
    assert fake.clock(mark).raise_to_floor()
    assert fake.now_s == RELEASED_S
    mark.parent.mkdir()
    mark.touch()
    os.utime(mark, (RELEASED_S + 500, RELEASED_S + 500))
    assert fake.clock(mark).raise_to_floor()
    assert fake.now_s == RELEASED_S + 500
    assert not fake.clock(mark).raise_to_floor(), "it never moves backward"


def test_a_clock_that_cannot_be_set_is_said(tmp_path: Path) -> None:
    said: list[str] = []

    def refuse(_: float) -> None:
        raise PermissionError(1, "Operation not permitted")

    clock = Clock(str(tmp_path / "mark"), report=said.append, now=lambda: 0.0, set_clock=refuse)
    assert not clock.raise_to_floor()
    assert "cannot be set" in said[0]


def test_the_mark_is_written_once_an_hour(tmp_path: Path, fake: FakeClock) -> None:
    mark = tmp_path / "config/clock"
    clock = fake.clock(mark)
    clock.hub_reached()
    assert mark.stat().st_mtime == fake.now_s
    first = mark.stat().st_mtime
    fake.now_s += 1000
    clock.hub_reached()
    assert mark.stat().st_mtime == first
    fake.now_s += 3000
    clock.hub_reached()
    assert mark.stat().st_mtime == fake.now_s


def test_patterns(tmp_path: Path) -> None:
    for name in ("a.pem", "b.pem", "c.txt"):
        (tmp_path / name).touch()
    assert matching(str(tmp_path / "*.pem")) == [str(tmp_path / "a.pem"), str(tmp_path / "b.pem")]
    assert matching(str(tmp_path / "a.pem")) == [str(tmp_path / "a.pem")]
    assert matching(str(tmp_path / "none" / "*.pem")) == []
