"""`pvr log`: the revisions of this repository or of a trail."""

from __future__ import annotations

import datetime

from brickless.core.canonical import JsonValue
from brickless.pvr import cli, nicks
from brickless.pvr.cli import argument, option
from brickless.pvr.env import Env


@cli.command("log", example="pvr log me/my-device")
@argument("repo", metavar="[REPO]", default="", shell_complete=nicks.repositories)
@option("--limit", "-n", type=int, default=50, show_default=True, help="At most so many, the newest first.")
def command(env: Env, repo: str, limit: int) -> None:
    """Show the states that this repository had, newest first; with REPO, the steps of that trail and how each went."""
    if repo:
        _trail(env, repo, limit)
        return
    from brickless.store import history, tags

    meta = env.repository().meta
    found = history.entries(meta)[::-1][:limit]
    names: dict[str, list[str]] = {}
    for name, tag in sorted(tags.load(meta).items()):
        names.setdefault(tag.sha, []).append(name)
    lines = [
        f"HEAD~{back:<4} {entry.sha[:10]}  {time_text(entry.time_s)}  {entry.action:<8} {one_line(entry.message)}"
        + "".join(f"  [{name}]" for name in names.get(entry.sha, ()))
        for back, entry in enumerate(found)
    ]
    env.result([{**entry._asdict(), "tags": names.get(entry.sha, [])} for entry in found], lines)


def _trail(env: Env, text: str, limit: int) -> None:
    from brickless.pvr.commands.remoteinfo import remote_of
    from brickless.pvr.errors import TransferError
    from brickless.pvr.http import Client

    remote = remote_of(env, text)
    query = "?progress.status=%7B%22%24ne%22%3A%22%22%7D&fields=-state"
    with Client(env) as client:
        client.name_host(remote.post_url)
        answer = (
            client.call("GET", remote.post_url + query, anonymous=True).expect(200, what="Reading the trail").json()
        )
    if not isinstance(answer, list):
        raise TransferError(f"{remote.post_url} answered with something that is no list of steps.")
    steps = [step for step in answer if isinstance(step, dict)]
    steps.sort(key=lambda step: rev if isinstance(rev := step.get("rev"), int) else -1, reverse=True)
    rows = [_row(step) for step in steps[:limit]]
    lines = [
        f"{row['rev']!s:>5} {str(row['state-sha'])[:10]}  {row['time']!s:<24.24}  {row['status']!s:<11} "
        f"{one_line(str(row['commit-msg']))}" + (f"  ({row['status-msg']})" if row["status-msg"] else "")
        for row in rows
    ]
    env.result(rows, lines)


def _row(step: dict[str, JsonValue]) -> dict[str, JsonValue]:
    progress = step.get("progress")
    progress = progress if isinstance(progress, dict) else {}
    return {
        "rev": step.get("rev"),
        "state-sha": step.get("state-sha") or "",
        "time": step.get("step-time") or "",
        "commit-msg": step.get("commit-msg") or "",
        "status": progress.get("status") or "",
        "status-msg": progress.get("status-msg") or "",
    }


def time_text(seconds: int) -> str:
    """A time as people here read it."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def one_line(text: str) -> str:
    """The first line of a message, without what a terminal would obey."""
    from brickless.pvr.tables import printable

    return printable(text.partition("\n")[0])
