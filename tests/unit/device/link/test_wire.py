"""Answers of the hub as values: the good ones whole and unmodified, the bad ones refused with a reason."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core.errors import HostileInputError
from brickless.device.link import wire

ID = "0123456789abcdef01234567"
SHA = "ab" * 32


def _device(**changes: object) -> bytes:
    value = {"id": ID, "prn": f"prn:::devices:/{ID}", "owner": "", "secret": "s3cret", "challenge": "a-b-c"} | changes
    return json.dumps({key: item for key, item in value.items() if item != "(none)"}).encode()


def test_a_registration() -> None:
    assert wire.registration(_device()) == (ID, f"prn:::devices:/{ID}", "s3cret", "", "a-b-c")
    assert wire.registration(_device(secret="(none)", challenge="(none)", owner="me")).owner == "me"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        _device(id="../../etc"),
        _device(id=ID.upper()),
        _device(id=5),
        _device(prn="prn:::devices:/000000000000000000000000"),
        _device(secret="a\nPV_DEBUG_SHELL=1"),
        _device(secret="x" * 300),
        _device(owner=["x"]),
        _device(challenge="ä"),
    ],
)
def test_bad_registrations(body: bytes) -> None:
    with pytest.raises(HostileInputError):
        wire.registration(body)


@pytest.mark.parametrize("value", ["", " ", "a b", "a\r\nX: y", "é", 7, None, "x" * 5000])
def test_bad_tokens(value: object) -> None:
    with pytest.raises(HostileInputError):
        wire.token(json.dumps({"token": value}).encode())


@pytest.mark.parametrize("size", [17, "17"])
def test_an_object(size: object) -> None:
    body = json.dumps({"sha256sum": SHA, "size": size, "signed-geturl": "https://h/x"}).encode()
    assert wire.object_info(body, SHA) == (SHA, 17, "https://h/x")


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256sum": "cd" * 32},
        {"size": -1},
        {"size": "-1"},
        {"size": True},
        {"size": 1.5},
        {"size": "9" * 30},
        {"size": 2**50},
        {"size": None},
        {"signed-geturl": ""},
        {"signed-geturl": 4},
    ],
)
def test_bad_objects(changes: dict[str, object]) -> None:
    body = json.dumps({"sha256sum": SHA, "size": 17, "signed-geturl": "https://h/x"} | changes).encode()
    with pytest.raises(HostileInputError):
        wire.object_info(body, SHA)


def test_user_meta_keeps_text_and_json_and_leaves_out_what_is_no_name() -> None:
    body = json.dumps(
        {"a": "x", "b": {"c": 1}, "n": None, "web.k": "v", "web/k": "v", "../x": "v", "a/b/c": "v", ".h": "v", "": "v"}
    ).encode()
    assert wire.user_meta(body) == {"a": "x", "b": '{"c":1}', "web.k": "v", "web/k": "v"}


@pytest.mark.parametrize("value", [[], {str(i): "" for i in range(501)}, {"k": "x" * 70_000}])
def test_too_much_user_meta(value: object) -> None:
    with pytest.raises(HostileInputError):
        wire.user_meta(json.dumps(value).encode())


def test_the_state_of_a_step_keeps_its_bytes() -> None:
    state = '{ "#spec" : "pantavisor-service-system@1",\t"a.json":{"x":1.50,"u":"\\u00e4"} , "z":"ä" }'
    body = f'[ {{"commit-msg":"hi","progress":{{"retries":3,"status":"NEW"}},"rev":7 , "state": {state} }} ]'.encode()
    assert wire.steps(body) == [("7", state.encode(), "hi", 3)]


def test_words_of_the_format_inside_a_message_mean_nothing() -> None:
    body = b'[{"commit-msg":"rev","meta":{"rev":99,"state":{}},"rev":7,"state":{"state":"rev"}}]'
    assert wire.steps(body) == [("7", b'{"state":"rev"}', "rev", 0)]


def test_steps_are_sorted_and_listed_once() -> None:
    body = b'[{"rev":9,"state":{}},{"rev":7,"state":{"a":1}},{"rev":7,"state":{"b":1}}]'
    assert [(s.rev, s.state) for s in wire.steps(body)] == [("7", b'{"a":1}'), ("9", b"{}")]


@pytest.mark.parametrize("body", [b"[]", b" [ ] \n"])
def test_no_steps(body: bytes) -> None:
    assert wire.steps(body) == []


@pytest.mark.parametrize("state", ['{"a":', "{'a':1}", "{]", "nul", '{"a":"\n"}'])
def test_a_step_whose_state_is_no_json_is_known_by_its_number(state: str) -> None:
    (step,) = wire.steps(f'[{{"commit-msg":"x","rev":7,"state":{state}}},{{"rev":8,"state":{{}}}}]'.encode())
    assert step.rev == "7"
    assert step.state.startswith(state.encode()[:2])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"{}",
        b"[1]",
        b"[{}]",
        b'[{"rev":-1,"state":{}}]',
        b'[{"rev":true,"state":{}}]',
        b'[{"rev":"7","state":{}}]',
        b'[{"rev":99999999999,"state":{}}]',
        b'[{"rev":1,"state":{}}',
        b'[{"rev":1,"state":{}},]',
        b'[{"rev":1,"state":{}}]x',
        b'[{"rev":1 "state":{}}]',
        b'[{"state":{,"rev":1}]',
        b"[{rev:1}]",
        b"\xff[]",
        b"[" + b",".join(b'{"rev":%d}' % i for i in range(1001)) + b"]",
        b'[{"x":' + b"[" * 100_000 + b"]",
    ],
)
def test_bad_lists_of_steps(body: bytes) -> None:
    with pytest.raises(HostileInputError):
        wire.steps(body)


@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:revstate01 ', max_size=60).map(str.encode))
def test_any_list_is_steps_or_an_error(body: bytes) -> None:
    try:
        found = wire.steps(body)
    except HostileInputError:
        return
    assert all(step.rev.isdigit() for step in found)
