"""The simulated hub's sockets: HTTP/1.1 on threads, and the carrying out of `Fault`s on the bytes of an answer."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import sys
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from brickless.testkit.hub_faults import Fault, Kind, Request

if TYPE_CHECKING:
    from brickless.testkit.hub_simulator import HubSimulator


class Server(ThreadingHTTPServer):
    """Accepts connections and remembers them, so that all can be reset at once."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, where: tuple[str, int], handler: type, hub: HubSimulator, tls: ssl.SSLContext | None) -> None:
        self.hub = hub
        self._tls = tls
        self._open: set[socket.socket] = set()
        super().__init__(where, handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """A connection, remembered."""
        sock, address = super().get_request()
        self._open.add(sock)
        return sock, address

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: a handshake that hangs must not hold the others."""
        try:
            if self._tls is None:
                super().finish_request(request, client_address)
            else:
                self._finish_secure(self._tls, request, client_address)
        finally:
            self._open.discard(request)

    def _finish_secure(self, tls: ssl.SSLContext, request: Any, client_address: Any) -> None:
        request.settimeout(10)
        try:
            secure = tls.wrap_socket(request, server_side=True)
        except (OSError, ssl.SSLError):
            return  # a client that does not trust us: what it does about it is what the test looks at
        self._open.add(secure)
        try:
            super().finish_request(secure, client_address)
        finally:
            self._open.discard(secure)
            secure.close()

    def reset_all(self) -> None:
        """Resets every open connection."""
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                reset(sock)
        self._open.clear()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are what this server is for; anything else goes up to the test's standard error."""
        if not isinstance(sys.exc_info()[1], OSError | ValueError):
            super().handle_error(request, client_address)


class ServerV6(Server):
    """The same on IPv6."""

    address_family = socket.AF_INET6


def reset(sock: socket.socket) -> None:
    """Ends a connection with RST instead of FIN, as a pulled cable with a NAT box behind it would."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.shutdown(socket.SHUT_RDWR)
    sock.close()


class Handler(BaseHTTPRequestHandler):
    """One connection: reads requests, asks the hub, and spoils the answer as the fault for it says."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class names it so
        """Requests are kept in `HubSimulator.requests` instead."""

    def _handle(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, self.rfile.read(length))
        hub = self.server.hub
        fault = hub.fault_for(request.method, request.path)
        hub.saw(request)
        if fault is not None and not self._deviates(fault):
            return
        status, body = hub.answer(request)
        extra: dict[str, str] = {}
        ranged = headers.get("range")
        ignore = fault is not None and fault.kind == Kind.IGNORE_RANGE
        if status == 200 and request.path.startswith("/local-s3/") and ranged and not ignore:
            start = int(ranged.removeprefix("bytes=").rstrip("-"))
            extra["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            status, body = 206, body[start:]
        self._send(status, body, extra, fault)

    do_GET = do_POST = do_PUT = _handle  # noqa: N815 names that the base class looks up

    def _deviates(self, fault: Fault) -> bool:
        """Carries out the faults that need no right answer; False when the request is dealt with."""
        if fault.kind == Kind.STALL:
            self.server.hub.closing.wait()
            self._reset()
        elif fault.kind == Kind.RESET:
            self._reset()
        elif fault.kind == Kind.STATUS:
            self._send(fault.number, fault.text.encode(), dict(fault.headers), None)
        elif fault.kind == Kind.GARBAGE:
            self._send(200, fault.text.encode("utf-8", "surrogateescape"), dict(fault.headers), None)
        elif fault.kind == Kind.REDIRECT:
            self._send(302, b"", {"Location": fault.text}, None)
        elif fault.kind == Kind.HUGE:
            self._huge(fault.number)
        else:
            return True
        return False

    def _huge(self, size: int) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        block = b" " * 65536
        with contextlib.suppress(OSError):
            for _ in range(size // len(block) + 1):
                self.wfile.write(block)
        self.close_connection = True

    def _reset(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            reset(self.connection)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], fault: Fault | None) -> None:
        kind, number = (fault.kind, fault.number) if fault else (None, 0)
        if kind == Kind.FLIP and body:
            body = body[:number] + bytes([body[number] ^ 1]) + body[number + 1 :]
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body) + (number if kind == Kind.LENGTH else 0)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if kind == Kind.DRIP:
            self._drip(body, number / 1000)
            return
        self.wfile.write(body[:number] if kind in {Kind.TRUNCATE, Kind.CUT} else body)
        self.wfile.flush()
        if kind == Kind.CUT:
            self._reset()
        elif kind in {Kind.TRUNCATE, Kind.LENGTH}:
            self.close_connection = True

    def _drip(self, body: bytes, pause_s: float) -> None:
        for piece in _bytes(body):
            self.wfile.write(piece)
            if self.server.hub.closing.wait(pause_s):
                break


def _bytes(body: bytes) -> Iterator[bytes]:
    for i in range(len(body)):
        yield body[i : i + 1]
