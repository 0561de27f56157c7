"""What is changed on the way: requests that name their caller, logins that are for a role; hostile bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core.errors import HostileInputError
from brickless.device.xconnect.filters import Login, Requests

OURS = b"X-PV-Client: web\r\nX-PV-Role: reader\r\n\r\n"


def feed(data: bytes, size: int = 1 << 20) -> bytes:
    one = Requests("web", "reader")
    return b"".join(one.feed(data[at : at + size]) for at in range(0, len(data), size))


def test_each_request_of_a_connection_names_the_caller() -> None:
    get = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
    post = b"POST /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
    named = get[:-2] + OURS, b"POST /b HTTP/1.1\r\nContent-Length: 3\r\n" + OURS + b"abc"
    assert feed(get + post + get) == named[0] + named[1] + named[0]


@pytest.mark.parametrize(
    "header",
    [
        b"X-PV-Client: root",
        b"x-pv-client: root",
        b"X_PV_CLIENT: root",
        b"X-Pv_Role: root",
        b"Upgrade: root",
        b"Trailer: root",
        b"Keep-Alive: root",
    ],
)
def test_what_claims_to_be_ours_is_taken_out(header: bytes) -> None:
    out = feed(b"GET / HTTP/1.1\r\n" + header + b"\r\nHost: x\r\n\r\n")
    assert out == b"GET / HTTP/1.1\r\nHost: x\r\n" + OURS


def test_connection_names_no_header_to_take_out_further_on() -> None:
    out = feed(b"GET / HTTP/1.1\r\nConnection: close, X-PV-Client\r\n\r\n")
    assert out == b"GET / HTTP/1.1\r\nConnection: close\r\n" + OURS


def test_chunks_go_on_without_extensions_and_trailers() -> None:
    data = b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX-PV-Client: root\r\n\r\n"
    want = b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + OURS + b"3\r\nabc\r\n0\r\n\r\n"
    assert feed(data) == want
    assert feed(data + b"GET / HTTP/1.1\r\n\r\n") == want + b"GET / HTTP/1.1\r\n" + OURS


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent_Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\nX-PV-Client: root\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\rX-PV-Client: root\r\n\r\n",
        b"GET / HTTP/1.1\nX-PV-Client: root\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01 tls\r\n\r\n",
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\n",
        b"A" * 70000,
    ],
)
def test_what_two_readers_could_read_differently_is_refused(data: bytes) -> None:
    with pytest.raises(HostileInputError):
        feed(data)


@given(st.integers(1, 40), st.binary(max_size=60))
def test_pieces_make_no_difference(size: int, body: bytes) -> None:
    data = b"POST / HTTP/1.1\r\nContent-Length: %d\r\nHost: x\r\n\r\n" % len(body) + body
    assert feed(data * 3, size) == feed(data * 3)


@given(st.binary(max_size=300))
def test_any_bytes_are_passed_on_with_our_headers_or_refused(data: bytes) -> None:
    try:
        out = feed(b"GET / HTTP/1.1\r\n" + data)
    except HostileInputError:
        return
    assert not out or OURS in out


def test_a_login_is_for_the_role_whatever_the_caller_says() -> None:
    login = Login(90001)
    assert login.feed(b"\0AUTH EXTERNAL 30\r\n") == b"\0AUTH EXTERNAL 3930303031\r\n"
    assert login.feed(b"NEGOTIATE_UNIX_FD\r\nBEGIN\r\nl\1") == b"NEGOTIATE_UNIX_FD\r\nBEGIN\r\nl\1"
    assert login.feed(b"AUTH EXTERNAL 30\r\n") == b"AUTH EXTERNAL 30\r\n"


def test_a_login_in_two_steps_is_for_the_role_too() -> None:
    login = Login(7)
    assert login.feed(b"\0AUTH EXTERNAL\r\nDATA 30\r\n") == b"\0AUTH EXTERNAL\r\nDATA 37\r\n"
    assert login.feed(b"DATA\r\n") == b"DATA 37\r\n"


@pytest.mark.parametrize("data", [b"AUTH EXTERNAL 30\r\n", b"\0AUTH ANONYMOUS\r\n", b"\0AUTH DBUS_COOKIE_SHA1 x\r\n"])
def test_other_logins_are_refused(data: bytes) -> None:
    with pytest.raises(HostileInputError):
        Login(7).feed(data)


def test_a_login_without_an_end_is_refused() -> None:
    with pytest.raises(HostileInputError, match="longer than"):
        Login(7).feed(b"\0" + b"A" * 20000)
