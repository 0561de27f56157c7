"""DER has one spelling for everything: what is spelled otherwise is refused."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core import der
from brickless.core.errors import HostileInputError


@pytest.mark.parametrize(
    "text",
    [
        "",
        "02",
        "0201",
        "02020001",  # a needless zero
        "0202ff80",
        "0200",
        "02810101",  # a long length for a short thing
        "0282000101",
        "0280010000",
        "02840000000101",
        "1f020101",
        "020101ff",  # something behind
        "3003020101",  # another tag
    ],
)
def test_a_number_that_is_spelled_otherwise(text: str) -> None:
    with pytest.raises(HostileInputError):
        der.integer(der.element(bytes.fromhex(text), der.INTEGER))


@given(st.integers(-(2**70), 2**70))
def test_numbers(number: int) -> None:
    length = (number.bit_length() if number >= 0 else (~number).bit_length()) // 8 + 1
    data = bytes([der.INTEGER, length]) + number.to_bytes(length, signed=True)
    assert der.integer(der.element(data, der.INTEGER)) == number


@given(st.integers(-631_152_000, 2_524_607_999), st.booleans())
def test_times_are_those_of_the_calendar(number: int, general: bool) -> None:
    moment = datetime.fromtimestamp(number, UTC)
    text = moment.strftime("%Y%m%d%H%M%SZ" if general else "%y%m%d%H%M%SZ").encode()
    node = der.Node(der.GENERALIZED_TIME if general else der.UTC_TIME, text, b"")
    assert der.seconds(node) == number


@pytest.mark.parametrize(
    "text", ["230229000000Z", "231301000000Z", "230100000000Z", "230101240000Z", "2301010000Z", "230101000000+0100"]
)
def test_a_moment_that_there_is_not(text: str) -> None:
    with pytest.raises(HostileInputError):
        der.seconds(der.Node(der.UTC_TIME, text.encode(), b""))


@pytest.mark.parametrize("text", ["", "08", "0801", "01ff", "0300", "ff00", "00" + "00" * 5])
def test_flags_that_are_malformed(text: str) -> None:
    if text == "0300":
        assert der.flags(der.Node(der.BIT_STRING, bytes.fromhex(text), b"")) == frozenset()
        return
    with pytest.raises(HostileInputError):
        der.flags(der.Node(der.BIT_STRING, bytes.fromhex(text), b""))


def test_an_element_with_too_many_elements() -> None:
    body = b"\x05\x00" * (der.MAX_CHILDREN + 1)
    with pytest.raises(HostileInputError, match="more than"):
        der.children(der.Node(der.SEQUENCE, body, b""))


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        node = der.element(data, der.SEQUENCE)
        assert b"".join(child.raw for child in der.children(node)) == node.body
    except HostileInputError:
        return
