"""What holds for any tree: an export is the state, wherever it is taken; a difference leads there and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brickless.core import canonical, merge
from brickless.core.fragment import Fragment
from brickless.core.fragment import get as get_parts
from brickless.core.fragment import merge as merge_parts
from brickless.pvr.main import run
from brickless.store import worktree

FOLDERS = ["app", "app2", "app.d", "apple", "_config/app", "_sigs", "bsp"]
NAMES = st.tuples(st.sampled_from(FOLDERS), st.sampled_from(["a", "b.json", "sub/c", "sub/d.json", "é x"])).map(
    "/".join
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
DOCUMENTS = st.dictionaries(st.text(max_size=3), JSON, min_size=1, max_size=3)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, bytes]:
    names = draw(st.sets(NAMES, min_size=1, max_size=8))
    return {
        name: canonical.dumps(canonical.loads(json.dumps(draw(DOCUMENTS))))
        if name.endswith(".json")
        else draw(st.binary(max_size=40))
        for name in sorted(names)
    }


def pvr(*words: str) -> None:
    assert run(["--quiet", *words]) == 0, words


def files_of(folder: Path) -> dict[str, bytes]:
    return {path: (folder / path).read_bytes() for path in worktree.scan(str(folder))}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(tree=trees(), suffix=st.sampled_from([".tar", ".tgz"]))
def test_commit_export_import_checkout_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, tree: dict[str, bytes], suffix: str
) -> None:
    place = tmp_path_factory.mktemp("there")
    monkeypatch.setenv("HOME", str(place))
    here, there = place / "here", place / "there"
    for folder, pool in ((here, "pool1"), (there, "pool2")):
        folder.mkdir()
        pvr("-C", str(folder), "init", "--objects", str(place / pool))
    for path, data in tree.items():
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_bytes(data)
    pvr("-C", str(here), "add")
    pvr("-C", str(here), "commit")
    pvr("-C", str(here), "export", str(place / f"x{suffix}"))
    pvr("-C", str(there), "import", str(place / f"x{suffix}"))
    pvr("-C", str(there), "checkout", "--canonical")
    assert files_of(there) == tree
    assert (there / ".pvr/json").read_bytes() == (here / ".pvr/json").read_bytes()
    pvr("-C", str(there), "export", str(place / f"again{suffix}"))
    assert (place / f"again{suffix}").read_bytes() == (place / f"x{suffix}").read_bytes()


STATES = st.dictionaries(NAMES, st.sampled_from(["0" * 64, "1" * 64]) | DOCUMENTS, max_size=8)


def read_without_nulls(value: Any) -> Any:
    """As a state is read, less what a patch cannot say (RFC 7386): nulls, in arrays as well (contract pvr.md 3.2)."""
    if isinstance(value, dict):
        return {key: read_without_nulls(member) for key, member in value.items() if member is not None}
    if isinstance(value, list):
        return [read_without_nulls(member) for member in value if member is not None]
    return canonical.loads(json.dumps(value))


@given(STATES, STATES)
def test_a_difference_leads_there_and_its_inverse_back(old: dict[str, Any], new: dict[str, Any]) -> None:
    old, new = read_without_nulls(old), read_without_nulls(new)
    assert canonical.equal(merge.apply(old, merge.diff(old, new)), new)
    assert canonical.equal(merge.apply(new, merge.diff(new, old)), old)
    assert merge.diff(old, old) == {}


PARTS = st.lists(st.sampled_from(["app", "app2", "app/sub", "app/b.json", "_config/app"]), max_size=2)


@given(STATES, STATES, PARTS, PARTS)
def test_fragments_never_touch_a_neighbour(
    local: dict[str, Any], incoming: dict[str, Any], include: list[str], remove: list[str]
) -> None:
    text = ",".join([*include, *(f"-{part}" for part in remove)])
    if not include:
        return  # without a part to take, all is taken: no entry is a neighbour
    fragment = Fragment.parse(text)
    named = [*include, *remove]
    beside = {path for path in {*local, *incoming} if not any(path == n or path.startswith(f"{n}/") for n in named)}
    for combine in (get_parts, merge_parts):
        result = combine(local, incoming, fragment)
        assert {path: result[path] for path in beside & set(result)} == {p: local[p] for p in beside & set(local)}
