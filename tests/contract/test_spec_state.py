"""The state vectors: core and the schemas agree with every verdict, and every rule is written down and shown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from brickless.core import canonical
from brickless.core.errors import StateError
from brickless.core.progress import Progress, Status
from brickless.core.state import parse_state, validate

SPEC = Path(__file__).parents[2] / "spec"
VECTORS = SPEC / "vectors" / "state"
INDEX: dict[str, dict[str, Any]] = json.loads((VECTORS / "index.json").read_text())
SCHEMAS = {file.name.partition(".")[0]: json.loads(file.read_text()) for file in (SPEC / "schemas").glob("*.json")}
# What no single file can show: its size would be the message.
RULES_OF_SIZE = {"json-too-large", "state-entries", "bsp-missing"}


def schema(name: str) -> Draft202012Validator:
    resources = [(each["$id"], Resource.from_contents(each)) for each in SCHEMAS.values()]
    registry: Registry[Any] = Registry().with_resources(resources)
    return Draft202012Validator({"$ref": f"urn:brickless:spec:{name}"}, registry=registry)


@pytest.fixture(scope="module")
def states() -> Draft202012Validator:
    return schema("state")


def test_there_are_enough_and_each_is_listed() -> None:
    for verdict, at_least in (("good", 20), ("bad", 60)):
        files = {file.stem for file in (VECTORS / verdict).iterdir()}
        assert files == set(INDEX[verdict])
        assert len(files) >= at_least


@pytest.mark.parametrize("name", INDEX["good"])
def test_good_states_are_accepted(name: str, states: Draft202012Validator) -> None:
    raw = (VECTORS / "good" / f"{name}.json").read_bytes()
    state = parse_state(raw)
    assert state.raw == raw
    assert state.sha == INDEX["good"][name]["sha"]
    validate(canonical.loads(raw))  # type: ignore[arg-type]  # plain values that the test knows
    assert [error.message for error in states.iter_errors(json.loads(raw))] == []


@pytest.mark.parametrize("name", INDEX["bad"])
def test_bad_states_are_refused_where_and_why_the_index_says(name: str) -> None:
    expected = INDEX["bad"][name]
    with pytest.raises(StateError) as caught:
        parse_state((VECTORS / "bad" / f"{name}.json").read_bytes())
    assert (caught.value.rule, caught.value.path) == (expected["rule"], expected["path"])
    assert caught.value.reason
    assert re.fullmatch(r"[^\x00-\x1f]+", str(caught.value)), "an error must not carry a terminal's commands"


@pytest.mark.parametrize(
    "name", [name for name, entry in INDEX["bad"].items() if not entry["rule"].startswith("json-")]
)
def test_the_schema_refuses_what_it_can_express(name: str, states: Draft202012Validator) -> None:
    value = json.loads((VECTORS / "bad" / f"{name}.json").read_bytes())
    assert states.is_valid(value) is not INDEX["bad"][name]["schema"]


def test_every_rule_is_written_down_and_shown() -> None:
    text = (SPEC / "state.md").read_text()
    section = text.partition("## 3. The rules")[2].partition("\n## 4.")[0]
    written = {
        name
        for line in section.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([a-z0-9-]+)`", line.split("|")[1])
    }
    shown = {entry["rule"] for entry in INDEX["bad"].values()}
    assert shown - written == set()
    assert written - shown == RULES_OF_SIZE


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_schemas_are_schemas(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    assert SCHEMAS[name]["$id"] == f"urn:brickless:spec:{name}"
    assert schema(name).is_valid([]) in {True, False}, "every reference leads somewhere"


@pytest.mark.needs("shared")
def test_the_schema_accepts_real_states(shared_fixtures: Path, states: Draft202012Validator) -> None:
    sources, signatures = schema("src"), schema("sigs")
    for file in sorted(shared_fixtures.glob("*.json")):
        value = json.loads(file.read_bytes())
        assert [error.message for error in states.iter_errors(value)] == [], file.name
        for path, member in value.items():
            if path.endswith("/src.json") and not path.startswith("bsp/"):
                assert [error.message for error in sources.iter_errors(member)] == [], path
            if path.startswith("_sigs/"):
                assert [error.message for error in signatures.iter_errors(member)] == [], path


def test_the_progress_schema_is_what_is_sent() -> None:
    validator = schema("progress")
    for status in Status:
        validator.validate(json.loads(Progress.of(status, "x", retries=1, logs="y\n").to_json()))
    assert not validator.is_valid({"status": "FINE"})
    assert not validator.is_valid({"status-msg": "no status"})
    assert not validator.is_valid({"status": "DONE", "progress": -1})


def test_services_and_sources_have_their_schemas() -> None:
    services = schema("services")
    assert services.is_valid([{"type": "dbus", "owns": "org.x.Y"}])
    assert not services.is_valid([{"type": "dbus"}])
    assert not services.is_valid([{"name": "system-bus", "type": "dbus"}])
    sources = schema("src")
    assert sources.is_valid(
        {"#spec": "service-manifest-src@1", "pv_build_origin": "yocto", "persistence": {"/x": "boot@d"}}
    )
    assert not sources.is_valid({"persistence": {"/x": "sometimes"}})
    assert not schema("sigs").is_valid({"#spec": "pvs@2", "protected": "e30=", "signature": "AAAA"})


def test_what_is_too_large_is_refused() -> None:
    with pytest.raises(StateError) as caught:
        parse_state(b'{"#spec":"' + b" " * 9_000_000 + b'"}')
    assert caught.value.rule == "json-too-large"
    entries: dict[str, canonical.JsonValue] = {f"x/{number}": "a" * 64 for number in range(66_000)}
    with pytest.raises(StateError) as caught:
        parse_state(canonical.dumps({"#spec": "pantavisor-service-system@1", **entries}))
    assert caught.value.rule == "state-entries"
    with pytest.raises(StateError) as caught:
        parse_state(b'{"#spec":"pantavisor-service-system@1"}', require_bsp=True)
    assert caught.value.rule == "bsp-missing"
