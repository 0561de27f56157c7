"""No bytes make the state's reader do anything but accept them or say what is wrong and where."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from brickless.core import canonical, signature, transition
from brickless.core.errors import HostileInputError, StateError
from brickless.core.state import parse_entries, parse_state

GOOD = [
    json.loads(file.read_bytes()) for file in sorted((Path(__file__).parents[3] / "spec/vectors/state/good").iterdir())
]
LEAVES: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "x", "..", "/", "a/../b", "dm:", "dm:root.squashfs", "a" * 64, "A" * 64, "30", "root", "\0"])
    | st.text(max_size=6)
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path] if path else []
    for key, member in pairs:
        found += places(member, (*path, key))
    return found


def check(raw: bytes) -> None:
    refusal: StateError | None = None
    try:
        state = parse_state(raw)
    except StateError as error:
        refusal = error
    if refusal is not None:
        assert refusal.rule
        assert refusal.reason
        assert str(refusal).encode()
        return
    assert state.raw == raw
    again = parse_state(state.canonical())
    assert again.sha == state.sha
    assert transition.plan(state, again) == transition.Transition(
        False, (), (), (), tuple(transition.boot_order(state))
    )
    assert {*state.objects, *state.jsons} == set(state.entries)
    assert parse_entries(raw)


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_good_states_with_anything_anywhere(data: st.DataObject) -> None:
    state = copy.deepcopy(data.draw(st.sampled_from(GOOD)))
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(places(state)))
        holder = state
        for key in way:
            holder = holder[key]
        what = data.draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if what == "remove":
            del holder[last]
        elif what == "add" and isinstance(holder, dict):
            holder[data.draw(st.text(max_size=8) | st.sampled_from(["web/run.json", "bsp/x", "group", "name"]))] = (
                data.draw(ANYTHING)
            )
        else:
            holder[last] = data.draw(ANYTHING)
        if not places(state):
            break
    check(json.dumps(state).encode())


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(GOOD), st.data())
def test_good_states_with_broken_bytes(state: dict[str, Any], data: st.DataObject) -> None:
    raw = bytearray(json.dumps(state).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    check(bytes(raw[: data.draw(st.integers(len(raw) // 2, len(raw)))]))


@given(st.binary(max_size=60) | ANYTHING.map(lambda value: json.dumps(value).encode()))
def test_anything(raw: bytes) -> None:
    check(raw)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["#spec", "protected", "signature", "x"]), ANYTHING), st.binary(max_size=40))
def test_signatures_of_anything(value: dict[str, Any], header: bytes) -> None:
    value = {"#spec": "pvs@2", "protected": signature.encode_base64url(header), "signature": "AAAA", **value}
    said = "_sigs/x.json"
    try:
        signature.find_signatures({"_sigs/x.json": canonical.loads(canonical.dumps(value))})
    except HostileInputError as error:
        said = str(error)
    assert "_sigs/x.json" in said
