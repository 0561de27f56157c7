"""From what steps say to what becomes of the members behind them. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal

from brickless.hub.domain import progress as words
from brickless.hub.domain.fleet import Member, MemberState, Rollout
from brickless.hub.domain.fleet_machine import Event, heard
from brickless.hub.domain.jsontext import Value, load_stored
from brickless.hub.services.fleet_moves import deferred, moved
from brickless.hub.services.fleet_ports import News

#: A device asks for time with this member of its progress: `{"for-s": 3600, "reason": "a patient is connected"}`.
NOT_NOW = "not-now"
_MAX_LOG_CHARS = 200
#: How often a way back that failed is tried again, and after how long.
BACK_TRIES = 3
BACK_RETRY_MS = 600_000


def absorbed(rollouts: Mapping[str, Rollout], news: Iterable[News], now_ms: int) -> tuple[list[Member], list[Member]]:
    """The members after the news, and those of them whose steps must be withdrawn because somebody posted since."""
    members: list[Member] = []
    replaced: list[Member] = []
    for one in news:
        after = _after(rollouts[one.member.rollout_id], one, now_ms)
        members.append(after)
        if after.state is MemberState.SUPERSEDED and one.status == words.NEW:
            replaced.append(after)
    return members, replaced


def _after(rollout: Rollout, news: News, now_ms: int) -> Member:
    member = replace(news.member, seen_ms=news.progress_ms, seen_status=news.status)
    progress = load_stored(news.progress) if _worth_reading(news) else {}
    message = str(progress.get("status-msg", ""))
    event = heard(news.status, message)
    if event in {Event.BEGUN, None} and news.newest_rev > member.rev and member.busy:
        return moved(member, Event.SUPERSEDE, f"revision {news.newest_rev} was posted to it", now_ms=now_ms)
    if event is Event.BEGUN and (wanted_ms := _asked_ms(progress.get(NOT_NOW))):
        return deferred(member, rollout.spec, _asked_why(progress.get(NOT_NOW)), wanted_ms=wanted_ms, now_ms=now_ms)
    if event is None:
        return member
    if event is Event.FAILED and member.state is MemberState.GOING_BACK and member.deferrals < BACK_TRIES:
        # Most of what fails a way back, such as a hub out of reach, passes: it is tried a few times more.
        again = moved(member, Event.TRY_AGAIN, _reason(news, message, progress), now_ms=now_ms)
        return replace(again, deferrals=member.deferrals + 1, not_before_ms=now_ms + BACK_RETRY_MS)
    if event is Event.BEGUN and member.state is MemberState.UPDATING:
        return replace(member, reason=_reason(news, message))
    deadline_ms = member.deadline_ms if member.state in _HAS_DEADLINE else now_ms + rollout.spec.deadline_s * 1000
    return moved(member, event, _reason(news, message, progress), now_ms=now_ms, deadline_ms=deadline_ms)


_HAS_DEADLINE = frozenset({MemberState.OFFERED, MemberState.UPDATING, MemberState.GOING_BACK})


def _worth_reading(news: News) -> bool:
    return news.status not in words.REACHED and news.status != words.NEW


def _reason(news: News, message: str, progress: Mapping[str, Value] | None = None) -> str:
    text = f"{news.status}: {message}" if message else news.status
    logs = str((progress or {}).get("logs") or "") if news.status in {"ERROR", "WONTGO"} else ""
    return f"{text} ({logs.strip()[-_MAX_LOG_CHARS:]})" if logs.strip() else text


def _asked_ms(value: Value) -> int:
    """How long a device asks to be left alone, in milliseconds; 0 when it does not ask."""
    if not isinstance(value, dict):
        return 0
    seconds = value.get("for-s")
    if isinstance(seconds, bool) or not isinstance(seconds, int | Decimal) or not 0 < seconds < 10**9:
        return 0
    return int(seconds) * 1000


def _asked_why(value: Value) -> str:
    reason = value.get("reason") if isinstance(value, dict) else None
    return reason[:_MAX_LOG_CHARS] if isinstance(reason, str) else "it gave no reason"
