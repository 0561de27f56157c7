"""Copying parts between trails: renaming, neighbours untouched, and no deletion by a typing mistake."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core.canonical import JsonValue
from brickless.core.errors import UserError
from brickless.core.fragment import Fragment, covers
from brickless.pvr import fastcopy

A, B, C = "a" * 64, "b" * 64, "c" * 64
SOURCE: dict[str, JsonValue] = {
    "#spec": "pantavisor-service-system@1",
    "_sigs/nginx.json": {"#spec": "pvs@2"},
    "nginx/root.squashfs": A,
    "nginx/run.json": {"name": "nginx"},
    "nginx2/root.squashfs": B,
}
DESTINATION: dict[str, JsonValue] = {"#spec": "old", "web/old.squashfs": C, "web2/root.squashfs": C}


def copied(parts: str, names: str = "", *, merge: bool = False) -> fastcopy.Copied:
    return fastcopy.copy(DESTINATION, SOURCE, parts=Fragment.parse(parts), names=Fragment.parse(names), merge=merge)


def test_a_part_is_renamed_and_what_lay_there_goes() -> None:
    result = copied("nginx", "web")
    assert result.entries == {
        "#spec": "old",
        "web/root.squashfs": A,
        "web/run.json": {"name": "nginx"},
        "web2/root.squashfs": C,
    }
    assert len(result.warnings) == 2


def test_merge_keeps_what_lay_there() -> None:
    assert copied("nginx", "web", merge=True).entries["web/old.squashfs"] == C


def test_without_names_parts_keep_theirs_and_nobody_warns() -> None:
    result = copied("nginx,_sigs/nginx.json")
    assert result.entries["nginx/root.squashfs"] == A
    assert "nginx2/root.squashfs" not in result.entries
    assert result.warnings == ()


def test_without_parts_everything_is_copied() -> None:
    assert copied("").entries == SOURCE
    assert copied("", merge=True).entries == DESTINATION | SOURCE


@pytest.mark.parametrize(
    ("parts", "names", "id_"),
    [
        ("", "web", "fragment-pairs"),
        ("nginx,nginx2", "web", "fragment-pairs"),
        ("nginx", "web,web2", "fragment-pairs"),
        ("nignx", "web", "fragment-missing"),
        ("-nginx", "", "fragment-removal"),
        ("nginx", "-web", "fragment-removal"),
        ("nginx,nginx2", "web,web", "fragment-collision"),
        ("nginx,nginx2", "web,web/sub", "fragment-collision"),
    ],
)
def test_what_cannot_be_meant_is_refused(parts: str, names: str, id_: str) -> None:
    with pytest.raises(UserError) as caught:
        copied(parts, names)
    assert caught.value.id == id_


NAMES = st.sampled_from(["a", "ab", "b", "a/b", "c"])
ENTRIES = st.dictionaries(st.tuples(NAMES, NAMES).map("/".join), st.sampled_from([A, B, C]), max_size=8)


@given(ENTRIES, ENTRIES, NAMES, NAMES, st.booleans())
def test_neighbours_of_the_target_are_never_touched(
    destination: dict[str, JsonValue], source: dict[str, JsonValue], part: str, name: str, merge: bool
) -> None:
    if not any(covers((part,), path) for path in source):
        return
    result = fastcopy.copy(destination, source, parts=Fragment((part,)), names=Fragment((name,)), merge=merge).entries
    outside = {path: value for path, value in destination.items() if not covers((name,), path)}
    assert {path: value for path, value in result.items() if not covers((name,), path)} == outside
