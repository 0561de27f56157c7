"""The database in memory answers as SQLite does, a device's lock is the database's own, and crashes are undone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy.exc import IntegrityError

from brickless.hub.adapters.database import SqlDatabase
from brickless.hub.domain.fleet import MemberState
from brickless.hub.services.ports import Database
from brickless.testkit.fleet_memory import MemoryDatabase
from brickless.testkit.fleet_questions import answers, fill, member, rollout

T = TypeVar("T")


async def in_sqlite(folder: Path, ask: Callable[[Database], Awaitable[T]]) -> T:
    db = SqlDatabase(f"sqlite+aiosqlite:///{folder}/fleet.sqlite")
    await db.start()
    try:
        return await ask(db)
    finally:
        await db.stop()


async def everything(db: Database) -> list[tuple[str, object]]:
    await fill(db)
    return await answers(db)


def test_memory_answers_as_sqlite_does(tmp_path: Path) -> None:
    ours = asyncio.run(everything(MemoryDatabase()))
    theirs = asyncio.run(in_sqlite(tmp_path, everything))
    for (name, left), (_, right) in zip(ours, theirs, strict=True):
        assert left == right, name


async def lock_twice(db: Database) -> None:
    await fill(db)
    async with db.write() as session:
        await session.members.save([member(rollout(2), 1, state=MemberState.UPDATING, rev=1)])


def test_a_device_is_busy_in_one_rollout_at_most(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError):
        asyncio.run(in_sqlite(tmp_path, lock_twice))
    with pytest.raises(RuntimeError, match="busy in rollouts"):
        asyncio.run(lock_twice(MemoryDatabase()))


def test_a_transaction_in_memory_is_undone_whole() -> None:
    async def scenario() -> None:
        db = MemoryDatabase()
        await fill(db)
        untouched = MemoryDatabase()
        await fill(untouched)

        def crash() -> None:
            raise OSError("the power is gone")

        db.on_write = crash
        with pytest.raises(OSError, match="power"):
            await answers(db)
        db.on_write = lambda: None
        assert await answers(db) == await answers(untouched)

    asyncio.run(scenario())
