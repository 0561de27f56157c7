"""The progress document, and what errors say."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core.errors import BricklessError, HostileInputError, StateError, UserError
from brickless.core.progress import FINAL, PERCENT, Downloads, Message, Progress, Status, parse_progress


def test_the_document_is_that_of_the_field() -> None:
    progress = Progress.of(Status.TESTING, Message.TESTING_REBOOT, retries=2)
    assert progress.to_json() == (
        b'{"status":"TESTING","status-msg":"Awaiting to set rollback point if update is stable",'
        b'"progress":75,"retries":2}'
    )
    assert not progress.is_final
    assert Progress.of(Status.WONTGO, Message.NO_SPACE % (5, 3)).is_final


@given(
    st.sampled_from(Status),
    st.text(max_size=40),
    st.integers(0, 100),
    st.integers(0, 20),
    st.none() | st.builds(Downloads, *[st.integers(0, 2**40)] * 4),
)
def test_round_trip(status: Status, message: str, percent: int, retries: int, downloads: Downloads | None) -> None:
    made = Progress(status, message, percent, retries, downloads, "")
    assert parse_progress(made.to_json()) == made


def test_logs_keep_their_last_whole_lines() -> None:
    logs = "".join(json.dumps({"n": number}) + "\n" for number in range(2000))
    kept = parse_progress(Progress.of(Status.ERROR, "x", logs=logs).to_json()).logs
    assert len(kept.encode()) <= 4096
    assert kept.endswith('{"n": 1999}\n')
    assert all(json.loads(line) for line in kept.splitlines())


def test_unknown_members_are_passed_over() -> None:
    data = b'{"status":"NEW","progress":0,"data":"x","downloads":{"total":{"total_size":5}},"log":"y"}'
    assert parse_progress(data) == Progress(Status.NEW, "", 0, 0, Downloads(5, 0, 0, 0), "")
    assert parse_progress(b'{"status":"DONE"}').percent == 100


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"status":"FINE"}',
        b'{"status":1}',
        b'{"status":"NEW","progress":-1}',
        b'{"status":"NEW","progress":true}',
        b'{"status":"NEW","retries":"many"}',
        b'{"status":"NEW","logs":[]}',
        b" " * 70_000,
    ],
)
def test_malformed_documents(data: bytes) -> None:
    with pytest.raises(HostileInputError):
        parse_progress(data)


def test_every_status_has_its_percentage() -> None:
    assert set(PERCENT) == set(Status)
    assert all(PERCENT[status] == 100 for status in FINAL)


def test_errors_are_sentences() -> None:
    assert str(BricklessError("it broke", context="web", hint="Mend it")) == "it broke (web). Mend it."
    assert str(BricklessError("it broke.")) == "it broke."
    assert str(UserError("no-such", "what?")) == "what?"
    error = StateError("a.json: .x", "is wrong", rule="not-a-string", hint="Write a string")
    assert str(error) == "a.json: .x: is wrong. Write a string."
    assert (error.path, error.reason, error.rule) == ("a.json: .x", "is wrong", "not-a-string")
    assert str(StateError("", "is no object")) == "the state: is no object."
    assert isinstance(error, HostileInputError)
