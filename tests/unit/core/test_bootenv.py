"""The boot decision: bounded attempts, and never the bad revision again after a fallback."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core import bootenv
from brickless.core.bootenv import Choice, choose, clear_try, commit, parse, render, request_try
from brickless.core.errors import HostileInputError


@pytest.mark.parametrize(
    ("data", "env"),
    [
        (b"pv_rev=3\0pv_try=7\0\0" + bytes(100), {"pv_rev": "3", "pv_try": "7"}),
        (b"pv_rev=0\0\0", {"pv_rev": "0"}),
        (b"pv_rev=0  ", {"pv_rev": "0"}),
        (b"", {}),
        (bytes(65536), {}),
        (b"rubbish\0pv_rev=1\0=x\0\xff\xfe=1\0\0pv_rev=2\0", {"pv_rev": "1"}),
    ],
)
def test_parse(data: bytes, env: dict[str, str]) -> None:
    assert parse(data) == env


def test_render_is_what_the_field_reads() -> None:
    assert render({"pv_try": "", "pv_rev": "4"}) == b"pv_rev=4\0pv_try=\0\0"
    assert parse(render({"pv_rev": "locals/a", "pv_try": "8", "other": "x y"})) == {
        "pv_rev": "locals/a",
        "pv_try": "8",
        "other": "x y",
    }
    for bad in ({"a": "x\0y"}, {"a=b": "c"}, {"a": "x" * 65536}):
        with pytest.raises(HostileInputError):
            render(bad)


def test_one_attempt_then_the_committed_revision_for_good() -> None:
    env = request_try({"pv_rev": "3", "pv_try": ""}, "7")
    first = choose(env, "")
    assert first == Choice("7", "7#1", 1)
    memory = first.trying
    for _ in range(5):  # the fallback dies, too, again and again: the bad revision is not tried in turns
        again = choose(env, memory)
        assert again == Choice("3", memory, 0, fell_back=True)
        memory = again.trying
    assert choose(clear_try(env), memory) == Choice("3", "", 0)


def test_a_new_request_for_the_same_revision_is_tried_again_without_a_boot_between() -> None:
    env = request_try({"pv_rev": "3"}, "7")
    memory = choose(choose_env := env, "").trying
    assert choose(choose_env, memory).fell_back
    assert choose(request_try(clear_try(env), "7"), memory).attempt == 1


def test_the_reference_s_variables_work() -> None:
    env = {"pv_rev": "3", "pv_try": "7"}
    assert choose(env, "") == Choice("7", "7", 1)
    assert choose(env, "7") == Choice("3", "7", 0, fell_back=True)
    assert choose(env, "6") == Choice("7", "7", 1)
    assert choose(commit(env, "7"), "7") == Choice("7", "", 0)


def test_attempts_are_counted() -> None:
    env = {"pv_rev": "3", "pv_try": "locals/x"}
    memory, booted = "", []
    for _ in range(6):
        choice = choose(env, memory, max_attempts=3)
        booted.append((choice.rev, choice.attempt))
        memory = choice.trying
    assert booted == [("locals/x", 1), ("locals/x", 2), ("locals/x", 3)] + [("3", 0)] * 3


@pytest.mark.parametrize("env", [{}, {"pv_rev": ""}, {"pv_rev": "../../etc"}, {"pv_rev": "0", "pv_try": "a/b/c"}])
def test_what_names_no_revision_is_the_factory_revision(env: dict[str, str]) -> None:
    assert choose(env, "") == Choice("0", "", 0)


REVISIONS = st.sampled_from(["0", "1", "7", "12", "locals/a"])


@given(rev=REVISIONS, wanted=REVISIONS, memory=st.text(max_size=12), limit=st.integers(1, 4))
def test_every_boot_is_one_of_the_two_and_tries_are_bounded(rev: str, wanted: str, memory: str, limit: int) -> None:
    env = {"pv_rev": rev, "pv_try": wanted}
    tries = 0
    for _ in range(10):
        choice = choose(env, memory, max_attempts=limit)
        assert choice.rev in {rev, wanted}
        tries += choice.attempt > 0
        memory = choice.trying
    assert tries <= limit
    assert choice.rev == rev


def test_the_serial_survives_its_bound() -> None:
    env = {"pv_rev": "1", "pv_try": "", "pv_serial": str(bootenv.MAX_SERIAL)}
    assert request_try(env, "2")["pv_serial"] == "1"
    assert request_try({"pv_serial": "rubbish"}, "2")["pv_serial"] == "1"
    with pytest.raises(HostileInputError):
        request_try(env, "../2")
