"""What may become of one device of a rollout: a table of states and events, and nothing else. Pure.

Every state has a deadline (`fleet.Member.deadline_ms`) and an event that ends it then, so that nothing gets stuck:
WAITING expires with the rollout, OFFERED and UPDATING become SILENT, DEFERRED is taken up again, GOING_BACK is STUCK.
An event that has no row changes nothing: late, duplicate and foreign reports are harmless.
"""

from __future__ import annotations

from enum import StrEnum

from brickless.hub.domain import progress as words
from brickless.hub.domain.fleet import MemberState
from brickless.hub.domain.rollout_rule import Verdict


class Event(StrEnum):
    """What happens to a device of a rollout."""

    #: Its step was posted (or, after a deferral, is in hand again).
    OFFER = "offer"
    #: It has the release already.
    HAS_IT = "has-it"
    #: It reported that it works on the step.
    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"
    #: It, or an app on it, asked for time.
    NOT_NOW = "not-now"
    #: It asked for time too often.
    DECLINE = "decline"
    #: The time that it asked for is over and it was not given a step yet.
    RESUME = "resume"
    #: Its deadline passed after it was given the release.
    LAPSE = "lapse"
    #: The rollout ended before its turn came.
    EXPIRE = "expire"
    #: Its window closed before it took the step, which was cancelled.
    RECALL = "recall"
    #: Somebody else's revision, or a rollout that outranks this one, took its place.
    SUPERSEDE = "supersede"
    #: Its own state with the release merged in is none that it would run.
    UNFIT = "unfit"
    #: It does not match the selector any more, or is gone.
    LEAVE = "leave"
    JOIN = "join"
    #: The rollout gives nothing out any more, and the step was not taken yet.
    HALT = "halt"
    #: The step that brings its former parts back was posted.
    GO_BACK = "go-back"
    #: It has none of the release's parts, so there is nothing to bring back.
    WENT_BACK = "went-back"
    #: The way back failed, and is tried again.
    TRY_AGAIN = "try-again"
    #: Its own state with its former parts is none that it would run.
    NO_WAY_BACK = "no-way-back"


S, E = MemberState, Event
_NOT_GIVEN: dict[Event, MemberState] = {
    E.OFFER: S.OFFERED,
    E.HAS_IT: S.UPDATED,
    E.NOT_NOW: S.DEFERRED,
    E.DECLINE: S.DECLINED,
    E.LAPSE: S.SILENT,
    E.EXPIRE: S.EXPIRED,
    E.SUPERSEDE: S.SUPERSEDED,
    E.UNFIT: S.UNFIT,
    E.LEAVE: S.WITHDRAWN,
    E.HALT: S.WITHDRAWN,
    # A step that was recalled may have been taken all the same.
    E.BEGUN: S.UPDATING,
    E.DONE: S.UPDATED,
    E.FAILED: S.FAILED,
}
_ENDS: dict[Event, MemberState] = {
    E.DONE: S.UPDATED,
    E.FAILED: S.FAILED,
    E.GO_BACK: S.GOING_BACK,
    E.WENT_BACK: S.GONE_BACK,
    E.NO_WAY_BACK: S.STUCK,
}

#: (state, event) -> next state. tests/unit/hub/domain/test_fleet_machine.py walks all of it.
TABLE: dict[MemberState, dict[Event, MemberState]] = {
    S.WAITING: _NOT_GIVEN,
    S.DEFERRED: {**_NOT_GIVEN, E.RESUME: S.WAITING, E.RECALL: S.WAITING},
    S.OFFERED: {
        E.DONE: S.UPDATED,
        E.FAILED: S.FAILED,
        E.BEGUN: S.UPDATING,
        E.NOT_NOW: S.DEFERRED,
        E.DECLINE: S.DECLINED,
        E.LAPSE: S.SILENT,
        E.RECALL: S.WAITING,
        E.SUPERSEDE: S.SUPERSEDED,
        E.LEAVE: S.WITHDRAWN,
        E.HALT: S.WITHDRAWN,
    },
    S.UPDATING: {
        E.DONE: S.UPDATED,
        E.FAILED: S.FAILED,
        E.NOT_NOW: S.DEFERRED,
        E.DECLINE: S.DECLINED,
        E.LAPSE: S.SILENT,
        E.SUPERSEDE: S.SUPERSEDED,
    },
    S.GOING_BACK: {
        E.DONE: S.GONE_BACK,
        E.FAILED: S.STUCK,
        E.TRY_AGAIN: S.UPDATED,
        E.LAPSE: S.STUCK,
        E.SUPERSEDE: S.SUPERSEDED,
    },
    # What follows is final by itself; only news from the device, or a person, moves it on.
    S.UPDATED: {E.GO_BACK: S.GOING_BACK, E.WENT_BACK: S.GONE_BACK, E.NO_WAY_BACK: S.STUCK, E.SUPERSEDE: S.SUPERSEDED},
    S.FAILED: {E.DONE: S.UPDATED, E.SUPERSEDE: S.SUPERSEDED},
    S.SILENT: {**_ENDS, E.SUPERSEDE: S.SUPERSEDED},
    S.WITHDRAWN: {**_ENDS, E.BEGUN: S.UPDATING, E.JOIN: S.WAITING, E.SUPERSEDE: S.SUPERSEDED},
    S.DECLINED: {**_ENDS, E.BEGUN: S.UPDATING, E.SUPERSEDE: S.SUPERSEDED},
    S.SUPERSEDED: {},
    S.UNFIT: {E.JOIN: S.WAITING},
    S.EXPIRED: {},
    S.GONE_BACK: {},
    S.STUCK: {E.DONE: S.GONE_BACK, E.SUPERSEDE: S.SUPERSEDED},
}


def after(state: MemberState, event: Event) -> MemberState:
    """The state after the event; the same one when the event means nothing there."""
    return TABLE[state].get(event, state)


def verdict_of(state: MemberState) -> Verdict | None:
    """What a state says about the release; None for states that say nothing about it."""
    return _VERDICTS.get(state)


_VERDICTS = {S.UPDATED: Verdict.UPDATED, S.FAILED: Verdict.FAILED, S.SILENT: Verdict.SILENT}
_SUPERSEDED_TEXTS = ("Stale revision",)
_WITHDRAWN = frozenset({"CANCEL", "CANCELED", "CANCELLED"})


def heard(status: str, message: str) -> Event | None:
    """The event behind a step's status; None for a step that no device has touched."""
    if status in words.REACHED:
        return E.DONE
    if status in _WITHDRAWN or (status == words.WONTGO and message in _SUPERSEDED_TEXTS):
        return E.SUPERSEDE
    if status in words.FINAL:
        return E.FAILED
    return None if status == words.NEW else E.BEGUN
