"""The HTTP server around the application: plain HTTP and TLS at once, bounded request heads, stops on signals.

SIGTERM and SIGINT end it, SIGHUP asks for a restart: the listening sockets stay open for the next process image, the
kernel queues whoever connects meanwhile. Both drain: every answer from then on says `Connection: close`, and a
connection is only closed once it was silent for a while, so that no request is cut off on its way.

uvicorn with httptools, because the C client speaks HTTP/1.0 with absolute request targets and unescaped queries, and
that parser takes them as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from brickless.core.errors import UserError

_GRACE_S = 10
_KEEP_ALIVE_S = 75
#: How long an idle connection is listened to after the hub began to stop.
_LINGER_S = 1.0
#: How long a request's head may take, and how large it may be.
_HEAD_TIMEOUT_S = 30
_MAX_HEAD_BYTES = 64 * 1024


#: Headers that change nothing about the answer to a poll.
_PLAIN = frozenset({b"host", b"user-agent", b"accept", b"accept-encoding", b"accept-language", b"content-type"})


class Tls(NamedTuple):
    """The second port: certificate chain and key as PEM files."""

    port: int
    cert_file: str
    key_file: str


class BoundedProtocol(HttpToolsProtocol):
    """A connection that is closed when a request's head is too large or never comes."""

    _quick: Any = None
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    _linger_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TCP alone: always a Transport
        """Start the clock for the first head."""
        super().connection_made(transport)
        self._quick = getattr(self.app, "quick", None)
        self._head_timer = self.loop.call_later(_HEAD_TIMEOUT_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._stop_timer()
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        super().connection_lost(exc)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > _MAX_HEAD_BYTES:
            raise ValueError(f"the request's head is larger than {_MAX_HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        """A new request."""
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count the target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def shutdown(self) -> None:
        """The hub stops: an idle connection may still have a request on its way; one that stays idle ends.

        It ends at once then, without waiting for its peer to say goodbye over TLS.
        """
        if self.cycle is None or self.cycle.response_complete:
            self._linger_timer = self.loop.call_later(_LINGER_S, self._end_of_linger)
        else:
            super().shutdown()

    def _end_of_linger(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
        else:
            super().shutdown()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._stop_timer()
        if self._quick is None or not self._answered_quickly(self._quick):
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole; one that was answered quickly on a fresh connection never had a cycle."""
        if self.cycle is not None:
            super().on_message_complete()

    def _answered_quickly(self, quick: Any) -> bool:
        """Answer an idle poll at once (`http.quick`), unless the request or the connection is special."""
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy or self.flow.write_paused or self.parser.get_method() != b"GET":
            return False
        authorization = b""
        for name, value in self.headers:
            if name == b"authorization" and not authorization:
                authorization = value
            elif name not in _PLAIN and (name, value.lower()) != (b"connection", b"keep-alive"):
                return False
        if not authorization or self.parser.get_http_version() != "1.1":
            return False
        address = self.client[0] if self.client else "local"
        answer = quick.answer(self.url, authorization, address, self.server_state.default_headers)
        if answer is None:
            return False
        self.transport.write(answer)
        self.on_response_complete()
        return True


class TrustedProxies(ProxyHeadersMiddleware):
    """Believes some peers what they say of their clients, and tells the application that it may, too."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI entry; the peer is known before its headers replace it."""
        client = scope.get("client")
        scope["trusted_proxy"] = client is not None and client[0] in self.trusted_hosts
        await super().__call__(scope, receive, send)


class _Server(uvicorn.Server):
    """A server that leaves signals to `serve_application`, which may run two."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: see the class."""
        yield


def _config(application: Any, host: str, port: int, tls: Tls | None, trusted: str) -> uvicorn.Config:
    return uvicorn.Config(
        TrustedProxies(application, trusted) if trusted else application,
        host=host,
        port=port,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
        backlog=4096,
        ssl_certfile=tls.cert_file if tls else None,
        ssl_keyfile=tls.key_file if tls else None,
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
    )


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, because asyncio turns Nagle's delay off only where it is: 40 ms an answer otherwise.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise UserError(
            "address-in-use",
            f"Cannot listen on {host}:{port}: {error.strerror}",
            hint="Choose another port with --port.",
        ) from error
    return sock


def _make(
    application: Any, host: str, port: int, tls: Tls | None, inherited: Sequence[int], trusted: str
) -> tuple[_Server, socket.socket, str]:
    config = _config(application, host, port, tls, trusted)
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise UserError(
            "tls-files", f"Cannot use the TLS files: {error}", hint="--tls-cert and --tls-key name PEM files."
        ) from error
    sock = socket.socket(fileno=inherited[0]) if inherited else _bound(host, port)
    sock.set_inheritable(False)
    shown = f"[{host}]" if ":" in host else host
    return _Server(config), sock, f"{'https' if tls else 'http'}://{shown}:{sock.getsockname()[1]}"


def _kept(sockets: list[socket.socket]) -> list[int]:
    """Descriptors of the listening sockets that live on when the servers close theirs."""
    kept = [os.dup(sock.fileno()) for sock in sockets]
    for descriptor in kept:
        os.set_inheritable(descriptor, True)
    return kept


async def serve_application(
    application: Any,
    *,
    host: str,
    port: int,
    tls: Tls | None,
    ready: Callable[[list[str]], None],
    stopping: Callable[[], None],
    inherited: Sequence[int] = (),
    trusted_proxies: str = "",
) -> list[int]:
    """Serve until a signal; requests under way get ten seconds. `stopping` ends streams that never would.

    `trusted_proxies` are addresses and networks, with commas, whose X-Forwarded-For and -Proto are believed.
    `inherited` are the listening sockets of the process image before this one. Returns those for the next one after a
    SIGHUP, nothing when this is the end.
    """
    made = [_make(application, host, port, None, inherited[:1], trusted_proxies)]
    if tls is not None:
        made.append(_make(application, host, tls.port, tls, inherited[1:2], trusted_proxies))
    servers = [server for server, _, _ in made]
    kept: list[int] = []

    def stop() -> None:
        stopping()
        for server in servers:
            if not server.should_exit:
                # In place: requests under way hold this very list.
                server.server_state.default_headers.append((b"connection", b"close"))
            server.should_exit = True

    def restart() -> None:
        if not any(server.should_exit for server in servers):
            kept.extend(_kept([sock for _, sock, _ in made]))
        stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, restart)
    for _, sock, _ in made:
        # Connections are accepted from here on: the kernel queues them for the servers that start below.
        sock.listen(4096)
    ready([address for _, _, address in made])
    logging.getLogger("brickless.hub").info("serving", extra={"addresses": [address for _, _, address in made]})
    tasks = [asyncio.create_task(server.serve(sockets=[sock])) for server, sock, _ in made]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    stop()
    await asyncio.gather(*tasks)
    return kept
