"""Selectors: a table of what matches, a table of what is refused and where, and that nothing hostile crashes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.hub.domain.errors import Malformed
from brickless.hub.domain.fleet_labels import check_labels, compare, parse, version_key

KITCHEN = {"site": "lab", "type": "rpi4", "web": "1.10.2", "floor": "3"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("*", True),
        ("site", True),
        ("garden", False),
        ("!garden", True),
        ("not site", False),
        ("site=lab", True),
        ("site == lab", True),
        ("site=Lab", False),
        ("site != lab", False),
        ("garden != lab", True),
        ("site in (lab, roof)", True),
        ("site not in (lab, roof)", False),
        ("garden not in (lab)", True),
        ("site=lab, type=rpi4", True),
        ("site=lab and type=rpi5", False),
        ("site=roof or type=rpi4", True),
        ("site=roof, type=rpi4 or floor=3", True),
        ("not (site=roof or type=rpi5)", True),
        ("web > 1.9", True),
        ("web >= 1.10.2", True),
        ("web < 1.10.3-rc1", True),
        ("web <= 1.9", False),
        ("garden > 0", False),
        ('site = "lab"', True),
        ('site = "or"', False),
        ("web > v1.10", True),
    ],
)
def test_what_a_selector_matches(text: str, matches: bool) -> None:
    assert parse(text).matches(KITCHEN) is matches


@pytest.mark.parametrize(
    "text",
    [
        "site=",
        "=lab",
        "site in lab",
        "site in ()",
        "site=lab,",
        "(site",
        "site lab",
        "site; drop table devices",
        "site='lab'",
        "a" * 3000,
        "(" * 50 + "a" + ")" * 50,
        "!" * 50 + "a",
        "site not lab",
        'site="a\x00b"',
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse(text)


def test_the_place_of_the_fault_is_named() -> None:
    with pytest.raises(Malformed, match="at character 6"):
        parse("site=")


@pytest.mark.parametrize(
    "versions",
    [
        ["1.0-alpha", "1.0-alpha.1", "1.0-beta", "1.0-rc2", "1.0-rc10", "1.0", "1.0.1", "1.9", "1.10", "2", "10.0.0"],
        ["0.9", "v1.0+build7", "1.1"],
    ],
)
def test_versions_are_in_order(versions: list[str]) -> None:
    keys = [version_key(one) for one in versions]
    for left, right in pairwise(keys):
        assert compare(left, right) < 0 < compare(right, left)


def test_trailing_zeros_and_build_say_nothing() -> None:
    assert compare(version_key("v1.0.0+x"), version_key("1")) == 0


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        selector = parse(text)
    except Malformed:
        return
    assert selector.matches(KITCHEN) in {True, False}


@given(st.text(max_size=40), st.text(max_size=40))
def test_the_order_of_versions_is_one(left: str, right: str) -> None:
    ours, theirs = version_key(left), version_key(right)
    assert compare(ours, theirs) == -compare(theirs, ours)
    assert compare(ours, ours) == 0


@pytest.mark.parametrize("key", ["", "A", "-a", "a-", "a b", "or", "a" * 64, "ä"])
def test_keys_that_no_selector_could_name_are_refused(key: str) -> None:
    with pytest.raises(Malformed):
        check_labels({key: "x"})


@pytest.mark.parametrize("value", ['"', "\\", "\n", "x" * 129])
def test_values_that_no_selector_could_name_are_refused(value: str) -> None:
    with pytest.raises(Malformed):
        check_labels({"a": value})


@given(
    st.from_regex(r"[a-z0-9]([a-z0-9._/-]{0,20}[a-z0-9])?", fullmatch=True),
    st.from_regex(r"[ !#-\[\]-~]{1,30}", fullmatch=True),
)
def test_every_label_can_be_selected(key: str, value: str) -> None:
    if key in {"or", "and", "not", "in"}:
        return
    check_labels({key: value})
    assert parse(f'"{key}" = "{value}"').matches({key: value})
