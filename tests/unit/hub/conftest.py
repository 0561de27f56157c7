"""A hub in this process: the real application and a real SQLite file, called without sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from brickless.hub.app import Hub, Settings, running
from brickless.hub.domain.policy import Policy

T = TypeVar("T")
IN_REQUEST: ContextVar[bool] = ContextVar("in_request", default=False)
SPEC = "pantavisor-service-system@1"


class Here:
    """A client of a hub in this process that counts the statements of each request."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.statements: list[str] = []
        hub.database.on_statement(self._heard)
        transport = httpx.ASGITransport(hub.application)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://hub.test", headers={"User-Agent": "test"})

    def _heard(self, statement: str) -> None:
        # What the hub does by itself meanwhile, such as moving rollouts on, is no part of a request.
        if IN_REQUEST.get():
            self.statements.append(statement)

    async def call(self, method: str, path: str, body: Any = None, *, token: str = "") -> httpx.Response:
        self.statements.clear()
        IN_REQUEST.set(True)
        content = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return await self.client.request(method, path, content=content, headers=headers)

    def count(self) -> int:
        """Statements of the last request, without those that only begin, end or nest transactions."""
        noise = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")
        return sum(not statement.startswith(noise) for statement in self.statements)

    async def login(self, name: str, password: str) -> str:
        token: str = (await self.call("POST", "/auth/login", {"username": name, "password": password})).json()["token"]
        return token

    async def device(self, owner_token: str) -> tuple[str, str]:
        """Id and token of a claimed device with a trail."""
        record = (await self.call("POST", "/devices/")).json()
        await self.call("PUT", f"/devices/{record['id']}?challenge={record['challenge']}", token=owner_token)
        token = await self.login(record["prn"], record["secret"])
        assert (await self.call("POST", "/trails/", {"#spec": SPEC}, token=token)).status_code == 200
        return record["id"], token


Scenario = Callable[[Here], Awaitable[T]]


@pytest.fixture
def in_hub(tmp_path: Path) -> Callable[[Scenario[T]], T]:
    """Run a scenario against a fresh hub with demo accounts."""

    def run(scenario: Scenario[T]) -> T:
        async def body() -> T:
            settings = Settings(str(tmp_path / "data"), demo_accounts=True, policy=Policy(rate_limits=False))
            async with running(settings) as hub:
                here = Here(hub)
                async with here.client:
                    return await scenario(here)

        coroutine: Coroutine[Any, Any, T] = body()
        return asyncio.run(coroutine)

    return run
