"""The state: what real devices run is accepted, and a fault is found where it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brickless.core import canonical
from brickless.core.errors import StateError
from brickless.core.state import KNOWN_SPECS, State, is_inline_json, parse_entries, parse_state, validate

SHA = "ab" * 32


def state(**changes: object) -> dict[str, object]:
    entries: dict[str, object] = {
        "#spec": "pantavisor-service-system@1",
        "web/lxc.container.conf": SHA,
        "web/root.squashfs": SHA,
        "web/run.json": {
            "#spec": "service-manifest-run@1",
            "name": "web",
            "type": "lxc",
            "config": "lxc.container.conf",
            "root-volume": "root.squashfs",
            "storage": {"data": {"persistence": "permanent"}},
            "volumes": [],
        },
    }
    return entries | changes


def parse(entries: dict[str, object]) -> State:
    return parse_state(json.dumps(entries).encode())


@pytest.mark.needs("shared")
def test_real_states_are_accepted(shared_fixtures: Path) -> None:
    files = sorted(shared_fixtures.glob("*.json"))
    assert files
    for file in files:
        raw = file.read_bytes()
        made = parse_state(raw)
        assert made.raw == raw
        assert canonical.loads(made.canonical()) == canonical.loads(raw)
        assert parse_state(made.canonical()).sha == made.sha


def test_the_fault_is_named_by_its_exact_path() -> None:
    entries = state()
    entries["web/run.json"]["storage"]["data"]["persistence"] = "forever"  # type: ignore[index]  # JSON that the test knows
    with pytest.raises(StateError) as caught:
        parse(entries)
    assert caught.value.path == "web/run.json: .storage.data.persistence"
    assert caught.value.rule == "persistence"
    assert str(caught.value) == (
        "web/run.json: .storage.data.persistence: 'forever' is none of permanent, revision, boot."
    )


def test_unknown_keys_are_kept() -> None:
    entries = state(**{"elsewhere/x.json": {"y": None}, "network-mapping.json": {}})
    entries["web/run.json"]["x-vendor"] = {"a": 1}  # type: ignore[index]  # JSON that the test knows
    made = parse(entries)
    assert made.containers["web"].extra == {"x-vendor": {"a": 1}}
    assert made.jsons["elsewhere/x.json"] == {"y": None}
    assert made.owner("elsewhere/x.json") is None
    assert made.owner("_config/web/etc/x") == "web"
    assert made.owner("web/root.squashfs") == "web"


def test_the_hub_takes_what_the_device_refuses() -> None:
    for spec in KNOWN_SPECS[1:]:
        data = json.dumps({"#spec": spec, "pantavisor.json": {}}).encode()
        assert parse_entries(data)["#spec"] == spec
        with pytest.raises(StateError) as caught:
            parse_state(data)
        assert caught.value.rule == "spec-unsupported"
    assert parse_entries(b"{}") == {}
    with pytest.raises(StateError):
        validate({})


def test_ungrouped_containers_follow_the_contract() -> None:
    def run(name: str, **more: str) -> dict[str, object]:
        return {"name": name, "config": "c", **more}

    def groups(entries: dict[str, object]) -> dict[str, str]:
        files = {f"{key.split('/')[0]}/c": SHA for key in entries if key.endswith("/run.json")}
        made = parse({"#spec": "pantavisor-service-system@1", **files, **entries})
        return {name: container.group for name, container in made.containers.items()}

    assert groups({"a/run.json": run("a"), "b/run.json": run("b")}) == {"a": "root", "b": "platform"}
    assert groups({"a/run.json": run("a"), "b/run.json": run("b", group="root")}) == {"a": "platform", "b": "root"}
    assert groups({"a/run.json": run("a", runlevel="app")}) == {"a": "app"}
    own = {"groups.json": [{"name": "first"}, {"name": "last"}]}
    assert groups({"a/run.json": run("a", runlevel="root"), **own}) == {"a": "last"}
    # device.json counts alone when both are there
    both = {"device.json": {"groups": [{"name": "only"}]}, **own}
    assert groups({"a/run.json": run("a"), **both}) == {"a": "only"}


@pytest.mark.parametrize(
    ("path", "value", "inline"),
    [
        ("a/x.json", {}, True),
        ("a/x.json", "text", True),
        ("a/x.json", SHA, False),
        ("a/x.json", SHA.upper(), False),
        ("a/x", SHA, False),
        ("a/x", {}, False),
    ],
)
def test_inline_or_object(path: str, value: canonical.JsonValue, inline: bool) -> None:
    assert is_inline_json(path, value) is inline


@pytest.mark.parametrize(
    ("value", "on"), [("no", False), (False, False), ("yes", True), (True, True), (None, True), ([], True), (0, True)]
)
def test_automodfw_is_on_unless_it_says_no(value: object, on: bool) -> None:
    entries = state()
    entries["web/run.json"]["automodfw"] = value  # type: ignore[index]  # JSON that the test knows
    assert parse(entries).containers["web"].automodfw is on
