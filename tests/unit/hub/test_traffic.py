"""What an account sends and receives is counted, by month, and written in batches."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from brickless.hub.services.ports_apps import Moved

CONTENT = b"counted bytes"
OWNER, OTHER = "prn:pantahub.com:auth:/user1", "prn:pantahub.com:auth:/user2"


def test_downloads_and_uploads_count_for_the_account(in_hub: Any) -> None:
    async def scenario(here: Any) -> None:
        user = await here.login("user1", "user1")
        sha = hashlib.sha256(CONTENT).hexdigest()
        body = {"objectname": "x", "size": str(len(CONTENT)), "sha256sum": sha}
        access = (await here.call("POST", "/objects/", body, token=user)).json()
        assert (await here.client.put(access["signed-puturl"], content=CONTENT)).status_code == 200
        for _ in range(2):
            assert (await here.client.get(access["signed-geturl"])).content == CONTENT
        traffic = here.hub.parts.traffic
        assert traffic.unsaved(OWNER) == Moved(2 * len(CONTENT), len(CONTENT))
        assert [await traffic.save(), await traffic.save()] == [1, 0]
        assert traffic.unsaved(OWNER) == Moved(0, 0)
        await here.client.get(access["signed-geturl"], headers={"Range": "bytes=0-3"})
        sent = 2 * len(CONTENT) + 4
        stats = (await here.call("GET", "/dash/", token=user)).json()["subscription"]["quota-stats"]
        assert stats["BANDWIDTH"]["Actual"] == round(sent / 1024**3, 6)
        await traffic.save()
        async with here.hub.database.read() as session:
            assert await session.traffic.of(OWNER, traffic.month()) == Moved(sent, len(CONTENT))
            assert await session.traffic.of(OWNER, "2000-01") == Moved(0, 0)
            assert await session.traffic.of(OTHER, traffic.month()) == Moved(0, 0)

    in_hub(scenario)


def test_what_could_not_be_written_is_kept(in_hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(here: Any) -> None:
        def away() -> None:
            traffic.count(OWNER, sent_bytes=2)  # meanwhile
            raise OSError("the database is away")

        traffic = here.hub.parts.traffic
        traffic.count(OWNER, sent_bytes=5)
        with monkeypatch.context() as patched:
            patched.setattr(here.hub.database, "write", away)
            with pytest.raises(OSError, match="away"):
                await traffic.save()
        assert traffic.unsaved(OWNER) == Moved(7, 0)
        assert await traffic.save() == 1

    in_hub(scenario)
