"""What `device ps` and `device logs` print (pvr.md 1.6, 1.7): ages, tables, log lines. Pure: the time is an argument.

Texts of devices are hostile: control characters could drive the terminal of whoever looks, so none gets through.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple

from brickless.core.canonical import JsonValue
from brickless.core.errors import UserError

CELL_WIDTH = 30
PS_COLUMNS = ("ID", "NICK", "REV", "STATUS", "STATE", "SEEN", "IP", "MESSAGE")
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
#: A member of an entry in a template, as in the templates of Go.
_MEMBER = re.compile(r"\{\{ *\.([A-Za-z][A-Za-z0-9_-]*) *\}\}")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_DURATION = re.compile(r"P(?:(\d{1,5})W)?(?:(\d{1,6})D)?(?:T(?:(\d{1,6})H)?(?:(\d{1,7})M)?(?:(\d{1,9})S)?)?")
_DEVICE_ID = re.compile(r"[0-9a-f]{24}")
_DAY_S = 86400


def printable(text: str) -> str:
    """Return the text without anything that a terminal obeys; a tab stays."""
    return _CONTROL.sub("\ufffd", text)


def age(then: datetime, now: datetime) -> str:
    """Say how long ago it was, in words."""
    seconds = (now - then).total_seconds()
    return f"{_distance(abs(seconds))} {'ago' if seconds >= 0 else 'from now'}"


def _distance(seconds: float) -> str:
    minutes = round(seconds / 60)
    days = seconds / _DAY_S
    if seconds < 30:
        return "less than a minute"
    if minutes < 2:
        return "1 minute"
    if minutes < 45:
        return f"{minutes} minutes"
    if days < 1:
        hours = max(1, round(minutes / 60))
        return f"about {hours} hour{'s' if hours > 1 else ''}"
    if days < 42 / 24:
        return "1 day"
    if days < 30:
        return f"{round(days)} days"
    if days < 45:
        return "about 1 month"
    if days < 60:
        return "about 2 months"
    if days < 365:
        return f"{round(days / 30)} months"
    years, rest = divmod(days, 365.25)
    word, count = ("about", years) if rest < 92 else ("over", years) if rest < 274 else ("almost", years + 1)
    count = max(1, int(count))
    return f"{word} {count} year{'s' if count > 1 else ''}"


def parse_time(text: object) -> datetime | None:
    """An RFC 3339 time; None when it is none (the hub's zero time too)."""
    if not isinstance(text, str):
        return None
    try:
        # Go writes up to nine digits of a second; Python reads six.
        found = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    except ValueError:
        return None
    if found.year < 1971:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def ps_row(summary: Mapping[str, JsonValue], now: datetime) -> tuple[str, ...]:
    """One device of `GET /trails/summary` as cells; a member that is missing or odd makes an empty one."""

    def cell(key: str, width: int | None = None) -> str:
        value = summary.get(key)
        return printable(str(value))[:width] if isinstance(value, str | int) and not isinstance(value, bool) else ""

    seen = parse_time(summary.get("timestamp"))
    return (
        cell("deviceid", 8),
        cell("device-nick"),
        cell("progress-revision"),
        cell("status"),
        cell("state-sha", 8),
        age(seen, now) if seen else "never",
        cell("real-ip"),
        cell("status-msg"),
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lay rows out under a centred header; long cells are wrapped, numbers stand to the right."""
    cells = [[textwrap.wrap(text, CELL_WIDTH) or [""] for text in row] for row in rows]
    widths = [
        max([len(name), *(len(line) for row in cells for line in row[index])]) for index, name in enumerate(columns)
    ]
    lines = ["  " + " ".join(name.center(width) for name, width in zip(columns, widths, strict=True)).rstrip()]
    for row in cells:
        for index in range(max(len(cell) for cell in row)):
            pieces = [cell[index] if index < len(cell) else "" for cell in row]
            lines.append(
                "  "
                + " ".join(
                    piece.rjust(width) if _NUMBER.fullmatch(" ".join(cell)) else piece.ljust(width)
                    for piece, cell, width in zip(pieces, row, widths, strict=True)
                ).rstrip()
            )
    return lines


class LogFilter(NamedTuple):
    """What `device logs` asks for; each field is a comma list as the hub reads it, "" for no restriction."""

    device: str = ""
    source: str = ""
    level: str = ""
    platform: str = ""

    @classmethod
    def parse(cls, text: str) -> LogFilter:
        """Read `dev[,dev...][/source[@level[#platform]]]`; 24 hex digits are a device's id."""
        rest, _, platform = text.partition("#")
        rest, _, level = rest.partition("@")
        devices, _, source = rest.partition("/")
        return cls(",".join(map(_device_name, devices.split(","))) if devices else "", source, level, platform)

    def over(self, **flags: str) -> LogFilter:
        """Return the filter with those flags that were given in place of the positional ones."""
        given = {key: value for key, value in flags.items() if value}
        if "device" in given:
            given["device"] = ",".join(map(_device_name, given["device"].split(",")))
        return self._replace(**given)

    def query(self) -> dict[str, str]:
        """The members as the hub's query calls them."""
        named = {"dev": self.device, "src": self.source, "lvl": self.level, "plat": self.platform}
        return {key: value for key, value in named.items() if value}


def _device_name(name: str) -> str:
    return f"prn:::devices:/{name}" if _DEVICE_ID.fullmatch(name) else name


def parse_moment(text: str, *, now: datetime) -> datetime:
    """Read a date, a date and time (both UTC), an RFC 3339 time, or an ISO 8601 duration before `now`.

    Raises UserError. (The reference adds the duration of `--to` to `--from`, and crashes without one: pvr.md 1.7.)
    """
    found = _DURATION.fullmatch(text)
    if found and any(found.groups()):
        weeks, days, hours, minutes, seconds = (int(group or 0) for group in found.groups())
        try:
            return now - timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
        except OverflowError as error:
            raise UserError("time-unreadable", f"{text!r} is longer than the calendar") from error
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UserError(
            "time-unreadable",
            f"{text!r} is no time",
            hint="Write 2026-11-24, 2026-11-24T07:30:00, an RFC 3339 time, or a duration like PT1H or P1D.",
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def rfc3339(moment: datetime) -> str:
    """The time as the hub's query wants it: UTC, with a `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def log_line(entry: Mapping[str, JsonValue], zone: tzinfo | None = None) -> str:
    """One log entry as a line: `id(rev) time platform(source): text`, in the given time zone (default: the local)."""

    def text(key: str) -> str:
        value = entry.get(key)
        return printable(str(value).rstrip()) if isinstance(value, str | int) and not isinstance(value, bool) else ""

    moment = _entry_time(entry)
    when = moment.astimezone(zone) if moment else None
    stamp = f"{when:%b} {when.day:>2} {when:%H:%M:%S}" if when else " " * 15
    source = text("src").rstrip("/").rpartition("/")[2][:15]
    return f"{text('id')[:10]:<10}({text('rev'):>3}) {stamp}{text('plat'):>12}({source:<15}): {text('msg')}"


def templated(template: str) -> Callable[[Mapping[str, JsonValue]], str]:
    """What makes a line of an entry after a template: `{{.msg}}` is the member `msg`. Raises UserError for none."""
    if not _MEMBER.search(template):
        raise UserError(
            "log-template",
            f"{template!r} is no template.",
            hint="short, json, or the names of members between braces: '{{.plat}}: {{.msg}}'.",
        )

    def line(entry: Mapping[str, JsonValue]) -> str:
        return _MEMBER.sub(lambda found: printable(str(entry.get(found[1], "")).rstrip()), template)

    return line


def _entry_time(entry: Mapping[str, JsonValue]) -> datetime | None:
    seconds = entry.get("tsec")
    if isinstance(seconds, int) and not isinstance(seconds, bool) and 0 < seconds < 2**35:
        return datetime.fromtimestamp(seconds, UTC)
    return parse_time(entry.get("time-created"))
