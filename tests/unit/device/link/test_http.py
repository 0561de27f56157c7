"""The agent's HTTP against a server that sends any bytes: the good is read, the rest is refused, in bounded time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.device.link.http import (
    Address,
    Client,
    HttpProtocolError,
    HubUnreachableError,
    Proxy,
    Transport,
    Upload,
    parse_url,
)


class Canned:
    """A server on loopback that answers the nth request of a connection with the nth canned bytes, then closes."""

    def __init__(self, *connections: list[bytes | Callable[[socket.socket], None]]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.received: list[bytes] = []
        self._connections = connections
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for answers in self._connections:
            sock, _ = self._listener.accept()
            with sock:
                sock.settimeout(5)
                self._answer(sock, answers)

    def _answer(self, sock: socket.socket, answers: list[bytes | Callable[[socket.socket], None]]) -> None:
        for answer in answers:
            data = b""
            while b"\r\n\r\n" not in data:
                more = sock.recv(65536)
                if not more:
                    return
                data += more
            head, _, body = data.partition(b"\r\n\r\n")
            for line in head.split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    while len(body) < int(line.split(b":")[1]):
                        body += sock.recv(65536)
            self.received.append(head + b"\r\n\r\n" + body)
            try:
                if callable(answer):
                    answer(sock)
                else:
                    sock.sendall(answer)
            except OSError:
                return

    def close(self) -> None:
        self._listener.close()
        self._thread.join(10)


@pytest.fixture
def canned() -> Iterator[Callable[..., tuple[Client, Canned]]]:
    made: list[Canned] = []
    clients: list[Client] = []

    def make(*connections: list[bytes | Callable[[socket.socket], None]], **kwargs: object) -> tuple[Client, Canned]:
        server = Canned(*connections)
        made.append(server)
        client = Client(Address("http", "127.0.0.1", server.port), transport(**kwargs))
        clients.append(client)
        return client, server

    yield make
    for client in clients:
        client.close()
    for server in made:
        server.close()


def transport(timeout_s: float = 2.0, proxy: Proxy | None = None) -> Transport:
    def no_tls() -> object:
        raise AssertionError("no TLS in these tests")

    return Transport(timeout_s, no_tls, proxy, "Test/1")  # type: ignore[arg-type]  # the fake has what is used


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_a_request_says_host_agent_and_length(canned: Callable[..., tuple[Client, Canned]]) -> None:
    client, server = canned([OK])
    response = client.request("POST", "/x?y=1", body=b"abc", headers={"Authorization": "Bearer t"})
    assert (response.status, response.body) == (200, b"ok")
    head = server.received[0].decode()
    assert head.startswith("POST /x?y=1 HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{server.port}\r\n" in head
    assert "User-Agent: Test/1\r\n" in head
    assert "Content-Length: 3\r\n" in head
    assert head.endswith("\r\n\r\nabc")


def test_the_connection_is_used_again(canned: Callable[..., tuple[Client, Canned]]) -> None:
    client, _ = canned([OK, OK, b"HTTP/1.1 204 No Content\r\n\r\n"])
    assert [client.request("GET", "/").status for _ in range(3)] == [200, 200, 204]
    assert client.connections == 1


def test_a_kept_connection_that_the_hub_closed_is_no_failure(canned: Callable[..., tuple[Client, Canned]]) -> None:
    client, _ = canned([OK], [OK])
    assert client.request("GET", "/").status == 200
    assert client.request("GET", "/").status == 200
    assert client.connections == 2


def test_a_post_is_never_sent_twice(canned: Callable[..., tuple[Client, Canned]]) -> None:
    client, server = canned([OK, lambda sock: sock.close()])
    client.request("GET", "/")
    with pytest.raises(HubUnreachableError):
        client.request("POST", "/devices/")
    assert len(server.received) == 2


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: x\r\n\r\n",
            b"abcde",
        ),
        (b"HTTP/1.0 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 200\r\nCONTENT-LENGTH:2\r\ncontent-length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", b"ok"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", b""),
    ],
    ids=["chunked", "to-the-end", "interim", "same-length-twice", "bare-lf", "not-modified"],
)
def test_good_answers(canned: Callable[..., tuple[Client, Canned]], answer: bytes, body: bytes) -> None:
    client, _ = canned([answer])
    assert client.request("GET", "/").body == body


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 101,
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 40000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 1000 + b"\r\n" + b"Z: z\r\n" * 9000,
        b"HTTP/1.1 100 C\r\n\r\n" * 20,
    ],
)
def test_bad_answers_are_refused(canned: Callable[..., tuple[Client, Canned]], answer: bytes) -> None:
    client, _ = canned([answer])
    with pytest.raises(HttpProtocolError):
        client.request("GET", "/", max_body_bytes=100)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"])
def test_an_answer_that_ends_early_is_a_broken_connection(
    canned: Callable[..., tuple[Client, Canned]], answer: bytes
) -> None:
    client, _ = canned([answer])
    with pytest.raises(HubUnreachableError, match="connection"):
        client.request("GET", "/")


@given(st.binary(max_size=300))
def test_any_bytes_are_an_answer_or_an_error_of_ours(junk: bytes) -> None:
    server = Canned([b"HTTP/1.1 200 OK\r\n" + junk])
    client = Client(Address("http", "127.0.0.1", server.port), transport(0.5))
    try:
        client.request("GET", "/", max_body_bytes=1000)
    except (HttpProtocolError, HubUnreachableError):
        pass
    finally:
        client.close()
        server.close()


def test_silence_ends_after_the_timeout(canned: Callable[..., tuple[Client, Canned]]) -> None:
    done = threading.Event()
    client, _ = canned([lambda sock: done.wait(5)], timeout_s=0.2)  # type: ignore[list-item,return-value]  # what wait() gives is not looked at
    began = time.monotonic()
    with pytest.raises(HubUnreachableError, match="did not answer in time"):
        client.request("GET", "/")
    assert time.monotonic() - began < 2
    done.set()


def test_a_slow_drip_ends_although_it_is_never_silent(canned: Callable[..., tuple[Client, Canned]]) -> None:
    done = threading.Event()

    def drip(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not done.wait(0.05):
            sock.sendall(b"x")

    client, _ = canned([drip], timeout_s=0.2)
    with pytest.raises(HubUnreachableError, match="did not answer in time"):
        client.request("GET", "/")
    done.set()


def test_a_download_that_drips_ends(canned: Callable[..., tuple[Client, Canned]]) -> None:
    done = threading.Event()

    def drip(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not done.wait(0.02):
            sock.sendall(b"x")

    client, _ = canned([drip], timeout_s=0.2)
    got = bytearray()
    with pytest.raises(HubUnreachableError, match="did not answer in time"):
        client.download("/", offset=0, expected_bytes=1000, sink=got.extend)
    assert 0 < len(got) < 1000, "what came is kept to resume from"
    done.set()


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(HubUnreachableError, match=f"No connection to 127.0.0.1:{port}"):
        Client(Address("http", "127.0.0.1", port), transport()).request("GET", "/")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 206 P\r\nContent-Range: bytes 3-5/6\r\nContent-Length: 3\r\n\r\ndef", (206, True, b"def")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdef", (200, False, b"")),
        (b"HTTP/1.1 416 R\r\nContent-Length: 0\r\n\r\n", (416, False, b"")),
        (b"HTTP/1.1 302 F\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n", (302, False, b"")),
    ],
    ids=["resumed", "range-ignored", "not-satisfiable", "redirect-not-followed"],
)
def test_resuming(
    canned: Callable[..., tuple[Client, Canned]], answer: bytes, expected: tuple[int, bool, bytes]
) -> None:
    client, server = canned([answer])
    got = bytearray()
    status, used = client.download("/o", offset=3, expected_bytes=6, sink=got.extend)
    assert (status, used, bytes(got)) == expected
    assert b"\r\nRange: bytes=3-\r\n" in server.received[0]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 206 P\r\nContent-Range: bytes 0-5/6\r\nContent-Length: 6\r\n\r\nabcdef",
        b"HTTP/1.1 206 P\r\nContent-Length: 3\r\n\r\ndef",
        b"HTTP/1.1 206 P\r\nContent-Range: bytes 3-9/10\r\nContent-Length: 7\r\n\r\ndefghij",
        b"HTTP/1.1 206 P\r\nContent-Range: bytes 3-5/6\r\n\r\ndefghij",
    ],
    ids=["other-range", "no-range", "too-long", "too-long-unannounced"],
)
def test_bad_ranges_are_refused(canned: Callable[..., tuple[Client, Canned]], answer: bytes) -> None:
    client, _ = canned([answer])
    with pytest.raises(HttpProtocolError):
        client.download("/o", offset=3, expected_bytes=6, sink=lambda _: None)


def test_a_large_body_is_read_while_it_is_sent(canned: Callable[..., tuple[Client, Canned]]) -> None:
    client, server = canned([OK])
    pieces = [b"a" * 100_000, b"b" * 100_000]
    assert client.request("PUT", "/o", body=Upload(200_000, lambda: iter(pieces))).status == 200
    assert server.received[0].endswith(b"".join(pieces))


def test_a_proxy_is_asked_for_a_tunnel() -> None:
    server = Canned([b"HTTP/1.1 200 Connection established\r\n\r\n", OK])
    proxy = Proxy("127.0.0.1", server.port, connect=True)
    client = Client(Address("http", "hub.example", 12365), transport(proxy=proxy))
    assert client.request("GET", "/x").body == b"ok"
    client.close()
    server.close()
    assert server.received[0].startswith(b"CONNECT hub.example:12365 HTTP/1.1\r\nHost: hub.example:12365\r\n")
    assert server.received[1].startswith(b"GET /x HTTP/1.1\r\nHost: hub.example:12365\r\n")


def test_a_proxy_that_refuses_is_named() -> None:
    server = Canned([b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"])
    client = Client(Address("http", "hub.example", 80), transport(proxy=Proxy("127.0.0.1", server.port, connect=True)))
    with pytest.raises(HubUnreachableError, match="the proxy answered 407"):
        client.request("GET", "/")
    server.close()


def test_a_proxy_without_connect_speaks_for_the_hub() -> None:
    server = Canned([OK])
    client = Client(Address("http", "hub.example", 80), transport(proxy=Proxy("127.0.0.1", server.port, connect=False)))
    assert client.request("GET", "/x").body == b"ok"
    client.close()
    server.close()
    assert server.received[0].startswith(b"GET /x HTTP/1.1\r\nHost: hub.example\r\n")


def test_a_header_cannot_smuggle_a_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = Client(Address("http", "127.0.0.1", server.getsockname()[1]), transport())
        with pytest.raises(HttpProtocolError, match="line end"):
            client.request("GET", "/", headers={"Authorization": "x\r\nHost: evil"})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://hub.example/local-s3/tok", (Address("https", "hub.example", 443), "/local-s3/tok")),
        ("https://hub.example:12366?a=b", (Address("https", "hub.example", 12366), "/?a=b")),
        ("http://[::1]:80/x#frag", (Address("http", "::1", 80), "/x")),
        (
            "https://s3.example/o?X-Amz-Signature=a%2Fb",
            (Address("https", "s3.example", 443), "/o?X-Amz-Signature=a%2Fb"),
        ),
    ],
)
def test_good_addresses(url: str, expected: tuple[Address, str]) -> None:
    assert parse_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://hub/x",
        "file:///etc/shadow",
        "https://",
        "https:///x",
        "https://user:pw@hub/x",
        "https://hub:0/x",
        "https://hub:99999/x",
        "https://hub:8o/x",
        "https://[::1/x",
        "https://[::1]x/",
        "https://hub/a b",
        "https://hub/a\r\nHost: evil",
        "https://hub/\u00e9",
        "https://hub/" + "x" * 9000,
    ],
)
def test_bad_addresses(url: str) -> None:
    with pytest.raises(HttpProtocolError):
        parse_url(url)
