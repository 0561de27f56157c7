"""A real SMTP server on a free loopback port: takes mail, with STARTTLS or TLS and a login, and refuses on command."""

from __future__ import annotations

import email
import email.policy
import queue
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

USER, PASSWORD = "hub", "a password: with @ in it"
_GOOD = "250 taken"


class Server:
    """A running server. `answers` are what the next messages are told; empty means that they are taken."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, implicit: bool = False, login: bool = False) -> None:
        self.mails: queue.Queue[EmailMessage] = queue.Queue()
        self.answers: list[str] = []
        self.refusals = 0
        options: dict[str, Any] = {}
        if tls is not None and implicit:
            options["ssl_context"] = tls
        elif tls is not None:
            options |= {"tls_context": tls, "require_starttls": True}
        if login:
            # Its own notion of TLS knows STARTTLS only.
            options |= {"authenticator": _authenticate, "auth_required": True, "auth_require_tls": not implicit}
        self._options = options
        self._controller: Controller | None = None
        self.port = 0

    def start(self) -> Server:
        """Listen, on the port that it had before."""
        if not self.port:
            with socket.create_server(("127.0.0.1", 0)) as sock:
                self.port = sock.getsockname()[1]
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port, **self._options)
        self._controller.start()
        return self

    def stop(self) -> None:
        """End it."""
        if self._controller is not None:
            self._controller.stop()
            self._controller = None

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        """A message is whole."""
        answer = self.answers.pop(0) if self.answers else _GOOD
        if answer != _GOOD:
            self.refusals += 1
            return answer
        found = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(found, EmailMessage)  # noqa: S101 - what the policy makes
        self.mails.put(found)
        return answer


def _authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
    right = isinstance(data, LoginPassword) and (data.login, data.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=right)


@contextmanager
def server(*, tls: ssl.SSLContext | None = None, implicit: bool = False, login: bool = False) -> Iterator[Server]:
    """A server that runs in the block."""
    made = Server(tls=tls, implicit=implicit, login=login)
    try:
        yield made.start()
    finally:
        made.stop()
