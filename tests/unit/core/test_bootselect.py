"""The decision of the boot scripts: attempts are bounded, whatever happens between two boots, and nothing goes
round."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core import bootenv
from brickless.core.bootselect import FRESH, select


def boots(env: dict[str, str], memory: dict[str, str] | None, count: int, *, bound: int = 3) -> list[str]:
    """What `count` boots in a row boot, none of which says a word."""
    found = []
    for _ in range(count):
        selection = select(env, memory, max_attempts=bound)
        memory = dict(selection.memory)
        found.append(selection.candidates[0])
    return found


def test_a_board_that_never_booted_runs_the_factory_revision() -> None:
    selection = select({}, FRESH, max_attempts=3)
    assert (selection.candidates, selection.attempt, selection.fell_back) == (("0",), 0, False)


@pytest.mark.parametrize("bound", [1, 2, 3, 9])
def test_a_try_has_its_attempts_and_then_never_again(bound: int) -> None:
    env = bootenv.request_try({"pv_rev": "3"}, "4")
    assert boots(env, dict(FRESH), bound + 5, bound=bound) == ["4"] * bound + ["3"] * 5


def test_what_was_seen_to_fail_is_not_tried_again() -> None:
    env = bootenv.request_try({"pv_rev": "3"}, "4")
    first = select(env, FRESH, max_attempts=3)
    assert first.attempt == 1
    second = select(bootenv.give_up(env), first.memory, max_attempts=3)
    assert (second.candidates[0], second.fell_back) == ("3", True)


def test_asking_again_gives_all_attempts_again() -> None:
    env = bootenv.give_up(bootenv.request_try({"pv_rev": "3"}, "4"))
    memory = {**FRESH, "pv_trying": "4", "pv_tryserial": "1", "pv_attempts": "3"}
    assert select(env, memory, max_attempts=3).fell_back
    again = bootenv.request_try(bootenv.clear_try(env), "4")
    assert select(again, memory, max_attempts=3).attempt == 1


def test_a_damaged_memory_tries_nothing() -> None:
    env = bootenv.request_try({"pv_rev": "3"}, "4")
    selection = select(env, None, max_attempts=3)
    assert (selection.candidates[0], selection.fell_back) == ("3", True)
    assert boots(env, dict(selection.memory), 4) == ["3"] * 4


def test_who_cannot_be_loaded_is_followed_by_older_good_ones() -> None:
    env = bootenv.request_try(bootenv.commit(bootenv.commit({}, "2"), "3"), "4")
    assert select(env, FRESH, max_attempts=3).candidates == ("4", "3", "2", "0")


def test_a_committed_revision_that_never_comes_up_gives_way_to_older_ones_in_turns() -> None:
    env = bootenv.confirm(bootenv.commit(bootenv.commit({}, "2"), "3"), "9")
    order = ["3"] * 2 + ["2"] * 2 + ["0"] * 2 + ["3"] * 2
    assert boots(env, dict(FRESH), 8, bound=2) == order


def test_a_boot_that_went_well_starts_the_count_anew() -> None:
    env = bootenv.confirm(bootenv.commit({}, "3"), "9")
    memory = dict(FRESH)
    for _ in range(40):
        selection = select(env, memory, max_attempts=2)
        assert selection.candidates[0] == "3"
        memory = dict(selection.memory)
        env = bootenv.confirm(env, memory["pv_mark"])


def test_a_runtime_that_confirms_nothing_is_not_counted() -> None:
    assert boots({"pv_rev": "3"}, dict(FRESH), 20) == ["3"] * 20


REVISIONS = st.sampled_from(["0", "1", "2", "locals/x", "../x", ""])
VALUES = st.one_of(REVISIONS, st.text(alphabet="0123456789abcdefx#:", max_size=5))
RECORDS = st.dictionaries(
    st.sampled_from(["pv_rev", "pv_try", "pv_serial", "pv_failed", "pv_prev", "pv_alive"]), VALUES
)
MEMORIES = st.one_of(
    st.none(),
    st.dictionaries(st.sampled_from(["pv_trying", "pv_tryserial", "pv_attempts", "pv_mark", "pv_boots"]), VALUES),
)


@given(RECORDS, MEMORIES, st.integers(1, 9))
def test_whatever_is_stored_there_is_something_to_boot_and_tries_end(
    env: dict[str, str], memory: dict[str, str] | None, bound: int
) -> None:
    tries = 0
    for _ in range(bound + 3):
        selection = select(env, memory, max_attempts=bound)
        assert selection.candidates[-1] == "0" or "0" in selection.candidates
        assert len(selection.candidates) == len(set(selection.candidates))
        tries += selection.attempt > 0
        memory = dict(selection.memory)
    assert tries <= bound
