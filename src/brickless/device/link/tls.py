"""Whom the agent trusts, and what it does about a clock that is wrong at boot. TLS is always verified.

A board without a battery wakes up in 1970, when no certificate is valid yet. The clock is first set to a floor that is
known to have passed: this release, and the last time at which the hub was reached. If a certificate is still too young,
the chain is verified once without its dates; its first day, which an authority has signed, has then passed too, and the
clock goes there. The clock only ever moves forward. Pinning: put the hub's own certificate, alone, where PV_HUB_CA
looks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from brickless.core.errors import BricklessError
from brickless.device.link import http

if TYPE_CHECKING:
    import ssl

#: No clock that runs right shows less: 1 January 2026, in seconds since 1970.
RELEASED_S = 1767225600
_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME
_PARTIAL_CHAIN = 0x80000  # X509_V_FLAG_PARTIAL_CHAIN: a trusted certificate need not be a self-signed root
_MARK_EVERY_S = 3600


class NoTrustError(BricklessError):
    """There is no certification authority to verify the hub with, so no connection is made."""


def matching(pattern: str) -> list[str]:
    """Files that a pattern names: one `*` in the last part. A pattern without `*` names one file, there or not."""
    folder, name = os.path.split(pattern)
    before, star, after = name.partition("*")
    if not star:
        return [pattern]
    try:
        found = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [
        os.path.join(folder, f)
        for f in sorted(found)
        if f.startswith(before) and f.endswith(after) and len(f) >= len(before) + len(after)
    ]


class Clock:
    """The system clock and its floor. `mark` is a file whose time of change is the last moment known to be right."""

    __slots__ = ("_mark", "_now", "_report", "_set")

    def __init__(
        self,
        mark: str,
        *,
        report: Callable[[str], None],
        now: Callable[[], float] = time.time,
        set_clock: Callable[[float], None] = lambda seconds: time.clock_settime(time.CLOCK_REALTIME, seconds),
    ) -> None:
        self._mark = mark
        self._report = report
        self._now = now
        self._set = set_clock

    def _last_mark_s(self) -> float:
        try:
            return os.stat(self._mark).st_mtime
        except FileNotFoundError:
            return 0.0

    def raise_to_floor(self) -> bool:
        """Moves the clock up to the floor when it is below; True when it was moved."""
        return self.move_to(max(RELEASED_S, self._last_mark_s()), "the last time that is known to have passed")

    def move_to(self, seconds: float, why: str) -> bool:
        """Moves the clock forward to a moment (seconds since 1970); True when it was moved. Never backward."""
        if self._now() >= seconds:
            return False
        try:
            self._set(seconds)
        except OSError as error:
            self._report(f"the clock is wrong and cannot be set to {why}: {error.strerror}")
            return False
        self._report(f"the clock was behind and is now set to {why}")
        return True

    def hub_reached(self) -> None:
        """Remembers that the clock is right now, at most once an hour: flash wears."""
        if self._now() - self._last_mark_s() < _MARK_EVERY_S:
            return
        os.makedirs(os.path.dirname(self._mark), exist_ok=True)
        with open(self._mark, "ab"):
            os.utime(self._mark, (self._now(), self._now()))


class Trust:
    """Makes the TLS contexts. Authorities are read once, at the first connection."""

    __slots__ = ("_clock", "_context", "_patterns")

    def __init__(self, patterns: tuple[str, ...], clock: Clock) -> None:
        self._patterns = patterns
        self._clock = clock
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """The context for every connection. Raises NoTrustError when there is no authority."""
        if self._context is None:
            self._context = self._make()
        return self._context

    def _make(self) -> ssl.SSLContext:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_flags = ssl.VerifyFlags(context.verify_flags | _PARTIAL_CHAIN)
        files = [file for pattern in self._patterns for file in matching(pattern)]
        loaded = False
        for file in files:
            try:
                context.load_verify_locations(cafile=file)
                loaded = True
            except FileNotFoundError:
                continue
            except (OSError, ssl.SSLError) as error:
                raise NoTrustError(f"{file} is not a PEM file of certificates: {error}") from error
        if not loaded:
            raise NoTrustError(
                f"No certification authority for the hub: {' and '.join(self._patterns)} name no file",
                hint="Put the authority's PEM file there, or set PV_HUB_CA.",
            )
        return context

    def mend_clock(self, transport: http.Transport) -> Callable[[http.Address], bool]:
        """The hook for `Transport.on_early_certificate` (see the head of this module)."""

        def hook(address: http.Address) -> bool:
            import ssl

            undated = self._make()
            undated.verify_flags = ssl.VerifyFlags(undated.verify_flags | _NO_CHECK_TIME)
            certificate = http.peer_certificate(address, transport._replace(tls=lambda: undated))
            first_day = certificate.get("notBefore")
            if not isinstance(first_day, str):
                return False
            return self._clock.move_to(
                ssl.cert_time_to_seconds(first_day) + 1, "the first day of the hub's certificate"
            )

        return hook
