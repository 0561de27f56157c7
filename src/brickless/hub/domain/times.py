"""Times as text, as the reference prints them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(time_ms: int) -> str:
    """A time as the reference prints it: UTC, milliseconds with trailing zeros trimmed; 0 is the epoch."""
    seconds, milliseconds = divmod(time_ms, 1000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{milliseconds:03d}".rstrip("0").rstrip(".") + "Z" if milliseconds else text + "Z"


def parse_rfc3339(text: str) -> int:
    """Milliseconds of an RFC 3339 time. Raises ValueError."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00").replace(" ", "+"))
    if moment.tzinfo is None:
        raise ValueError("a time needs its zone")
    return int(moment.timestamp() * 1000)
