"""Pages of what changed: strictly after or before a moment, those next to it, always ascending."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ColumnElement, RowMapping, Select
from sqlalchemy.ext.asyncio import AsyncConnection


async def feed(
    connection: AsyncConnection,
    statement: Select[Any],
    moment: Column[Any],
    tie: ColumnElement[Any],
    *,
    after_ms: int | None,
    before_ms: int | None,
    limit: int,
) -> list[RowMapping]:
    """The rows; `tie` orders those of the same moment.

    A page goes on from the last moment of the one before it, so it never ends between rows of the same moment: it holds
    all of them, and may be longer than `limit` by these.
    """
    forward = after_ms is not None
    if forward:
        ordered = statement.where(moment > after_ms).order_by(moment, tie)
    else:
        ordered = statement.where(moment < before_ms).order_by(moment.desc(), tie.desc())
    rows = list((await connection.execute(ordered.limit(limit))).mappings())
    if len(rows) == limit:
        border = rows[-1][moment.name]
        same = (await connection.execute(statement.where(moment == border).order_by(tie))).mappings().all()
        inside = [row for row in rows if row[moment.name] != border]
        return [*inside, *same] if forward else [*same, *reversed(inside)]
    return rows if forward else rows[::-1]
