"""`pvr device logs`: follow the logs of devices (pvr.md 1.7)."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from brickless.core import canonical
from brickless.core.canonical import JsonValue
from brickless.pvr import cli, nicks
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env
from brickless.pvr.tables import LogFilter, log_line, parse_moment, rfc3339, templated

if TYPE_CHECKING:
    from brickless.pvr.http import Client

_PAGE = 3000
_FOLLOW_S = 1.0


@cli.command("logs", example="pvr device logs my-device/web@ERROR --from PT1H --no-follow", failure=4)
@argument("what", metavar="[DEV[,DEV...][/SOURCE[@LEVEL[#PLATFORM]]]]", default="", shell_complete=nicks.devices)
@option(
    "--from", "-f", "since", envvar="PVR_LOGS_FROM_DATE", default="", help="A time, or a duration before now: PT1H."
)
@option("--to", "-t", "until", envvar="PVR_LOGS_TO_DATE", default="", help="Stop at this time.")
@option("--rev", "-r", envvar="PVR_LOGS_REV", type=int, default=-1, help="Only this revision's.")
@option(
    "--template",
    "-s",
    envvar="PVR_LOGS_TEMPLATE",
    default="short",
    help="short, json, or your own: '{{.tsec}} {{.msg}}'.",
)
@option("--platform", "-p", envvar="PVR_LOGS_PLATFORM", default="", help="Only these containers', with commas.")
@option("--device", "-d", envvar="PVR_LOGS_DEVICE", default="", help="Only these devices', with commas.")
@option("--source", "--src", envvar="PVR_LOGS_SOURCE", default="", help="Only from these sources, with commas.")
@option("--level", "-l", envvar="PVR_LOGS_LEVEL", default="", help="Only these levels, with commas.")
@option("--no-follow", is_flag=True, help="End when what is there has been shown.")
def command(
    env: Env, /, what: str, since: str, until: str, rev: int, template: str, no_follow: bool, **names: str
) -> None:
    """Print the logs of your devices, and what comes until you stop it (or until --to).

    With --json or --template json each entry is one line of JSON on standard output. A template of your own holds the
    names of members between braces: {{.msg}}, {{.plat}}, {{.src}}, {{.lvl}}, {{.rev}}, {{.dev}}, {{.time-created}}, ...
    """
    from brickless.pvr.http import Client

    chosen = LogFilter.parse(what).over(**names)
    now = datetime.datetime.now(datetime.UTC)
    query = {"cursor": "true", "page": str(_PAGE), "sort": "time-created", **chosen.query()}
    if rev >= 0:
        query["rev"] = str(rev)
    start = parse_moment(since, now=now) if since else None if rev >= 0 else now - datetime.timedelta(minutes=1)
    end = parse_moment(until, now=now) if until else None
    if start is not None:
        query["after"] = rfc3339(start)
    if end is not None:
        query["before"] = rfc3339(end)
    show = _json_line if env.json or template == "json" else log_line if template == "short" else templated(template)
    with Client(env) as client:
        for entry in _entries(client, query, follow=not no_follow and end is None):
            env.out(show(entry))


def _json_line(entry: Mapping[str, JsonValue]) -> str:
    return canonical.dumps(dict(entry)).decode()


def _entries(client: Client, query: dict[str, str], *, follow: bool) -> Iterator[dict[str, JsonValue]]:
    """Every entry once: page through a cursor to its end, then begin again after the last one."""
    seen: set[str] = set()
    while True:
        last = ""
        for entry in _pages(client, query):
            key = str(entry.get("id"))
            if key in seen:
                continue
            created = str(entry.get("time-created", ""))
            if created != last:
                # Only entries of the last moment can come again: the next question begins there.
                seen = {key for key in seen if created == last}
                last = created
            seen.add(key)
            yield entry
        if not follow:
            return
        if last:
            query["after"] = last
        # Devices send their logs in batches of seconds: asking again at once would find nothing.
        if client.stop.wait(_FOLLOW_S):
            return


def _pages(client: Client, query: dict[str, str]) -> Iterator[dict[str, JsonValue]]:
    base = f"{client.env.api_base}/logs"
    page = (
        client.call("GET", f"{base}/?{urlencode(query)}", anonymous=True).expect(200, what="Reading the logs").object()
    )
    while True:
        entries = page.get("entries")
        if not isinstance(entries, list) or not entries:
            return
        yield from (entry for entry in entries if isinstance(entry, dict))
        cursor = page.get("next-cursor")
        if not isinstance(cursor, str) or len(entries) < _PAGE:
            return
        body: JsonValue = {"next-cursor": cursor}
        page = client.call("POST", f"{base}/cursor", body=body).expect(200, what="Reading the logs").object()
