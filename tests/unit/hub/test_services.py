"""Caches, limits, migrations and blobs of the hub, each by itself."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from brickless.core.errors import BricklessError
from brickless.hub.adapters import keys, tables
from brickless.hub.adapters.blobs import FolderBlobs
from brickless.hub.adapters.crypto import HashedSecrets
from brickless.hub.adapters.migrate import downgrade, upgrade
from brickless.hub.domain.errors import Malformed, RateLimited
from brickless.hub.http.router import cleaned
from brickless.hub.services.limits import Limiter
from brickless.hub.services.polls import PollCache


class Clock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def now_ms(self) -> int:
        return int(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s


class TestPollCache:
    def test_remembers_by_device_kind_and_variant(self) -> None:
        cache = PollCache()
        cache.put("d", "steps", "q", b"[]", cache.ticket("d"))
        assert cache.get("d", "steps", "q") == b"[]"
        assert cache.get("d", "steps", "other") is None
        assert cache.get("d", "user-meta", "q") is None
        assert cache.get("e", "steps", "q") is None

    def test_a_slow_reader_cannot_put_back_what_a_writer_made_stale(self) -> None:
        cache = PollCache()
        ticket = cache.ticket("d")
        cache.forget("d")
        cache.put("d", "steps", "q", b"stale", ticket)
        assert cache.get("d", "steps", "q") is None

    def test_tickets_end_with_their_epoch(self) -> None:
        cache = PollCache()
        ticket = cache.ticket("d")
        cache.forget_everything()
        cache.put("d", "steps", "q", b"stale", ticket)
        assert cache.get("d", "steps", "q") is None

    def test_bounds(self) -> None:
        cache = PollCache(max_devices=3)
        for name in "abcde":
            cache.put(name, "steps", "q", b"[]", cache.ticket(name))
        assert sum(cache.get(name, "steps", "q") is not None for name in "abcde") <= 3
        cache.put("a", "steps", "q", b"x" * 100_000, cache.ticket("a"))
        assert cache.get("a", "steps", "q") is None


class TestLimiter:
    def test_refuses_after_the_rate_and_refills(self) -> None:
        clock = Clock()
        limiter = Limiter(clock, 6, "tries")
        for _ in range(6):
            limiter.check("k")
            limiter.spend("k")
        with pytest.raises(RateLimited) as caught:
            limiter.check("k")
        limiter.check("other")
        clock.now_s += caught.value.retry_after_s
        limiter.check("k")

    def test_off_means_off(self) -> None:
        limiter = Limiter(Clock(), 1, "tries", enabled=False)
        for _ in range(5):
            limiter.spend("k")
        limiter.check("k")


class TestSecrets:
    def test_each_form_matches_only_its_secret(self) -> None:
        async def scenario() -> None:
            secrets = HashedSecrets(b"p" * 32)
            for stored in (
                await secrets.hash_password("right"),
                await secrets.hash_device_secret("right", generated=True),
                await secrets.hash_device_secret("right", generated=False),
            ):
                assert "right" not in stored
                assert await secrets.verify("right", stored)
                assert not await secrets.verify("wrong", stored)
            assert not await secrets.verify("", "")
            assert not await secrets.verify("anything", "")
            fast = await secrets.hash_device_secret("right", generated=True)
            assert not await HashedSecrets(b"q" * 32).verify("right", fast)

        asyncio.run(scenario())

    def test_keys_are_made_once(self, tmp_path: Path) -> None:
        first = keys.load(str(tmp_path / "keys"))
        again = keys.load(str(tmp_path / "keys"))
        assert (first.seal, first.pepper) == (again.seal, again.pepper)
        (tmp_path / "keys" / "token.pem").write_text("garbage")
        with pytest.raises(BricklessError, match=r"token\.pem holds no private key"):
            keys.load(str(tmp_path / "keys"))


class TestBlobs:
    @staticmethod
    async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    def test_only_what_is_right_gets_a_name(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            blobs = FolderBlobs(str(tmp_path / "objects"))
            blobs.start()
            data = bytes(range(256)) * 10_000
            sha = hashlib.sha256(data).hexdigest()
            for size_bytes, parts in ((len(data), (data[:-1],)), (len(data), (data, b"x")), (3, (b"abc",))):
                with pytest.raises(Malformed):
                    await blobs.put(sha, size_bytes, self.chunks(*parts))
                assert not await blobs.has(sha)
            await blobs.put(sha, len(data), self.chunks(data[:100], data[100:]))
            assert b"".join([part async for part in blobs.read(sha, 0, len(data))]) == data
            assert b"".join([part async for part in blobs.read(sha, 5, 7)]) == data[5:12]
            assert not list((tmp_path / "objects" / "incoming").iterdir())
            with pytest.raises(ValueError, match="SHA-256"):
                await blobs.has("../../etc/passwd")

        asyncio.run(scenario())

    def test_a_crash_leaves_only_what_the_start_sweeps(self, tmp_path: Path) -> None:
        blobs = FolderBlobs(str(tmp_path / "objects"))
        blobs.start()
        (tmp_path / "objects" / "incoming" / "leftover").write_bytes(b"half")
        blobs.start()
        assert not list((tmp_path / "objects" / "incoming").iterdir())


def test_migrations_make_the_tables_and_take_them_back() -> None:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        upgrade(connection)
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
        upgrade(connection)
        downgrade(connection, "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]
    engine.dispose()


@pytest.mark.parametrize(
    ("path", "clean"),
    [
        ("/devices/", None), ("/devices/a.b", None), ("/a/.pvrremote", None), ("/a/..b", None),
        ("//", "/"), ("//evil.example/x", "/evil.example/x"), ("/a//b", "/a/b"), ("/a/./b", "/a/b"),
        ("/a/../b/", "/b/"), ("/../../x", "/x"), ("/a/..", "/"),
    ],
)  # fmt: skip
def test_paths_are_cleaned_as_the_reference_does(path: str, clean: str | None) -> None:
    assert cleaned(path) == clean
