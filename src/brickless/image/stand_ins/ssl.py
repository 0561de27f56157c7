"""What a device gets as `ssl`: contexts and blocking sockets over OpenSSL, and what our code names of the rest.

The standard library's makes enumerations of 250 constants and a second way to do everything; a device's agent keeps all
of it in memory to have one connection open. Checks of certificates and names are those of `_ssl` and OpenSSL, here as
there, and so are the defaults of a context.
"""

from __future__ import annotations

import socket
from _ssl import (
    PROTOCOL_TLS_CLIENT,
    PROTOCOL_TLS_SERVER,
    SSL_ERROR_EOF,
    PROTO_TLSv1_2,
    PROTO_TLSv1_3,
    SSLCertVerificationError,
    SSLError,
    _SSLContext,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CertificateError = SSLCertVerificationError
#: Flags of a context are plain numbers here.
VerifyFlags = int
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class TLSVersion:
    """What `SSLContext.minimum_version` takes."""

    TLSv1_2 = PROTO_TLSv1_2
    TLSv1_3 = PROTO_TLSv1_3


class SSLContext(_SSLContext):
    """How connections are made; `_SSLContext` has the settings and loads the certificates."""

    def wrap_socket(
        self, sock: socket.socket, server_side: bool = False, server_hostname: str | None = None
    ) -> SSLSocket:
        """A connection over the connected socket, which becomes unusable; the handshake is done. Raises `SSLError`."""
        if self.check_hostname and not server_hostname:
            raise ValueError("check_hostname requires server_hostname")
        return SSLSocket(sock, self, server_side, server_hostname)


class SSLSocket(socket.socket):
    """A connected stream socket with TLS on it. What goes around TLS is refused."""

    _tls: Any = None

    def __init__(self, sock: socket.socket, context: SSLContext, server_side: bool, hostname: str | None) -> None:
        timeout_s = sock.gettimeout()
        super().__init__(sock.family, sock.type, sock.proto, sock.fileno())
        sock.detach()
        self.settimeout(timeout_s)
        try:
            self.getpeername()
            # Names are ASCII here: our code refuses others before.
            name = None if hostname is None else hostname.encode("ascii").decode()
            self._tls = context._wrap_socket(  # type: ignore[attr-defined]  # not in the stub of `_ssl`
                self, server_side, name, owner=self
            )
            self._tls.do_handshake()
        except (OSError, ValueError):
            self.close()
            raise

    def recv(self, bufsize: int = 1024, flags: int = 0, /) -> bytes:
        """Up to so many bytes; none at the end, with or without a farewell of the peer."""
        if self._tls is None:
            return super().recv(bufsize, flags)
        _plain(flags)
        try:
            return bytes(self._tls.read(bufsize))
        except SSLError as error:
            if error.args[0] == SSL_ERROR_EOF:
                return b""
            raise

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Send some of it; returns how much."""
        if self._tls is None:
            return super().send(data, flags)
        _plain(flags)
        return int(self._tls.write(data))

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Send all of it."""
        if self._tls is None:
            super().sendall(data, flags)
            return
        view = memoryview(data).cast("B")
        while view:
            view = view[self.send(view, flags) :]

    def getpeercert(self) -> dict[str, Any]:
        """What the verified certificate of the peer says."""
        return dict(self._tls.getpeercert(False) or {})

    def shutdown(self, how: int, /) -> None:
        """As of a plain socket; what comes after is not encrypted."""
        self._tls = None
        super().shutdown(how)

    def _real_close(self) -> None:
        self._tls = None
        super()._real_close()  # type: ignore[misc]  # not in the stub: what `close` calls in the end

    def _refuse(self, *_: object, **__: object) -> Any:
        raise NotImplementedError("not on a connection with TLS")

    recv_into = recvfrom = recvfrom_into = recvmsg = recvmsg_into = sendto = sendmsg = sendfile = dup = _refuse


def _plain(flags: int) -> None:
    if flags:
        raise ValueError("no flags on a connection with TLS")


def cert_time_to_seconds(text: str) -> int:
    """Seconds since 1970 of a date as certificates show it: `Jan  5 09:34:43 2018 GMT`. Raises `ValueError`."""
    month, day, clock, year, zone = text.split()
    hour, minute, second = (int(part) for part in clock.split(":"))
    if zone != "GMT" or not (0 <= hour < 24 and 0 <= minute < 60 and 0 <= second <= 61):
        raise ValueError(f"{text!r} is not a date of a certificate")
    number = _MONTHS.index(month.title()) + 1
    return ((_days(int(year), number, int(day)) * 24 + hour) * 60 + minute) * 60 + second


def _days(year: int, month: int, day: int) -> int:
    """Days since 1 January 1970, by the Gregorian calendar. Raises `ValueError` for a day that the month has not."""
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    lengths = (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    if not 1 <= day <= lengths[month - 1]:
        raise ValueError(f"{year}-{month} has no day {day}")
    before = year - 1
    return before * 365 + before // 4 - before // 100 + before // 400 - 719162 + sum(lengths[: month - 1]) + day - 1


__all__ = [
    "PROTOCOL_TLS_CLIENT",
    "PROTOCOL_TLS_SERVER",
    "CertificateError",
    "SSLCertVerificationError",
    "SSLContext",
    "SSLError",
    "SSLSocket",
    "TLSVersion",
    "VerifyFlags",
    "cert_time_to_seconds",
]
