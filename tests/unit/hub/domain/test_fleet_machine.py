"""The states of a device in a rollout: every cell of the table, and that nothing in it is a trap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.hub.domain.fleet import NEVER_MS, OPEN, Member, MemberState
from brickless.hub.domain.fleet_machine import TABLE, Event, after, heard
from brickless.hub.services.fleet_moves import moved

S, E = MemberState, Event


def test_every_state_has_its_row() -> None:
    assert set(TABLE) == set(MemberState)


@pytest.mark.parametrize("state", sorted(OPEN))
def test_every_open_state_ends_by_itself(state: MemberState) -> None:
    ends = {S.WAITING: E.EXPIRE, S.DEFERRED: E.RESUME}.get(state, E.LAPSE)
    assert after(state, ends) is not state


@pytest.mark.parametrize("state", sorted(OPEN))
def test_every_open_state_leads_to_an_end(state: MemberState) -> None:
    reached, todo = {state}, [state]
    while todo:
        for following in TABLE[todo.pop()].values():
            if following not in reached:
                reached.add(following)
                todo.append(following)
    assert reached - OPEN


@pytest.mark.parametrize("state", list(MemberState))
def test_nothing_is_given_to_who_is_final_or_under_way(state: MemberState) -> None:
    given_out = after(state, E.OFFER) is S.OFFERED
    assert given_out is (state in {S.WAITING, S.DEFERRED, S.OFFERED})


@pytest.mark.parametrize("event", [E.HALT, E.EXPIRE, E.LEAVE])
def test_what_a_device_works_on_is_not_called_back(event: Event) -> None:
    assert after(S.UPDATING, event) is S.UPDATING


@given(st.lists(st.sampled_from(list(Event)), max_size=30), st.integers(-1, 5))
def test_any_history_ends_in_one_state_with_a_deadline_and_at_most_one_verdict(
    events: list[Event], number: int
) -> None:
    member = Member("r", "d", S.WAITING, "its turn has not come", 0, 0, 100, 100, 0, number=number)
    verdicts = []
    for event in events:
        before = member.verdict
        member = moved(member, event, "because", now_ms=1, deadline_ms=200)
        assert (member.state in OPEN) == (member.deadline_ms < NEVER_MS)
        if member.verdict is not before:
            verdicts.append(member.verdict)
    assert len(verdicts) <= (number >= 0)
    assert member.reason


@pytest.mark.parametrize(
    ("status", "message", "event"),
    [
        ("NEW", "", None),
        ("QUEUED", "Retried 1 of 10", E.BEGUN),
        ("DOWNLOADING", "", E.BEGUN),
        ("TESTING", "", E.BEGUN),
        ("DONE", "", E.DONE),
        ("UPDATED", "", E.DONE),
        ("ERROR", "", E.FAILED),
        ("WONTGO", "Space required 5 B, available 4 B", E.FAILED),
        ("WONTGO", "Stale revision", E.SUPERSEDE),
        ("CANCEL", "", E.SUPERSEDE),
        ("SOMETHING-NEW", "", E.BEGUN),
    ],
)
def test_what_a_step_says(status: str, message: str, event: Event | None) -> None:
    assert heard(status, message) is event
