"""Fleets as a file under version control: what it says, how the hub differs, and making the hub as it says.

TOML or JSON (docs/reference/fleets.md). What the file does not name is left alone: `apply` makes and changes, it never
deletes. Releases and rollouts cannot be changed, so one that differs is an error that says so.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from brickless.core.errors import UserError
from brickless.main.fleetapi import FleetClient, FleetError

_MAX_BYTES = 4 * 1024 * 1024
_SECTIONS = {"labels", "types", "releases", "rollouts"}
_RELEASE = {"name", "device", "revision", "state", "fragment", "note", "types", "allow-unsigned"}
_ROLLOUT = {"name", "release", "selector", "spec"}


class Change(NamedTuple):
    """One difference: `text` is what people read, `make` does it."""

    text: str
    make: Callable[[], object]


def load(path: Path) -> dict[str, Any]:
    """The file, checked as far as it can be without the hub. Raises `UserError` with the place of the fault."""
    data = path.read_bytes()
    if len(data) > _MAX_BYTES:
        raise UserError("fleet-file-size", f"{path} is larger than {_MAX_BYTES} bytes")
    try:
        text = data.decode()
        value = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (UnicodeDecodeError, ValueError) as error:
        raise UserError("fleet-file-syntax", f"{path}: {error}") from error
    _known(str(path), value, _SECTIONS)
    _tables(path, "labels", value)
    _tables(path, "types", value)
    for section, known, needed in (("releases", _RELEASE, {"name"}), ("rollouts", _ROLLOUT, _ROLLOUT - {"spec"})):
        for number, one in enumerate(_list(path, section, value)):
            _known(f"{path}: {section}[{number}]", one, known)
            if missing := sorted(needed - set(one)):
                raise UserError("fleet-file-member", f"{path}: {section}[{number}] has no {missing[0]!r}")
    return dict(value)


def _known(where: str, value: Any, known: set[str]) -> None:
    if not isinstance(value, dict):
        raise UserError("fleet-file-member", f"{where} must be a table")
    if unknown := sorted(set(value) - known):
        raise UserError("fleet-file-member", f"{where}: {unknown[0]!r} is none of {', '.join(sorted(known))}")


def _tables(path: Path, section: str, value: Mapping[str, Any]) -> None:
    found = value.get(section, {})
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise UserError("fleet-file-member", f"{path}: {section!r} must be a table of tables")


def _list(path: Path, section: str, value: Mapping[str, Any]) -> list[Any]:
    found = value.get(section, [])
    if not isinstance(found, list):
        raise UserError("fleet-file-member", f"{path}: {section!r} must be a list of tables")
    return found


def changes(client: FleetClient, wanted: Mapping[str, Any]) -> list[Change]:
    """What must be done to make the hub as the file says, in this order. Raises `UserError` for what cannot be."""
    return [
        *_types(client, wanted.get("types", {})),
        *_labels(client, wanted.get("labels", {})),
        *_releases(client, wanted.get("releases", [])),
        *_rollouts(client, wanted.get("rollouts", [])),
    ]


def _types(client: FleetClient, wanted: Mapping[str, Any]) -> list[Change]:
    known = {one["name"]: one["description"] for one in client.types()} if wanted else {}
    found = []
    for name, one in wanted.items():
        description = str(one.get("description", ""))
        if known.get(name) != description:
            sign = "~" if name in known else "+"
            found.append(Change(f"{sign} type {name}: {description}", _call(client.put_type, name, description)))
    return found


def _labels(client: FleetClient, wanted: Mapping[str, Any]) -> list[Change]:
    found = []
    for device, labels in wanted.items():
        known = client.labels(device)
        # An empty value removes: TOML knows no null.
        differing = {
            key: None if value in ("", None) else str(value)
            for key, value in labels.items()
            if known.get(key) != (None if value in ("", None) else str(value))
        }
        if differing:
            words = " ".join(f"-{key}" if value is None else f"{key}={value}" for key, value in differing.items())
            found.append(Change(f"~ labels of {device}: {words}", _call(client.label, device, differing)))
    return found


def _releases(client: FleetClient, wanted: list[Any]) -> list[Change]:
    found = []
    for one in wanted:
        known = _or_none(lambda one=one: client.release(one["name"]))  # type: ignore[misc]  # a default binds it now
        if known is None:
            text = f"+ release {one['name']} of {one.get('device', 'a state')}{_hash(one.get('fragment', ''))}"
            draft = {key.replace("-", "_"): value for key, value in one.items()}
            found.append(Change(text, _call_with(client.create_release, draft)))
            continue
        fragment = str(one.get("fragment", "")).removeprefix("#")
        if fragment and not set(fragment.split(",")) <= set(known["fragment"].split(",")):
            raise _fixed("release", one["name"], f"its fragment is #{known['fragment']}")
    return found


def _hash(fragment: str) -> str:
    return f"#{fragment.removeprefix('#')}" if fragment else ""


def _rollouts(client: FleetClient, wanted: list[Any]) -> list[Change]:
    found = []
    for one in wanted:
        known = _or_none(lambda one=one: client.rollout(one["name"]))  # type: ignore[misc]  # a default binds it now
        if known is None:
            text = f"+ rollout {one['name']}: {one['release']} to {one['selector']}"
            draft = {key: value for key, value in one.items() if key in {"name", "spec"}}
            make = _call_with(client.create_rollout, {"release": one["release"], "selector": one["selector"], **draft})
            found.append(Change(text, make))
            continue
        if one["release"] not in {known["release"], known["release-id"]}:
            raise _fixed("rollout", one["name"], f"it brings {known['release']}")
        if one["selector"].split() != known["selector"].split():
            raise _fixed("rollout", one["name"], f"its selector is {known['selector']}")
        _check_spec(one["name"], one.get("spec", {}), known["spec"])
    return found


def _check_spec(name: str, wanted: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for key, value in wanted.items():
        there = known.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            _check_spec(name, value, there)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for ours, theirs in zip(value, there or [], strict=False):
                _check_spec(name, ours, theirs)
            if len(value) != len(there or []):
                raise _fixed("rollout", name, f"it has {len(there or [])} {key}")
        elif value != there:
            raise _fixed("rollout", name, f"its {key} is {there}")


def _fixed(what: str, name: str, why: str) -> UserError:
    return UserError(
        "fleet-file-fixed",
        f"the {what} {name} exists and differs: {why}",
        hint=f"A {what} never changes: name a new one",
    )


def _or_none(ask: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return ask()
    except FleetError as error:
        if error.status == 404:
            return None
        raise


def _call(function: Callable[..., object], *values: Any) -> Callable[[], object]:
    return lambda: function(*values)


def _call_with(function: Callable[..., object], values: Mapping[str, Any]) -> Callable[[], object]:
    return lambda: function(**values)
