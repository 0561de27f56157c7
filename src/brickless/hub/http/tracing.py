"""What the application says to whoever traces it. No trace library here: none is loaded while tracing is off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Span(Protocol):
    """One request that is traced."""

    def end(self, route: str, status: int) -> None:
        """The answer's head is out; status 0: the client left."""


class Tracer(Protocol):
    """Begins spans. A request's own `traceparent` makes it part of its caller's trace."""

    def begin(self, method: str, headers: Mapping[bytes, bytes]) -> Span:
        """A request arrived; what it does in this task and its children belongs to the span."""
