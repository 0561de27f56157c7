"""The schema forward and back, and what each earlier release's statements meet on the schema of now.

While a new release starts, the one before it still serves: it inserts, reads and changes rows with the columns that it
knows. So for every earlier schema a row of each of its tables is written to the newest one with those columns alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Any, TypeVar

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, Table, inspect, select
from sqlalchemy.ext.asyncio import create_async_engine

from brickless.hub.adapters import tables, tables_apps
from brickless.hub.adapters.migrate import config, downgrade, upgrade

T = TypeVar("T")
_NUMBERS = count(1)
#: Tables that refuse a change of what was written.
APPEND_ONLY = {"audit"}
Run = Callable[[Callable[[Connection], T]], T]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("postgresql"))])
def within(request: pytest.FixtureRequest, tmp_path: Any) -> Run[Any]:
    """Runs a function in one transaction of a fresh database."""
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path}/hub.sqlite"
    else:
        url = request.getfixturevalue("postgresql").url(f"migrations{next(_NUMBERS)}")

    def run(work: Callable[[Connection], Any]) -> Any:
        async def body() -> Any:
            engine = create_async_engine(url)
            try:
                async with engine.begin() as connection:
                    return await connection.run_sync(work)
            finally:
                await engine.dispose()

        return asyncio.run(body())

    return run


def revisions(connection: Connection) -> list[str]:
    """Every revision, oldest first."""
    script = ScriptDirectory.from_config(config(connection))
    return [found.revision for found in script.walk_revisions()][::-1]


def shape(connection: Connection) -> dict[str, set[str]]:
    """Tables and their columns."""
    found = inspect(connection)
    names = [name for name in found.get_table_names() if name != "alembic_version"]
    return {name: {column["name"] for column in found.get_columns(name)} for name in names}


def old_tables(connection: Connection) -> list[Table]:
    """The tables as they are now, so that what is referenced comes first."""
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != "alembic_version"]


def value(column: Any) -> Any:
    """A value that any row may have; the same for every column of a name, so that references hold."""
    try:
        kind = column.type.python_type
    except NotImplementedError:
        kind = str
    if kind is bool:
        return False
    if kind is int:
        return 1
    if kind is float:
        return 0.5
    if kind is bytes:
        return b"{}"
    return "0" * min(24, getattr(column.type, "length", None) or 24)


def write(connection: Connection, table: Table) -> None:
    """What a release that knows these columns does: insert, read, change."""
    row = {column.name: value(column) for column in table.columns}
    connection.execute(table.insert().values(**row))
    found = connection.execute(select(table)).mappings().one()
    assert dict(found) == row, table.name
    if table.name not in APPEND_ONLY:
        connection.execute(table.update().values(**row))


def test_every_step_goes_back_and_forward_again(within: Run[Any]) -> None:
    steps = within(revisions)
    assert len(steps) >= 7
    shapes = []
    for revision in steps:
        within(lambda connection, to=revision: upgrade(connection, to))
        shapes.append(within(shape))
    for revision, expected in list(zip(steps, shapes, strict=True))[-2::-1]:
        within(lambda connection, to=revision: downgrade(connection, to))
        assert within(shape) == expected, revision
    within(lambda connection: downgrade(connection, "base"))
    assert within(shape) == {}
    within(upgrade)
    assert within(shape) == shapes[-1]


def test_the_schema_is_what_the_statements_are_made_from(within: Run[Any]) -> None:
    within(upgrade)
    found = within(shape)
    assert tables_apps.metadata is tables.metadata
    for table in tables.metadata.sorted_tables:
        assert found[table.name] == {column.name for column in table.columns}


def test_earlier_releases_go_on_writing_on_the_newest_schema(within: Run[Any]) -> None:
    for revision in within(revisions)[:-1]:
        within(lambda connection: downgrade(connection, "base"))
        within(lambda connection, to=revision: upgrade(connection, to))
        known = within(old_tables)
        within(upgrade)
        for table in known:
            within(lambda connection, table=table: write(connection, table))
        # And back: what they wrote is still there.
        within(lambda connection, to=revision: downgrade(connection, to))
        for table in known:
            assert within(lambda connection, table=table: len(connection.execute(select(table)).all())) == 1
