"""`brickless fleet`: labels, releases and rollouts of a hub from the command line.

stdout is data (tables for people, `--json` for machines), stderr is talk. Exit statuses: 0 done, 1 refused or failed,
2 a wrong command line; of `wait`: 3 the rollout was stopped, aborted or rolled back, 4 time is up; of `diff`: 1 the hub
differs from the file.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from brickless.core.errors import BricklessError
from brickless.main import fleet_export, fleet_files
from brickless.main.fleetapi import FleetClient, bad, under_way

F = TypeVar("F", bound=Callable[..., Any])
STOPPED, TIMED_OUT = 3, 4


class Fleet:
    """What every command is given: how to reach the hub, and how to print."""

    def __init__(self, url: str, token: str, user: str, as_json: bool) -> None:
        """Connect at the first use, so that `--help` needs no hub."""
        self._url, self._token, self._user = url, token, user
        self.as_json = as_json
        self._client: FleetClient | None = None

    @property
    def hub(self) -> FleetClient:
        """The hub."""
        if self._client is None:
            password = "" if self._token else os.environ.get("BRICKLESS_PASSWORD") or _asked(self._user)
            self._client = FleetClient(self._url, token=self._token, user=self._user, password=password)
        return self._client

    def show(self, value: Any, rows: Iterable[Iterable[object]] | None = None, head: tuple[str, ...] = ()) -> None:
        """The value as JSON, or its rows as a table."""
        if self.as_json:
            print(json.dumps(value, indent=2, sort_keys=True))
            return
        lines = [head, *([str(cell) for cell in row] for row in rows or ())] if head else [
            [str(cell) for cell in row] for row in rows or ()
        ]  # fmt: skip
        widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))] if lines else []
        for line in lines:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _asked(user: str) -> str:
    if not sys.stdin.isatty():
        raise BricklessError("no password", hint="Set BRICKLESS_PASSWORD or BRICKLESS_TOKEN")
    return str(click.prompt(f"Password of {user}", hide_input=True, err=True))


def _guarded(function: F) -> F:
    """Errors that are nobody's bug become a line and status 1."""

    def guarded(*values: Any, **named: Any) -> Any:
        try:
            return function(*values, **named)
        except (BricklessError, OSError) as error:
            print(f"brickless fleet: {error}", file=sys.stderr)
            sys.exit(1)

    guarded.__name__, guarded.__doc__ = function.__name__, function.__doc__
    guarded.__dict__.update(function.__dict__)
    return guarded  # type: ignore[return-value]  # the same signature, by construction


def _command(group: click.Group, name: str, example: str) -> Callable[[F], click.Command]:
    """A command of a group, with its example below its help."""

    def register(function: F) -> click.Command:
        return group.command(name, epilog=f"Example: {example}")(click.pass_obj(_guarded(function)))

    return register


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]}, epilog="Example: brickless fleet devices 'site=lab'"
)
@click.option(
    "--hub", "url", envvar="BRICKLESS_HUB", default="http://127.0.0.1:12365", show_default=True, help="Its URL."
)
@click.option("--user", envvar="BRICKLESS_USER", default="", help="Log in as; ORG members write NAME==>ORG.")
@click.option("--token", envvar="BRICKLESS_TOKEN", default="", help="A bearer token instead of a login.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
@click.pass_context
def fleet(context: click.Context, url: str, user: str, token: str, as_json: bool) -> None:
    """Labels, releases and rollouts of a hub's devices.

    The password is read from BRICKLESS_PASSWORD, or asked for.
    """
    context.obj = Fleet(url, token, user, as_json)


# -- labels and types ------------------------------------------------------------------------------------------------


@_command(fleet, "devices", "brickless fleet devices 'site=lab, web-version >= 1.2'")
@click.argument("selector", default="*")
def devices(env: Fleet, selector: str) -> None:
    """List the devices that SELECTOR matches, with their labels."""
    found = env.hub.devices(selector)
    rows = ([one["nick"], one["device"], _labels_text(one["labels"])] for one in found)
    env.show(found, rows, ("NICK", "DEVICE", "LABELS"))


def _labels_text(labels: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(labels.items()))


@_command(fleet, "label", "brickless fleet label kitchen site=lab spare-")
@click.argument("device")
@click.argument("changes", nargs=-1, metavar="KEY=VALUE|KEY-...")
@click.option("--selector", "by_selector", is_flag=True, help="DEVICE is a selector: label all that it matches.")
def label(env: Fleet, device: str, changes: tuple[str, ...], by_selector: bool) -> None:
    """Set labels of DEVICE (id or nick), or remove them (KEY-); without changes, show them."""
    wanted = dict(map(_change, changes))
    if by_selector:
        changed = env.hub.label_all(device, wanted)
        env.show({"changed": changed}, ([one] for one in changed))
        return
    found = env.hub.label(device, wanted) if wanted else env.hub.labels(device)
    env.show(found, ([key, value] for key, value in sorted(found.items())))


def _change(text: str) -> tuple[str, str | None]:
    key, sign, value = text.partition("=")
    if sign:
        return key, value
    if text.endswith("-"):
        return text[:-1], None
    raise click.BadParameter(f"{text!r} is neither KEY=VALUE nor KEY-")


@fleet.group("type", epilog="Example: brickless fleet type ls")
def type_group() -> None:
    """Device types: names for kinds of hardware; a device is of the type that its label `type` says."""


@_command(type_group, "ls", "brickless fleet type ls")
def type_ls(env: Fleet) -> None:
    """List device types."""
    found = env.hub.types()
    env.show(found, ([one["name"], one["description"]] for one in found), ("NAME", "DESCRIPTION"))


@_command(type_group, "set", "brickless fleet type set rpi4 'Raspberry Pi 4, 2 GB'")
@click.argument("name")
@click.argument("description", default="")
def type_set(env: Fleet, name: str, description: str) -> None:
    """Make or change a device type."""
    made = env.hub.put_type(name, description)
    env.show(made, [[made["name"], made["description"]]])


@_command(type_group, "rm", "brickless fleet type rm rpi4")
@click.argument("name")
def type_rm(env: Fleet, name: str) -> None:
    """Delete a device type."""
    env.hub.delete_type(name)


# -- releases --------------------------------------------------------------------------------------------------------


@fleet.group(epilog="Example: brickless fleet release ls")
def release() -> None:
    """Releases: parts of a revision that never change, to be brought to devices."""


@_command(release, "create", "brickless fleet release create web-1.2 --from build-device@7#web,_config/web")
@click.argument("name")
@click.option(
    "--from", "source", default="", metavar="DEVICE[@REV][#PARTS]", help="A device's revision, or parts of it."
)
@click.option("--export", "export", default="", metavar="FILE[#PARTS]", help="A tar file of `pvr export`.")
@click.option("--type", "types", multiple=True, help="Only for devices of this type; may be repeated.")
@click.option("--note", default="", help="For people.")
@click.option("--allow-unsigned", is_flag=True, help="Leave signatures behind that cover more than the parts.")
def release_create(
    env: Fleet, name: str, source: str, export: str, types: tuple[str, ...], note: str, allow_unsigned: bool
) -> None:
    """Make the release NAME from a device's revision or from an export."""
    if bool(source) == bool(export):
        raise click.UsageError("give --from or --export")
    place, _, fragment = (source or export).partition("#")
    draft: dict[str, Any] = {"name": name, "fragment": fragment, "note": note, "types": list(types)}
    if export:
        draft["state"] = fleet_export.state_of(env.hub, Path(place))
    else:
        device, _, rev = place.partition("@")
        draft["device"], draft["revision"] = device, _number(rev) if rev else None
    made = env.hub.create_release(**draft, allow_unsigned=allow_unsigned)
    env.show(made, [[made["name"], made["id"][:12], f"#{made['fragment']}", made["size"]]])


def _number(text: str) -> int:
    if not text.isdigit():
        raise click.BadParameter(f"{text!r} is no revision: a number is expected behind the @")
    return int(text)


@_command(release, "ls", "brickless fleet release ls")
def release_ls(env: Fleet) -> None:
    """List releases, newest first."""
    found = env.hub.releases()
    rows = ([one["name"], one["id"][:12], one["fragment"] or "*", one["size"], one["source"]] for one in found)
    env.show(found, rows, ("NAME", "ID", "PARTS", "BYTES", "FROM"))


@_command(release, "show", "brickless fleet release show web-1.2")
@click.argument("name")
def release_show(env: Fleet, name: str) -> None:
    """Show a release with its entries."""
    found = env.hub.release(name)
    env.show(found, ([path, value if isinstance(value, str) else "(inline)"] for path, value in found["state"].items()))


@_command(release, "rm", "brickless fleet release rm web-1.2")
@click.argument("name")
def release_rm(env: Fleet, name: str) -> None:
    """Delete a release that no rollout brings."""
    env.hub.delete_release(name)


# -- rollouts --------------------------------------------------------------------------------------------------------


@fleet.group(epilog="Example: brickless fleet rollout show lab-1.2")
def rollout() -> None:
    """Rollouts: bring a release to devices in phases, watched by the rule of docs/explanation/rollouts.md."""


@_command(rollout, "create", "brickless fleet rollout create web-1.2 site=lab --name lab-1.2 --canary 1")
@click.argument("release_name", metavar="RELEASE")
@click.argument("selector")
@click.option("--name", default="", help="What it is called; made up when left out.")
@click.option("--canary", type=int, help="First phase: so many devices.")
@click.option("--percent", type=float, multiple=True, help="A further phase: so many percent; may be repeated.")
@click.option("--budget", type=float, help="Stop when this fraction of the devices failed.")
@click.option("--spec", "spec_file", type=click.Path(path_type=Path, dir_okay=False), help="Everything, as JSON.")
@click.option("--preview", is_flag=True, help="Say what it would do, and do nothing.")
def rollout_create(env: Fleet, release_name: str, selector: str, name: str, preview: bool, **how: Any) -> None:
    """Begin to bring RELEASE to the devices that SELECTOR matches."""
    spec = _spec(**how)
    if preview:
        found = env.hub.preview(release_name, selector, spec=spec)
        rows = [["devices", found["devices"]], ["phases", " ".join(map(str, found["phases"]))]]
        rows += [[f"unfit: {reason}", count] for reason, count in found["unfit"].items()]
        rows += [["touches the same parts", other] for other in found["rivals"]]
        env.show(found, rows)
        return
    made = env.hub.create_rollout(release_name, selector, name=name, spec=spec)
    env.show(made, [_rollout_row(made)], _ROLLOUT_HEAD)


def _spec(
    *, canary: int | None, percent: tuple[float, ...], budget: float | None, spec_file: Path | None
) -> dict[str, Any]:
    """The specification: a file's, with what the options say over it."""
    spec: dict[str, Any] = json.loads(spec_file.read_text()) if spec_file else {}
    phases: list[dict[str, float]] = [{"count": canary}] if canary else []
    phases += [{"percent": one} for one in percent]
    if phases:
        spec["phases"] = phases
    if budget is not None:
        spec["policy"] = {**spec.get("policy", {}), "budget": budget}
    return spec


_ROLLOUT_HEAD = ("NAME", "RELEASE", "STATE", "DEVICES", "UPDATED", "UNDER WAY", "BAD", "REASON")


def _rollout_row(one: Mapping[str, Any]) -> list[object]:
    counts = one["counts"]
    return [
        one["name"], one["release"], one["state"], one["devices"], counts["updated"] + counts["gone-back"],
        under_way(one), bad(one), one["reason"],
    ]  # fmt: skip


@_command(rollout, "ls", "brickless fleet rollout ls")
def rollout_ls(env: Fleet) -> None:
    """List rollouts, newest first."""
    found = env.hub.rollouts()
    env.show(found, map(_rollout_row, found), _ROLLOUT_HEAD)


@_command(rollout, "show", "brickless fleet rollout show lab-1.2")
@click.argument("name")
@click.option("--state", default="", help="List only the devices in this state.")
def rollout_show(env: Fleet, name: str, state: str) -> None:
    """Show a rollout and every device of it, with the reason of its state."""
    found = env.hub.rollout(name)
    members = env.hub.members(name, state)
    if env.as_json:
        env.show({**found, "members": members})
        return
    env.show(found, [_rollout_row(found)], _ROLLOUT_HEAD)
    print()
    rows = ([one["nick"], one["state"], one.get("deadline", ""), one["reason"]] for one in members)
    env.show(members, rows, ("NICK", "STATE", "DEADLINE", "REASON"))


def _action(name: str, text: str) -> None:
    @_command(rollout, name, f"brickless fleet rollout {name} lab-1.2 --reason 'see ticket 12'")
    @click.argument("name")
    @click.option("--reason", default="", help="For people; it stays with the rollout.")
    def act(env: Fleet, name: str, reason: str, *, action: str = name) -> None:
        done = env.hub.act(action, name, reason)
        env.show(done, [_rollout_row(done)], _ROLLOUT_HEAD)

    act.help = text


for _name, _text in (
    ("pause", "Give the release to no more devices until `resume`."),
    ("resume", "Go on after a pause."),
    ("abort", "Stop at once, for good."),
    ("finish", "Take no more devices in."),
    ("rollback", "Stop, and give devices their own former parts back."),
):
    _action(_name, _text)


@_command(fleet, "wait", "brickless fleet wait lab-1.2 --timeout 3600")
@click.argument("name")
@click.option("--timeout", type=float, default=3600.0, show_default=True, help="Seconds.")
def wait(env: Fleet, name: str, timeout: float) -> None:
    """Wait for the end of a rollout. Status 0: done; 1: with failures; 3: stopped, aborted, rolled back; 4: timeout."""
    last = ""

    def seen(one: Mapping[str, Any]) -> None:
        nonlocal last
        text = f"{one['state']}: {one['reason']}"
        if text != last:
            print(text, file=sys.stderr, flush=True)
            last = text

    try:
        ended = env.hub.wait(name, timeout_s=timeout, seen=seen)
    except TimeoutError as error:
        print(f"brickless fleet: {error}", file=sys.stderr)
        sys.exit(TIMED_OUT)
    env.show(ended, [_rollout_row(ended)], _ROLLOUT_HEAD)
    if ended["state"] not in {"settled", "finished"}:
        sys.exit(STOPPED)
    sys.exit(1 if bad(ended) else 0)


# -- declarative files -----------------------------------------------------------------------------------------------

_FILE = click.option(
    "-f", "--file", "path", required=True, type=click.Path(path_type=Path, dir_okay=False), help="TOML, or *.json."
)


@_command(fleet, "diff", "brickless fleet diff -f fleet.toml")
@_FILE
def diff(env: Fleet, path: Path) -> None:
    """Say what `apply` would do. Status 1 when that is anything."""
    found = fleet_files.changes(env.hub, fleet_files.load(path))
    env.show([one.text for one in found], ([one.text] for one in found))
    sys.exit(1 if found else 0)


@_command(fleet, "apply", "brickless fleet apply -f fleet.toml")
@_FILE
def apply(env: Fleet, path: Path) -> None:
    """Make the hub as the file says: each difference is shown, then made. What the file does not name is left alone."""
    found = fleet_files.changes(env.hub, fleet_files.load(path))
    env.show([one.text for one in found], ([one.text] for one in found))
    for one in found:
        one.make()
    print(f"{len(found)} changes made" if found else "nothing to change", file=sys.stderr)
