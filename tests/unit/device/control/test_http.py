"""The server's HTTP with bytes that strangers send: an answer with a reason, or none, never an exception."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brickless.device.control import http
from brickless.device.control.http import HttpError
from brickless.testkit.control import ControlLab

GOOD = b"GET /groups HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /groups\r\n\r\n",
        b"GET /groups HTTP/2.0\r\n\r\n",
        b"GET groups HTTP/1.1\r\n\r\n",
        b"G\xc3\x89T / HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET /%zz HTTP/1.1\r\n\r\n",
        b"GET /%ff HTTP/1.1\r\n\r\n",
        b"GET /groups HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /groups HTTP/1.1\r\n Folded: x\r\n\r\n",
        b"GET /groups HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /groups HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /groups HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /groups HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET /groups HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET /groups HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"PUT /containers/web HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"PUT /containers/web HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 400,
        b"PUT /containers/web HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"GET /groups HTTP/1.1\r\nHost: local",
    ],
)
def test_what_is_no_request_is_answered_with_400(lab: ControlLab, head: bytes) -> None:
    answer = lab.raw(head)
    assert answer.status == 400
    assert answer.error


def test_lenient_where_it_does_no_harm(lab: ControlLab) -> None:
    assert lab.raw(GOOD).status == 200
    assert lab.raw(GOOD.replace(b"\r\n", b"\n")).status == 200
    assert lab.raw(b"GET http://localhost/groups HTTP/1.0\r\n\r\n").status == 200
    assert lab.raw(b"GET /%67roups?x=1 HTTP/1.1\r\nHost:\r\n\r\n").status == 200
    assert lab.raw(b"").status == 0, "who says nothing gets nothing"


def test_head_has_no_body(lab: ControlLab) -> None:
    assert lab.raw(b"HEAD /nosuch HTTP/1.1\r\n\r\n").body == b""


@given(st.binary(max_size=400))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_bytes(lab: ControlLab, data: bytes) -> None:
    assert lab.raw(data).status in {0, 200, 400}


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_chunked_body(lab: ControlLab, data: bytes) -> None:
    head = b"PUT /user-meta/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert lab.raw(head + data).status in {200, 400}


@pytest.mark.parametrize(("text", "expected"), [("a", "a"), ("%41b", "Ab"), ("%C3%A4", "ä"), ("%2F", "/")])
def test_unquote(text: str, expected: str) -> None:
    assert http.unquote(text) == expected


def test_a_retry_is_told_in_the_header() -> None:
    response = http.error_response(HttpError(503, "later", retry_after_s=600))
    assert response.headers == {"Retry-After": "600"}
