"""Small adapters: the clock and randomness."""

from __future__ import annotations

import base64
import secrets
import string
import time

from brickless.hub.domain import petnames


class SystemClock:
    """`services.ports.Clock`."""

    def now_ms(self) -> int:
        """See `services.ports.Clock.now_ms`."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """See `services.ports.Clock.monotonic_s`."""
        return time.monotonic()


class SystemEntropy:
    """`services.ports.Entropy` over the kernel's random numbers."""

    def record_id(self) -> str:
        """Four bytes of time, so that ids grow, and eight random ones, so that nobody guesses them."""
        return f"{int(time.time()) & 0xFFFFFFFF:08x}{secrets.token_hex(8)}"

    def _choice(self, alphabet: str, length: int) -> str:
        return "".join(secrets.choice(alphabet) for _ in range(length))

    def word(self, length: int) -> str:
        """See `services.ports.Entropy.word`."""
        return self._choice(string.ascii_lowercase + string.digits, length)

    def letters(self, length: int) -> str:
        """See `services.ports.Entropy.letters`."""
        return self._choice(string.ascii_lowercase, length)

    def pet_name(self, separator: str) -> str:
        """See `services.ports.Entropy.pet_name`."""
        return separator.join(petnames.words(secrets.randbelow(petnames.COUNT)))

    def token(self) -> str:
        """See `services.ports.Entropy.token`."""
        return base64.b64encode(secrets.token_bytes(24)).decode()
