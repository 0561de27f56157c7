"""What lists of devices are asked for, and what they show. Pure."""

from __future__ import annotations

from typing import NamedTuple

from brickless.hub.domain import jsontext
from brickless.hub.domain import progress as progresses

PAGE = 50


class Search(NamedTuple):
    """What to look for. `status` `none` means devices without a revision; `after` is the last (nick, id) of a page."""

    text: str = ""
    labels: str = ""
    status: str = ""
    revision: int | None = None
    container: str = ""
    after: tuple[str, str] = ("", "")
    limit: int = PAGE


class Listed(NamedTuple):
    """A device in a list. `newest` and `running` are revisions, -1 for none; `progress` is JSON text."""

    id: str
    nick: str
    seen_ms: int
    newest: int
    running: int
    status: str
    progress: str
    sha: str
    labels: dict[str, str]

    @property
    def percent(self) -> int:
        """How far the newest revision is, 0 to 100."""
        found = jsontext.load_stored(self.progress).get("progress", 0)
        return max(0, min(100, found)) if isinstance(found, int) else 0

    @property
    def message(self) -> str:
        """What the device said last about it."""
        return str(jsontext.load_stored(self.progress).get("status-msg", ""))

    @property
    def mood(self) -> str:
        """How to show the status: good, busy, bad or still."""
        return mood(self.status)


class Page(NamedTuple):
    """A page of devices and how many there are in all."""

    devices: list[Listed]
    total: int
    more: bool


class ContainerCount(NamedTuple):
    """How many devices run this version of a container."""

    container: str
    version: str
    devices: int


def mood(status: str) -> str:
    """How to show a status: good, busy, bad or still."""
    if status in {"DONE", "UPDATED"}:
        return "good"
    if status in {"ERROR", "WONTGO"}:
        return "bad"
    return "busy" if status in progresses.ACTIONABLE else "still"
