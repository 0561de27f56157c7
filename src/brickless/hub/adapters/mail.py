"""Where mail goes: to a server over SMTP, or into files where none is configured.

TLS is verified. `smtp://` demands STARTTLS, except towards this machine; `smtps://` is TLS from the first byte.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import smtplib
import ssl
import time
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from brickless.core.errors import UserError
from brickless.hub.services.ports import MailRefused
from brickless.store.atomic import write_file

_TIMEOUT_S = 30
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class MailServer(NamedTuple):
    """A server as its URL says it. `ca_file` is who may sign its certificate; empty is whom the machine trusts."""

    host: str
    port: int
    tls: bool
    user: str
    password: str
    ca_file: str


def parse_server(url: str, ca_file: str = "") -> MailServer:
    """`smtp[s]://[user:password@]host[:port]`. Raises UserError for anything else, without showing the password."""
    hint = "It looks like smtps://user:password@mail.example.com:465 or smtp://mail.example.com:587."
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UserError("mail-url", "the mail server's port is no number", hint=hint) from error
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname or parts.path.strip("/") or parts.query:
        raise UserError("mail-url", "--mail-url does not name a mail server", hint=hint)
    tls = parts.scheme == "smtps"
    return MailServer(
        parts.hostname, port or (465 if tls else 587), tls, unquote(parts.username or ""),
        unquote(parts.password or ""), ca_file,
    )  # fmt: skip


def _message(sender: str, to: str, subject: str, text: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, to, subject
    message["Date"] = formatdate(usegmt=True)
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2] or "localhost")
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    return message


class SmtpMailer:
    """`services.ports.Mailer` over SMTP: one connection a message, in a thread."""

    is_local = False

    def __init__(self, server: MailServer, sender: str) -> None:
        self._server = server
        self._sender = sender
        try:
            self._context = ssl.create_default_context(cafile=server.ca_file or None)
        except (OSError, ssl.SSLError) as error:
            raise UserError("mail-ca", f"Cannot use {server.ca_file}: {error}") from error

    async def send(self, to: str, subject: str, text: str) -> None:
        """See `services.ports.Mailer.send`."""
        await asyncio.to_thread(self._send, _message(self._sender, to, subject, text), to)

    def _send(self, message: EmailMessage, to: str) -> None:
        try:
            with self._connected() as smtp:
                if self._server.user:
                    smtp.login(self._server.user, self._server.password)
                smtp.send_message(message, self._sender, [to])
        except smtplib.SMTPRecipientsRefused as error:
            code, _ = error.recipients[to]
            raise MailRefused(f"the server refused the recipient: {code}", final=code >= 500) from error
        except smtplib.SMTPResponseException as error:
            # Only an answer to the message itself is final: a login may be refused today and work tomorrow.
            final = isinstance(error, smtplib.SMTPDataError) and error.smtp_code >= 500
            raise MailRefused(f"the server answered {error.smtp_code}", final=final) from error
        except (OSError, smtplib.SMTPException) as error:
            raise MailRefused(f"{type(error).__name__}: {error}", final=False) from error

    def _connected(self) -> smtplib.SMTP:
        server = self._server
        if server.tls:
            return smtplib.SMTP_SSL(server.host, server.port, timeout=_TIMEOUT_S, context=self._context)
        smtp = smtplib.SMTP(server.host, server.port, timeout=_TIMEOUT_S)
        try:
            smtp.ehlo()
            if smtp.has_extn("starttls"):
                smtp.starttls(context=self._context)
                smtp.ehlo()
            elif server.host not in _LOCAL or server.user:
                raise smtplib.SMTPNotSupportedError("the server offers no STARTTLS; links would go in clear")
        except BaseException:
            smtp.close()
            raise
        return smtp


class FolderMailer:
    """`services.ports.Mailer` without a mail server: messages become files that only the hub's user reads."""

    is_local = True

    def __init__(self, folder: str, sender: str) -> None:
        self._folder = folder
        self._sender = sender

    async def send(self, to: str, subject: str, text: str) -> None:
        """See `services.ports.Mailer.send`."""
        message = _message(self._sender, to, subject, text)
        name = f"{time.time_ns()}-{secrets.token_hex(4)}.eml"
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        await asyncio.to_thread(write_file, os.path.join(self._folder, name), message.as_bytes(), mode=0o600)
