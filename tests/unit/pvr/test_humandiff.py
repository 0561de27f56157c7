"""States for people."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core import canonical
from brickless.core.canonical import JsonValue
from brickless.pvr import humandiff

A, B, C = "a" * 64, "b" * 64, "c" * 64
SIZES = {A: 1_500_000, B: 2_000_000, C: 700}
OLD: dict[str, JsonValue] = {
    "#spec": "pantavisor-service-system@1",
    "_config/web/etc/motd": C,
    "bsp/kernel.img": C,
    "bsp/run.json": {"linux": "kernel.img"},
    "device.json": {"groups": []},
    "old/run.json": {"name": "old"},
    "web/root.squashfs": A,
    "web/run.json": {"name": "web", "group": "app", "storage": {"data": {"persistence": "boot"}}},
    "web/src.json": {"docker_name": "nginx", "docker_tag": "1.27", "docker_digest": "nginx@sha256:" + "1" * 64},
}
NEW: dict[str, JsonValue] = {key: value for key, value in OLD.items() if not key.startswith("old/")} | {
    "_sigs/web.json": {"#spec": "pvs@2"},
    "db/root.squashfs": C,
    "db/run.json": {"name": "db"},
    "web/root.squashfs": B,
    "web/run.json": {"name": "web", "group": "platform", "storage": {"data": {"persistence": "permanent"}}, "x": None},
    "web/src.json": {"docker_name": "nginx", "docker_tag": "1.28", "docker_digest": "nginx@sha256:" + "2" * 64},
}


def test_a_state_is_shown_by_its_parts() -> None:
    found = humandiff.parts(NEW, SIZES.get)
    assert [(part.name, part.kind) for part in found] == [
        ("bsp", "bsp"),
        ("db", "container"),
        ("web", "container"),
        ("(device)", "files"),
    ]
    web = found[2]
    assert (web.image, web.group, web.size_bytes, web.signed) == ("nginx:1.28", "platform", 2_000_700, True)
    assert humandiff.show(found)[2] == (
        "web                  container  nginx:1.28, sha256:222222222222, 1.9 MiB, group platform, signed"
    )


def test_changes_are_told_part_by_part() -> None:
    changes = humandiff.compare(OLD, NEW, SIZES.get)
    assert [(change.kind, change.name) for change in changes] == [
        ("added", "db"),
        ("changed", "web"),
        ("removed", "old"),
        ("changed", "(signatures)"),
    ]
    lines = humandiff.show_changes(changes)
    assert lines == [
        "+ db                   700 B",
        "~ web                  1.4 MiB → 1.9 MiB (+488.3 KiB)",
        "    image nginx:1.27 sha256:111111111111 → nginx:1.28 sha256:222222222222",
        "    root.squashfs is changed (1.4 MiB → 1.9 MiB (+488.3 KiB))",
        '    run.json .group: "app" → "platform"',
        '    run.json .storage.data.persistence: "boot" → "permanent"',
        "    run.json .x: null is new",
        f'    src.json .docker_digest: "nginx@sha256:{"1" * 45}… → "nginx@sha256:{"2" * 45}…',
        '    src.json .docker_tag: "1.27" → "1.28"',
        "- old                  0 B",
        "~ (signatures)",
        "    web is added",
    ]


def test_an_unknown_size_is_not_taken_for_nothing() -> None:
    part = next(part for part in humandiff.parts(NEW, lambda _: None) if part.name == "web")
    assert part.size_bytes is None
    assert humandiff.human_size(None) == ""


def test_endless_differences_are_cut() -> None:
    new = {**OLD, "web/run.json": {str(index): index for index in range(500)}}
    lines = humandiff.show_changes(humandiff.compare(OLD, new, SIZES.get))
    assert lines[-1].strip().startswith("... and ")
    assert len(lines) < 50


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)
ENTRIES = st.dictionaries(
    st.sampled_from(["web/run.json", "web/src.json", "bsp/run.json", "a.json", "_config/web/x.json", "_sigs/web.json"]),
    JSON,
)


@given(ENTRIES, ENTRIES)
def test_any_two_states_can_be_compared_and_equal_ones_have_no_changes(
    old: dict[str, JsonValue], new: dict[str, JsonValue]
) -> None:
    changes = humandiff.compare(old, new, SIZES.get)
    humandiff.show_changes(changes)
    humandiff.show(humandiff.parts(new, SIZES.get))
    assert bool(changes) is not canonical.equal(old, new)


@pytest.mark.needs("shared")
def test_real_states_can_be_shown(shared_fixtures: Path) -> None:
    for path in sorted(shared_fixtures.glob("*.json")):
        entries = canonical.loads(path.read_bytes())
        assert isinstance(entries, dict)
        lines = humandiff.show(humandiff.parts(entries, lambda _: None))
        assert lines or path.name == "state_with_spaces.json"
