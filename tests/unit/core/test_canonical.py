"""JSON read strictly and within bounds, written in one form (which spec/vectors/canonical-json.jsonl holds)."""

from __future__ import annotations

import hashlib
import json
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core import canonical
from brickless.core.canonical import JsonValue, dumps, equal, loads, pointer, sha256_hex
from brickless.core.errors import JsonError

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False, places=3)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_canonical_form_is_stable(value: Any) -> None:
    once = dumps(value)
    assert dumps(loads(once)) == once
    json.loads(once)


@given(st.dictionaries(st.text(), st.integers()))
def test_keys_are_in_the_order_of_their_utf8_bytes(value: dict[str, int]) -> None:
    keys = [key.encode() for key in json.loads(dumps(value))]
    assert keys == sorted(keys)


@pytest.mark.parametrize(
    ("text", "value", "form"),
    [
        ("1.0", 1, b"1"),
        ("-0", 0, b"0"),
        ("-0.0", 0, b"0"),
        ("0e999999999", 0, b"0"),
        ("1e2", 100, b"100"),
        ("120e-1", 12, b"12"),
        ("1.50", Decimal("1.5"), b"1.5E0"),
        ("0.00012345", Decimal("0.00012345"), b"1.2345E-4"),
        ("1e-400000", Decimal("1e-400000"), b"1.0E-400000"),
        ("123456789012345678901234567890.5", Decimal("123456789012345678901234567890.5"), None),
    ],
)
def test_numbers_are_exact(text: str, value: int | Decimal, form: bytes | None) -> None:
    made = loads(text)
    assert made == value
    assert type(made) is type(value)
    assert form is None or dumps(made) == form
    assert loads(dumps(made)) == value


def test_floats_are_written_in_their_shortest_form() -> None:
    assert dumps([0.1, 1e21, 2.0, -0.0]) == b"[1.0E-1,1000000000000000000000,2,0]"


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"1e400000", "json-number"),
        (b"1e999999999999999999999", "json-number"),
        (b"-1e99999", "json-number"),
        (b"1." + b"0" * 5000, "json-number"),
        (b"9" * 5000, "json-number"),
        (b"[" * 1_000_000, "json-too-deep"),
        (b'{"a":' * 1_000_000, "json-too-deep"),
        (b"[" * 65 + b"]" * 65, "json-too-deep"),
        (b'"' + b"[" * 1000, "json-syntax"),
        (b'"' + b"\\" * 100_001, "json-syntax"),
        (b'["' + b"a[" * 50_000, "json-syntax"),
        (b" " * (canonical.MAX_BYTES + 1), "json-too-large"),
        (b"1 2", "json-syntax"),
        (b"[1,]", "json-syntax"),
        (b"Infinity", "json-syntax"),
        (b"\xef\xbb\xbf1", "json-syntax"),
        (b"", "json-syntax"),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else value,
)
def test_what_is_refused(data: bytes, rule: str) -> None:
    with pytest.raises(JsonError) as caught:
        loads(data)
    assert caught.value.rule == rule


def test_brackets_inside_strings_are_no_depth() -> None:
    text = "[" * 40 + '"' + '[{\\"' * 100 + '"' + "]" * 40
    assert loads(text)
    assert loads("[" * 64 + "]" * 64) is not None


def test_lenient_as_the_field_strict_where_two_readers_could_differ() -> None:
    assert loads(b'{"a":1,"a":2}') == {"a": 2}
    assert loads(b'"\xff"') == "\ufffd"
    assert loads(rb'["\ud800",{"\udc00":"\ud83d\ude00"}]') == ["\ufffd", {"\ufffd": "\U0001f600"}]
    for data, rule in (
        (b'{"x":[{"a":1,"a":2}]}', "json-duplicate-key"),
        (b'"\xff"', "json-not-utf8"),
        (rb'{"\ud800":1}', "json-surrogate"),
    ):
        with pytest.raises(JsonError) as caught:
            loads(data, strict=True)
        assert caught.value.rule == rule
    assert loads(rb'"\ud83d\ude00"', strict=True) == "\U0001f600"


def test_the_place_of_a_duplicate_is_named() -> None:
    with pytest.raises(JsonError, match=r"twice in one object \(in \.x\[0\]\)") as caught:
        loads(b'{"x":[{"a":1,"a":2}]}', strict=True)
    assert caught.value.where == ("x", 0)
    with pytest.raises(JsonError) as caught:
        loads(b'{"x":{"a":1,"a":2},"x":0}', strict=True)
    assert caught.value.where == ()


@pytest.mark.parametrize("value", [object(), {1: 2}, float("nan"), Decimal("Infinity"), b"bytes", {"a": {1, 2}}])
def test_what_json_cannot_hold_is_our_bug(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        dumps(value)


def test_a_decimal_made_by_hand_does_not_explode() -> None:
    with pytest.raises(TypeError):
        dumps(Decimal("1e400000"))


def test_lone_surrogates_of_our_own_strings_become_marks() -> None:
    assert dumps(["\ud800"]) == '["\ufffd"]'.encode()


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (True, 1, False),
        (0, False, False),
        ([True], [1], False),
        ({"a": 1}, {"a": True}, False),
        (1, Decimal("1.0"), True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ([1, 2], [2, 1], False),
        ([1], [1, 2], False),
        (None, False, False),
        ({}, [], False),
        ("1", 1, False),
        (9007199254740993, 9007199254740992, False),
    ],
)
def test_equality_is_that_of_json(left: JsonValue, right: JsonValue, same: bool) -> None:
    assert equal(left, right) is same
    assert equal(right, left) is same


def test_hash_and_pointer() -> None:
    assert sha256_hex(b"{}") == hashlib.sha256(b"{}").hexdigest()
    # the hub's published values (contract hub.md 3.3)
    assert sha256_hex(dumps({})) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    spec = {"#spec": "pantavisor-service-system@1"}
    assert sha256_hex(dumps(spec)) == "fd138f7751b12a533d8b0e60c32bfae17be25a4206166973135cd7fa1d8b3760"
    assert pointer(("storage", "a.b", 0, 'q"')) == r'.storage["a.b"][0]["q\""]'


def test_time_grows_with_the_size_only() -> None:
    def seconds(count: int) -> float:
        data = dumps({f"dir{number % 100}/file{number}": "a" * 64 for number in range(count)})
        begin = time.perf_counter()
        for _ in range(3):
            dumps(loads(data, strict=True))
        return time.perf_counter() - begin

    seconds(1000)
    small, large = min(seconds(2000) for _ in range(3)), min(seconds(16000) for _ in range(3))
    assert large < small * 8 * 4, "eight times the entries, with room for a busy machine; the square would be 64 times"
