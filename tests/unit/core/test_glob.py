"""Patterns: hostile ones end, and end soon. (The dialect itself is held by spec/vectors/glob.jsonl.)"""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core.errors import HostileInputError
from brickless.core.glob import match


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("a/*.json", "a/x.json", True),
        ("a/[a-c]*", "a/bx", True),
        ("a/[^a-c]*", "a/bx", False),
        ("a/[]", "a/x", None),
        ("a/[x", "a/x", None),
        ("{a,b", "a", None),
        ("a\\", "ab", None),
        ("a\\*", "a*", True),
        ("a\\*", "ab", False),
        ("{a,{b,c/d}}/x", "c/d/x", True),
        ("a[/]b", "a/b", False),
        ("**/**/x", "x", True),
        ("", "", True),
    ],
)
def test_dialect(pattern: str, path: str, expected: bool | None) -> None:
    if expected is None:
        with pytest.raises(HostileInputError):
            match(pattern, path)
    else:
        assert match(pattern, path) is expected


@pytest.mark.timeout(5)
def test_patterns_made_to_explode() -> None:
    assert not match("*a" * 300 + "b", "a" * 200)
    assert not match("/".join(["**"] * 200) + "/b", "/".join(["a"] * 200))
    with pytest.raises(HostileInputError):
        match("{a,b}" * 30, "a")
    with pytest.raises(HostileInputError):
        match("x" * 5000, "a")


@given(st.text("ab/*", max_size=8), st.text("ab/", max_size=8))
def test_a_plain_path_matches_itself_only(pattern: str, path: str) -> None:
    if "*" not in pattern:
        assert match(pattern, path) is (pattern == path)


@given(st.text(max_size=12), st.text(max_size=12))
def test_any_pattern_ends(pattern: str, path: str) -> None:
    with suppress(HostileInputError):
        assert match(pattern, path) in {True, False}
