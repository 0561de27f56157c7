"""HTTP/1.1 for the agent: every byte to and from the network passes here. It trusts nothing that it reads.

Written on `socket` and `ssl` because `http.client` brings the e-mail parser, 1.9 MB of a small device's memory.
Bounded: head, body, time without a byte and time in all. TLS is always verified; redirects are never followed, for they
would take credentials elsewhere. Sources: RFC 9110, RFC 9112; timeouts and proxy keys of contracts/device.md 7.1.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from brickless.core.errors import BricklessError, HostileInputError

if TYPE_CHECKING:
    import ssl

MAX_HEAD_BYTES = 32 * 1024
#: The reference refuses larger answers (contracts/hub.md 8.2).
MAX_BODY_BYTES = 2 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
_CONNECT_TIMEOUT_S = 15.0
#: An answer may take this many times the longest silence in all.
_TOTAL_FACTOR = 3
#: A transfer below this over one span of the longest silence counts as stalled, so that a drip cannot hold it for ever.
_LEAST_BYTES_PER_S = 256
_HEX = frozenset(b"0123456789abcdefABCDEF")


class HubUnreachableError(BricklessError):
    """No answer: no route, refused, reset, too slow, or TLS that does not verify. Trying again later may help."""


class HttpProtocolError(HostileInputError):
    """The other side sent something that is not HTTP, or more than it may."""


class Address(NamedTuple):
    """Where to connect: `scheme` is `https` or `http`, `host` a name or an address (IPv6 without brackets)."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """`host[:port]` as it stands in a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


_DEFAULT_PORTS = {"https": 443, "http": 80}


class Proxy(NamedTuple):
    """A proxy. `connect`: ask it for a tunnel; otherwise it answers in the hub's name (contracts/device.md 8.1)."""

    host: str
    port: int
    connect: bool


class Response(NamedTuple):
    """A whole answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Upload(NamedTuple):
    """A body that is read while it is sent, so that it need not fit into memory. `open` may be asked twice."""

    size_bytes: int
    open: Callable[[], Iterator[bytes]]


class Transport(NamedTuple):
    """How connections are made. `tls` returns the context to use and is asked once a connection."""

    timeout_s: float
    tls: Callable[[], ssl.SSLContext]
    proxy: Proxy | None = None
    user_agent: str = "Brickless"
    #: Told of a handshake that failed because a certificate is not valid yet; True: the clock was mended, try again.
    on_early_certificate: Callable[[Address], bool] | None = None


def parse_url(url: str) -> tuple[Address, str]:
    """Address and request target (path and query) of an absolute URL. Raises HttpProtocolError."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _DEFAULT_PORTS or len(url) > 8192:
        raise HttpProtocolError(f"{url[:100]!r} is not an http or https address")
    if not url.isascii() or any(c <= " " or c == "\x7f" for c in url):
        raise HttpProtocolError(f"{url[:100]!r} has characters that no address has")
    cut = min((i for i in (rest.find(c) for c in "/?#") if i >= 0), default=len(rest))
    authority, target = rest[:cut], rest[cut:].partition("#")[0]
    if "@" in authority:
        raise HttpProtocolError("An address with a user name is refused")
    host, port = _host_port(authority, _DEFAULT_PORTS[scheme])
    return Address(scheme, host, port), target if target.startswith("/") else f"/{target}"


def _host_port(authority: str, default: int) -> tuple[str, int]:
    if authority.startswith("["):
        host, closed, rest = authority[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise HttpProtocolError(f"{authority[:100]!r} is not a host")
        port = rest[1:]
    else:
        host, _, port = authority.partition(":")
    if not host or (port and not (port.isdigit() and 0 < int(port[:6]) < 65536)):
        raise HttpProtocolError(f"{authority[:100]!r} is not a host and port")
    return host, int(port) if port else default


class _Wire:
    """A socket with a buffer and a deadline: the longest silence, and optionally a moment by which all must be done."""

    __slots__ = ("_buffer", "_socket", "_timeout_s", "until")

    def __init__(self, sock: socket.socket, timeout_s: float) -> None:
        self._socket = sock
        self._timeout_s = timeout_s
        self._buffer = bytearray()
        self.until: float | None = None

    def wrap(self, sock: socket.socket) -> None:
        self._socket = sock

    @property
    def idle(self) -> bool:
        """No unread bytes: whatever is left over after an answer makes the connection unusable."""
        return not self._buffer

    def _arm(self) -> None:
        left = self._timeout_s
        if self.until is not None:
            left = min(left, self.until - time.monotonic())
        if left <= 0:
            raise TimeoutError("the answer took too long in all")
        self._socket.settimeout(left)

    def send(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            self._arm()
            view = view[self._socket.send(view[:CHUNK_BYTES]) :]

    def _fill(self) -> bool:
        self._arm()
        data = self._socket.recv(CHUNK_BYTES)
        self._buffer += data
        return bool(data)

    def line(self, limit: int) -> bytes:
        """One line without its end. Raises HttpProtocolError when it is longer than `limit`."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > limit:
                raise HttpProtocolError(f"A line of an answer has more than {limit} bytes")
            if not self._fill():
                raise ConnectionResetError("the connection ended in the middle of an answer")
        if end > limit:
            raise HttpProtocolError(f"A line of an answer has more than {limit} bytes")
        found = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return found.removesuffix(b"\r")

    def some(self, most: int) -> bytes:
        """Between 1 and `most` bytes; `b""` at the end of the stream."""
        if not self._buffer and not self._fill():
            return b""
        data = bytes(self._buffer[:most])
        del self._buffer[: len(data)]
        return data

    def certificate(self) -> Mapping[str, object]:
        import ssl

        if not isinstance(self._socket, ssl.SSLSocket):
            raise TypeError("no TLS on this connection")
        return self._socket.getpeercert() or {}

    def close(self) -> None:
        self._socket.close()


class _Head(NamedTuple):
    status: int
    headers: dict[str, str]
    keep: bool


def _read_head(wire: _Wire) -> _Head:
    for _ in range(8):  # interim answers (1xx) are skipped, a few of them
        status, minor = _status_line(wire.line(1024))
        headers = _headers(wire)
        if status >= 200:
            keep = minor == "1" and "close" not in headers.get("connection", "").lower()
            return _Head(status, headers, keep)
    raise HttpProtocolError("The answer begins with too many interim answers")


def _status_line(line: bytes) -> tuple[int, str]:
    parts = line.split(b" ", 2)
    if len(parts) < 2 or parts[0] not in {b"HTTP/1.1", b"HTTP/1.0"} or len(parts[1]) != 3 or not parts[1].isdigit():
        raise HttpProtocolError(f"The answer is not HTTP: {line[:60]!r}")
    return int(parts[1]), parts[0][-1:].decode()


def _headers(wire: _Wire) -> dict[str, str]:
    headers: dict[str, str] = {}
    total = 0
    while line := wire.line(MAX_HEAD_BYTES):
        total += len(line)
        if total > MAX_HEAD_BYTES:
            raise HttpProtocolError(f"The head of an answer has more than {MAX_HEAD_BYTES} bytes")
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not name or name != name.strip():
            raise HttpProtocolError(f"A header line of an answer is broken: {line[:60]!r}")
        name, value = name.lower(), value.strip()
        if name in {"content-length", "transfer-encoding"} and headers.get(name, value) != value:
            raise HttpProtocolError(f"The answer has two different values of {name}")
        headers[name] = value
    return headers


class _Body(NamedTuple):
    """How the body of an answer is delimited; `length` None means to the end of the connection."""

    chunked: bool
    length: int | None


def _body_of(method: str, head: _Head) -> _Body:
    if method == "HEAD" or head.status in {204, 304}:
        return _Body(chunked=False, length=0)
    if head.headers.get("content-encoding", "identity").lower() != "identity":
        raise HttpProtocolError("The answer is compressed, which was not asked for")
    length = head.headers.get("content-length")
    coding = head.headers.get("transfer-encoding")
    if coding is not None:
        if coding.lower() != "chunked" or length is not None:
            raise HttpProtocolError("The answer says in two ways, or in an unknown one, how long it is")
        return _Body(chunked=True, length=None)
    if length is None:
        return _Body(chunked=False, length=None)
    if not length.isascii() or not length.isdigit() or len(length) > 18:
        raise HttpProtocolError(f"The answer gives its length as {length[:40]!r}")
    return _Body(chunked=False, length=int(length))


def _chunked(wire: _Wire) -> Iterator[bytes]:
    while True:
        size = wire.line(1024).partition(b";")[0].strip()
        if not size or len(size) > 15 or not _HEX.issuperset(size):
            raise HttpProtocolError(f"The answer has a piece of size {size[:20]!r}")
        left = int(size, 16)
        if left == 0:
            while wire.line(1024):  # trailers say nothing that we use
                pass
            return
        yield from _counted(wire, left)
        if wire.line(2):
            raise HttpProtocolError("A piece of the answer is longer than it said")


def _counted(wire: _Wire, length: int) -> Iterator[bytes]:
    left = length
    while left:
        data = wire.some(min(left, CHUNK_BYTES))
        if not data:
            raise ConnectionResetError(f"the connection ended {left} bytes before the end of the answer")
        left -= len(data)
        yield data


def _to_the_end(wire: _Wire) -> Iterator[bytes]:
    while data := wire.some(CHUNK_BYTES):
        yield data


def _pieces(wire: _Wire, body: _Body) -> Iterator[bytes]:
    if body.chunked:
        return _chunked(wire)
    return _to_the_end(wire) if body.length is None else _counted(wire, body.length)


class Client:
    """Requests to one address over one connection that is used again. Not for two threads at once."""

    __slots__ = ("_address", "_transport", "_wire", "bytes_received", "connections")

    def __init__(self, address: Address, transport: Transport) -> None:
        self._address = address
        self._transport = transport
        self._wire: _Wire | None = None
        #: Counted for metrics and tests.
        self.connections = 0
        self.bytes_received = 0

    @property
    def address(self) -> Address:
        """Where the requests go."""
        return self._address

    def close(self) -> None:
        """Ends the connection; the next request makes a new one."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def request(
        self,
        method: str,
        target: str,
        *,
        body: bytes | Upload = b"",
        headers: Mapping[str, str] | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> Response:
        """One exchange. Raises HubUnreachableError, or HttpProtocolError for what is not HTTP or too large."""
        fresh = self._wire is None
        try:
            return self._exchange(method, target, body, headers or {}, max_body_bytes)
        except HubUnreachableError:
            # A connection that was kept may have been closed meanwhile by the other side: that is no failure yet.
            # A request that changes something may have been carried out, so only a harmless one is sent again.
            if fresh or method not in {"GET", "PUT"}:
                raise
        return self._exchange(method, target, body, headers or {}, max_body_bytes)

    def _exchange(
        self, method: str, target: str, body: bytes | Upload, headers: Mapping[str, str], most: int
    ) -> Response:
        with _Translated(self):
            wire = self._send(method, target, body, headers)
            head = _read_head(wire)
            delimited = _body_of(method, head)
            if delimited.length is not None and delimited.length > most:
                raise HttpProtocolError(f"The answer has {delimited.length} bytes; at most {most} are accepted")
            data = bytearray()
            for piece in _pieces(wire, delimited):
                data += piece
                if len(data) > most:
                    raise HttpProtocolError(f"The answer has more than {most} bytes")
            self._finish(wire, head, delimited)
            self.bytes_received += len(data)
            return Response(head.status, head.headers, bytes(data))

    def download(
        self, target: str, *, offset: int, expected_bytes: int, sink: Callable[[bytes], None]
    ) -> tuple[int, bool]:
        """GETs the bytes from `offset` on and hands them to `sink`.

        Returns the status and whether anything was handed over: a server that ignores the range answers 200, then
        nothing was, and the caller begins anew from 0. Raises HttpProtocolError when the answer is longer than
        `expected_bytes`, HubUnreachableError when it ends early; what `sink` has then is good to resume from.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with _Translated(self):
            wire = self._send("GET", target, b"", headers, bounded=False)
            head = _read_head(wire)
            if head.status not in {200, 206} or (head.status == 200 and offset):
                self.close()
                return head.status, False
            if head.status == 206 and not head.headers.get("content-range", "").startswith(f"bytes {offset}-"):
                raise HttpProtocolError(f"Asked for bytes from {offset}, got {head.headers.get('content-range')!r}")
            delimited = _body_of("GET", head)
            left = expected_bytes - offset
            if delimited.length is not None and delimited.length > left:
                raise HttpProtocolError(f"The object has {offset + delimited.length} bytes, not {expected_bytes}")
            self._receive(wire, delimited, left, sink)
            self._finish(wire, head, delimited)
            return head.status, True

    def _receive(self, wire: _Wire, delimited: _Body, left: int, sink: Callable[[bytes], None]) -> None:
        span_s = self._transport.timeout_s
        began, counted = time.monotonic(), 0
        for piece in _pieces(wire, delimited):
            left -= len(piece)
            if left < 0:
                raise HttpProtocolError("The object is longer than its description says")
            sink(piece)
            self.bytes_received += len(piece)
            counted += len(piece)
            now = time.monotonic()
            if now - began >= span_s:
                if counted < _LEAST_BYTES_PER_S * span_s:
                    raise TimeoutError(f"only {counted} bytes came in {now - began:.0f} s")
                began, counted = now, 0

    def _finish(self, wire: _Wire, head: _Head, delimited: _Body) -> None:
        ends_itself = delimited.chunked or delimited.length is not None
        if not (head.keep and ends_itself and wire.idle):
            self.close()

    def _send(
        self, method: str, target: str, body: bytes | Upload, headers: Mapping[str, str], *, bounded: bool = True
    ) -> _Wire:
        wire = self._wire or self._connect()
        self._wire = wire
        length = body.size_bytes if isinstance(body, Upload) else len(body)
        bounded = bounded and isinstance(body, bytes)
        wire.until = time.monotonic() + _TOTAL_FACTOR * self._transport.timeout_s if bounded else None
        fields = {
            "Host": self._address.authority,
            "User-Agent": self._transport.user_agent,
            "Accept-Encoding": "identity",
            **({"Content-Length": str(length)} if length or method in {"POST", "PUT"} else {}),
            **headers,
        }
        for name, value in fields.items():
            if "\r" in value or "\n" in value:
                raise HttpProtocolError(f"The value of {name} has a line end")
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        first = f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1")
        if isinstance(body, bytes):
            wire.send(first + body)
            return wire
        wire.send(first)
        for piece in body.open():
            wire.send(piece)
        return wire

    def _connect(self) -> _Wire:
        self.connections += 1
        if self._address.scheme == "http":
            return _dial(self._address, self._transport)
        import ssl

        try:
            return _dial(self._address, self._transport)
        except ssl.SSLCertVerificationError as error:
            hook = self._transport.on_early_certificate
            not_yet_valid = 9  # X509_V_ERR_CERT_NOT_YET_VALID
            if error.verify_code != not_yet_valid or hook is None or not hook(self._address):
                raise
        return _dial(self._address, self._transport)


def peer_certificate(address: Address, transport: Transport) -> Mapping[str, object]:
    """The hub's certificate as `ssl` describes it, from one handshake. Raises HubUnreachableError."""
    with _Translated(Client(address, transport)):
        wire = _dial(address, transport)
        try:
            return wire.certificate()
        finally:
            wire.close()


def _dial(address: Address, transport: Transport) -> _Wire:
    sock = _dial_tcp(address, transport)
    wire = _Wire(sock, transport.timeout_s)
    try:
        wire.until = time.monotonic() + transport.timeout_s
        if transport.proxy is not None and transport.proxy.connect:
            _tunnel(wire, address, transport.user_agent)
        if address.scheme == "https":
            sock.settimeout(transport.timeout_s)
            wire.wrap(transport.tls().wrap_socket(sock, server_hostname=address.host))
    except BaseException:
        wire.close()
        sock.close()
        raise
    return wire


def _dial_tcp(address: Address, transport: Transport) -> socket.socket:
    """A connection to the proxy or to the address itself: each of its addresses is tried, IPv6 and IPv4."""
    where = (address.host, address.port)
    if transport.proxy is not None:
        where = (transport.proxy.host, transport.proxy.port)
    sock = socket.create_connection(where, timeout=min(_CONNECT_TIMEOUT_S, transport.timeout_s))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _tunnel(wire: _Wire, address: Address, user_agent: str) -> None:
    host = f"[{address.host}]" if ":" in address.host else address.host
    target = f"{host}:{address.port}"
    wire.send(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {user_agent}\r\n\r\n".encode("latin-1"))
    head = _read_head(wire)
    if not 200 <= head.status < 300:
        raise ConnectionRefusedError(f"the proxy answered {head.status} to CONNECT {target}")
    if not wire.idle:
        raise HttpProtocolError("The proxy sent bytes of its own into the tunnel")


def explain(address: Address, error: OSError) -> str:
    """One sentence for a person about why an exchange failed."""
    where = address.authority
    reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or error.strerror or str(error)
    if getattr(error, "verify_code", 0):
        return f"The certificate of {where} does not verify: {reason}"
    if isinstance(error, TimeoutError):
        return f"{where} did not answer in time ({error})"
    return f"No connection to {where}: {reason}"


class _Translated:
    """Turns the kernel's and OpenSSL's refusals into HubUnreachableError and drops the connection on any failure."""

    __slots__ = ("_client",)

    def __init__(self, client: Client) -> None:
        self._client = client

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        self._client.close()
        if isinstance(error, OSError):  # ssl.SSLError and socket.gaierror are OSErrors
            raise HubUnreachableError(explain(self._client.address, error)) from error
