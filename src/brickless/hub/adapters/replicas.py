"""Several hubs over one PostgreSQL: each hears what the others wrote, and forgets the answers that it remembered.

The database's triggers (migration 0002) notify at commit. While this replica does not listen, it remembers nothing: a
broken connection costs statements, never a stale answer that stays. A connection that is silently dead is found by a
question every few seconds, so an answer from memory is at most `_PROBE_S + _PROBE_TIMEOUT_S` seconds old.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import asyncpg
from sqlalchemy.engine import URL

from brickless.hub.services.polls import PollCache
from brickless.hub.services.ports import Events

log = logging.getLogger("brickless.hub")
CHANNEL = "hub_changed"
EVENTS_CHANNEL = "hub_events"
LOGS_CHANNEL = "hub_logs"
_PROBE_S = 5.0
_PROBE_TIMEOUT_S = 5.0
_RETRY_S = 1.0


class Replicas:
    """The connection that listens."""

    def __init__(self, url: URL, polls: PollCache, events: Events) -> None:
        query = dict(url.query)
        host = query.get("host", url.host)
        self._where: dict[str, Any] = {
            "host": host,
            "port": url.port,
            "user": url.username,
            "password": str(url.password) if url.password is not None else None,
            "database": url.database,
        }
        self._polls = polls
        self._events = events
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to listen. Raises OSError or asyncpg's errors when the database cannot be reached now."""
        self._polls.pause()
        connection = await self._connected()
        self._task = asyncio.create_task(self._keep(connection))

    async def stop(self) -> None:
        """End the connection."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _connected(self) -> asyncpg.Connection:
        connection = await asyncpg.connect(**self._where, timeout=_PROBE_TIMEOUT_S)
        await connection.add_listener(CHANNEL, self._heard)
        await connection.add_listener(EVENTS_CHANNEL, self._heard_events)
        await connection.add_listener(LOGS_CHANNEL, self._heard_logs)
        self._polls.resume()
        return connection

    async def _keep(self, connection: asyncpg.Connection) -> None:
        while True:
            try:
                await self._watch(connection)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                log.exception(
                    "the connection that hears of other replicas broke; idle polls ask the database until it is back"
                )
            finally:
                self._polls.pause()
                connection.terminate()
            connection = await self._reconnected()

    @staticmethod
    async def _watch(connection: asyncpg.Connection) -> None:
        while True:
            await asyncio.sleep(_PROBE_S)
            await connection.fetchval("SELECT 1", timeout=_PROBE_TIMEOUT_S)

    async def _reconnected(self) -> asyncpg.Connection:
        while True:
            try:
                return await self._connected()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("the database cannot be reached: %s", error)
                await asyncio.sleep(_RETRY_S)

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        kind, _, rest = str(payload).partition(" ")
        if kind == "device":
            device_id, _, owner = rest.partition(" ")
            self._polls.forget(device_id)
            self._events.device_changed(owner, device_id)
        else:
            self._polls.forget_everything()

    def _heard_events(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self._events.happened(str(payload))

    def _heard_logs(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self._events.logged(str(payload))
