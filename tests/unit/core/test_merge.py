"""Patches. (The field's dialect is held by spec/vectors/merge-patch.jsonl.)"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core.canonical import equal
from brickless.core.errors import UserError
from brickless.core.fragment import Fragment, get, merge
from brickless.core.merge import apply, apply_entries, diff, diff_entries

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from("xy"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)
STATES = st.dictionaries(st.sampled_from(["#spec", "a/x.json", "a/y.json", "ab/x.json", "b/x.json"]), VALUES)
FRAGMENTS = st.lists(st.sampled_from(["a", "-a", "ab", "a/x.json", "-b", "#spec"]), max_size=3).map(",".join)


def without_null(state: dict[str, Any]) -> dict[str, Any]:
    return {path: value for path, value in state.items() if value is not None}


@given(STATES, STATES)
def test_entry_patches_are_exact(old: dict[str, Any], new: dict[str, Any]) -> None:
    old, new = without_null(old), without_null(new)
    assert equal(apply_entries(old, diff_entries(old, new)), new)
    assert diff_entries(new, new) == {}


@given(VALUES, VALUES)
def test_neither_argument_is_changed(base: Any, patch: Any) -> None:
    before = repr((base, patch))
    apply(base, patch)
    apply(base, patch, keep_nulls=True)
    diff(base, patch)
    assert repr((base, patch)) == before


def test_nulls() -> None:
    config = {"Entrypoint": None, "Env": [None, {"x": None}]}
    assert apply({}, {"a.json": config}) == {"a.json": {"Env": [{}]}}
    assert apply({}, {"a.json": config}, keep_nulls=True) == {"a.json": config}
    assert apply_entries({}, diff_entries({}, {"a.json": config})) == {"a.json": config}
    assert diff({"a": {"x": 1}}, {"a": {}}) == {"a": {"x": None}}
    assert diff({"a": [{"b": 1}]}, {"a": [{"b": 2}]}) == {"a": [{"b": 2}]}


def test_numbers_and_booleans_are_told_apart() -> None:
    assert diff({"a": 9007199254740993}, {"a": 9007199254740992}) == {"a": 9007199254740992}
    assert diff({"a": True}, {"a": 1}) == {"a": 1}


def test_fragments_go_by_component() -> None:
    local = {"#spec": 1, "app/a": 1, "app2/a": 1, "apple.json": 1}
    incoming = {"#spec": 2, "app/b": 2, "app2/b": 2}
    assert get(local, incoming, Fragment.parse("app")) == {"#spec": 1, "app/b": 2, "app2/a": 1, "apple.json": 1}
    assert get(local, incoming, Fragment.parse("")) == incoming
    assert get(local, incoming, Fragment.parse("-app")) == {"#spec": 2, "app2/b": 2}
    assert merge(local, incoming, Fragment.parse("app,-app2")) == {
        "#spec": 1,
        "app/a": 1,
        "app/b": 2,
        "apple.json": 1,
    }


def test_merge_goes_into_inline_json() -> None:
    local: dict[str, Any] = {"a/run.json": {"x": 1, "y": {"z": 1}}}
    incoming: dict[str, Any] = {"a/run.json": {"y": {"q": 2}}, "b/src.json": {"n": None}}
    assert merge(local, incoming, Fragment()) == {
        "a/run.json": {"x": 1, "y": {"z": 1, "q": 2}},
        "b/src.json": {"n": None},
    }


def test_removals_may_come_back_when_merging() -> None:
    assert merge({"c/x": 1}, {"c/y": 2}, Fragment.parse("-c")) == {"c/y": 2}
    assert get({"c/x": 1}, {"c/y": 2}, Fragment.parse("-c")) == {}


@pytest.mark.parametrize("text", [",", "a,", "-", "a,,b", "/"])
def test_empty_items_are_a_mistake(text: str) -> None:
    with pytest.raises(UserError) as caught:
        Fragment.parse(text)
    assert caught.value.id == "fragment-empty-item"


def test_fragments_are_written_as_they_are_read() -> None:
    assert str(Fragment.parse("a/,b/c,-d")) == "a,b/c,-d"
    assert Fragment.parse("a,-b").selects("a/x")
    assert not Fragment.parse("a,-b").selects("b/x")


@given(STATES, STATES, FRAGMENTS)
def test_what_is_not_selected_stays(local: dict[str, Any], incoming: dict[str, Any], text: str) -> None:
    fragment = Fragment.parse(text)
    made = get(local, incoming, fragment)
    for path, value in local.items():
        if not fragment.selects(path) and not fragment.removes(path):
            assert made[path] == value
    for path, value in incoming.items():
        if fragment.selects(path) and not fragment.removes(path):
            assert made[path] == value
    assert not any(fragment.removes(path) for path in made)
