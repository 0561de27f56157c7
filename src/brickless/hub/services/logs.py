"""Use cases of device logs: ingestion, queries, cursors (contract section 5)."""

from __future__ import annotations

from dataclasses import asdict, replace
from decimal import Decimal
from typing import Any, NamedTuple

from brickless.hub.domain import access, prn
from brickless.hub.domain.errors import Forbidden, Malformed, NotFound, TooLarge
from brickless.hub.domain.jsontext import Value
from brickless.hub.domain.values import Identity, LogEntry
from brickless.hub.services.parts import Parts
from brickless.hub.services.ports import LogQuery, Session

_CURSOR = "log cursor"
MAX_PAGE = 500
_MAX_MSG_CHARS = 16 * 1024


class LogPage(NamedTuple):
    """An answer: `total` lines match in all; `cursor` continues after the last of `entries`."""

    start: int
    page: int
    total: int
    entries: list[LogEntry]
    cursor: str


def _integer(entry: dict[str, Value], name: str) -> int:
    value = entry.get(name, 0)
    if isinstance(value, Decimal) and value == value.to_integral_value():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
        raise Malformed(f"A log entry's {name!r} must be an integer")
    return value


def _text(entry: dict[str, Value], name: str, max_chars: int = 256) -> str:
    value = entry.get(name)
    if value is None:
        return ""
    if isinstance(value, int | Decimal):
        return str(value)
    if not isinstance(value, str):
        raise Malformed(f"A log entry's {name!r} must be a string")
    return value[:max_chars]


class Logs:
    """Lines of devices."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def add(self, caller: Identity, body: Value) -> None:
        """Store one entry or an array of them."""
        if not caller.is_device or not caller.owner:
            raise Forbidden("Only a claimed device sends logs")
        entries = body if isinstance(body, list) else [body]
        if len(entries) > self._parts.policy.max_log_entries:
            raise TooLarge(f"At most {self._parts.policy.max_log_entries} log entries fit into one request")
        lines = [self._line(caller, entry) for entry in entries]
        if not lines:
            return
        async with self._parts.db.write() as session:
            # Inside the transaction: lines appear in the order of their times, so a reader that tails misses none.
            now_ms = self._parts.clock.now_ms()
            await session.logs.add([replace(line, created_ms=now_ms) for line in lines])
        self._parts.events.logged(caller.prn)

    @staticmethod
    def _line(caller: Identity, entry: Value) -> LogEntry:
        if not isinstance(entry, dict):
            raise Malformed("A log entry must be a JSON object")
        return LogEntry(
            id=0,
            device=caller.prn,
            owner=caller.owner,
            created_ms=0,
            tsec=_integer(entry, "tsec"),
            tnano=_integer(entry, "tnano"),
            rev=_text(entry, "rev"),
            plat=_text(entry, "plat"),
            src=_text(entry, "src"),
            lvl=_text(entry, "lvl", 32) or "INFO",
            msg=_text(entry, "msg", _MAX_MSG_CHARS),
        )

    async def find(self, caller: Identity, query: LogQuery, devices: tuple[str, ...], *, cursor: bool) -> LogPage:
        """One page of the caller's lines. `devices` are ids, PRNs or nicks; an unknown nick is Malformed."""
        if not caller.is_person:
            raise Forbidden("Only people read logs")
        async with self._parts.db.read() as session:
            names = tuple([await self._device_prn(session, caller, name) for name in devices])
            query = replace(query, owner=caller.prn, devices=names)
            return await self._page(session, caller, query, cursor=cursor)

    @staticmethod
    async def _device_prn(session: Session, caller: Identity, name: str) -> str:
        if prn.is_id(name):
            return prn.device(name)
        if name.startswith("prn:"):
            return name
        device = await session.devices.by_nick(caller.prn, name)
        if device is None:
            raise Malformed(f"There is no device of the nick {name[:64]!r}")
        return device.prn

    async def end(self) -> int:
        """The id of the newest line of any device, 0 without any: whoever begins to follow begins behind it."""
        async with self._parts.db.read() as session:
            return await session.logs.end()

    async def device(self, caller: Identity, name: str) -> str:
        """PRN of one of the caller's devices, by id, PRN or nick. Raises NotFound for any other."""
        if not caller.is_person:
            raise Forbidden("Only people read logs")
        async with self._parts.db.read() as session:
            wanted = await self._device_prn(session, caller, name)
            found = await session.devices.get(prn.device_id(wanted) or "")
        if found is None or found.owner != caller.account:
            raise NotFound("There is no such device in this account")
        return wanted

    async def after(self, caller: Identity, device: str, line_id: int) -> list[LogEntry] | None:
        """Lines of a device (a PRN) behind one of them, oldest first, a page at most.

        None when the caller does not belong to the organisation any more, or may not see them.
        """
        async with self._parts.db.read() as session:
            if caller.actor:
                role = await session.organisations.role(caller.account, caller.actor)
                if role is None or not access.granted(role, access.ROUTES["GET /logs/live"]):
                    return None
            return await session.logs.find(
                LogQuery(
                    owner=caller.account, devices=(device,), after_id=line_id, sort=(("id", False),), page=MAX_PAGE
                )
            )

    async def _page(self, session: Session, caller: Identity, query: LogQuery, *, cursor: bool) -> LogPage:
        entries = await session.logs.find(query)
        count = await session.logs.count(query)
        token = ""
        if cursor:
            following = replace(query, start=query.start + len(entries))
            claims: dict[str, object] = {"aud": caller.prn, "query": asdict(following)}
            token = self._parts.signer.sealed(
                _CURSOR, claims, now_s=self._parts.now_s(), life_s=self._parts.policy.cursor_life_s
            )
        return LogPage(query.start, query.page, count, entries, token)

    async def resume(self, caller: Identity, token: str) -> LogPage:
        """The page after a cursor's. Raises Forbidden for a cursor that is wrong, expired or somebody else's."""
        if not caller.is_person:
            raise Forbidden("Only people read logs")
        claims = self._parts.signer.open_sealed(_CURSOR, token)
        fields = claims.get("query")
        if claims.get("aud") != caller.prn or not isinstance(fields, dict):
            raise Forbidden("This cursor belongs to somebody else")
        query = LogQuery(**{name: _tuples(value) for name, value in fields.items()})
        async with self._parts.db.read() as session:
            return await self._page(session, caller, query, cursor=True)


def _tuples(item: Any) -> Any:
    """JSON has only lists: what the cursor sealed as tuples becomes tuples again."""
    return tuple(map(_tuples, item)) if isinstance(item, list) else item
