"""The load generator of `bench.hub`: `python -m bench.hub_load` reads its order from stdin as JSON.

Orders: `poll` (lines of a file, each `path TAB token`, over N connections, for a time or once through) and `onboard`
(N devices from registration with a join token to the first polls). Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import uvloop

SPEC = b'{"#spec":"pantavisor-service-system@1"}'


class LoadError(RuntimeError):
    """An answer that is not 200: a measurement of errors is none."""


class Poller(asyncio.Protocol):
    """One connection: the next request goes out when the answer to the last one is whole."""

    def __init__(
        self, requests: Iterator[bytes], latencies_s: list[float], done: asyncio.Future[None], end_s: float
    ) -> None:
        self._requests = requests
        self._latencies_s = latencies_s
        self._done = done
        self._end_s = end_s
        self._data = b""
        self._sent_s = 0.0

    def connection_made(self, transport: Any) -> None:
        """Begin. uvloop's transports have the methods of asyncio's and not their class."""
        self._transport = transport
        self._next()

    def _next(self) -> None:
        request = next(self._requests, None)
        now_s = time.perf_counter()
        if request is None or now_s > self._end_s:
            self._transport.close()
            self._finish(None)
            return
        self._sent_s = now_s
        self._transport.write(request)

    def _finish(self, error: Exception | None) -> None:
        if not self._done.done():
            if error is None:
                self._done.set_result(None)
            else:
                self._done.set_exception(error)

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self._finish(LoadError(self._data[:300].decode()))
            self._transport.close()
            return
        self._data = b""
        self._latencies_s.append(time.perf_counter() - self._sent_s)
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        """The hub ended it."""
        self._finish(exc or (None if self._done.done() else LoadError("the connection was closed")))


def read_requests(path: str, host: str) -> list[bytes]:
    """The bytes of one request a line."""
    with open(path) as file:
        lines = [line.rstrip("\n").split("\t") for line in file]
    return [
        f"GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        for target, token in lines
    ]


async def poll(order: dict[str, Any]) -> dict[str, float]:
    """Rate and latency of polls."""
    requests = read_requests(order["file"], f"127.0.0.1:{order['port']}")
    source = itertools.cycle(requests) if order["seconds"] else iter(requests)
    loop = asyncio.get_running_loop()
    latencies_s: list[float] = []
    started_s = time.perf_counter()
    end_s = started_s + (order["seconds"] or 3600)
    waiting = []
    for _ in range(order["connections"]):
        done: asyncio.Future[None] = loop.create_future()
        waiting.append(done)
        await loop.create_connection(
            lambda done=done: Poller(source, latencies_s, done, end_s), "127.0.0.1", order["port"]
        )  # type: ignore[misc]  # a default binds it now
    await asyncio.gather(*waiting)
    elapsed_s = time.perf_counter() - started_s
    latencies_s.sort()
    return {
        "requests": len(latencies_s),
        "per_s": len(latencies_s) / elapsed_s,
        "p50_ms": latencies_s[len(latencies_s) // 2] * 1000,
        "p99_ms": latencies_s[len(latencies_s) * 99 // 100] * 1000,
    }


class Connection:
    """One keep-alive connection for requests of every kind."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def open(self) -> Connection:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def call(self, method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
        """The body of the answer, which must be a 200."""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nUser-Agent: bench\r\n{headers}"
        self._writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        data = await self._reader.readexactly(length)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise LoadError(f"{method} {path}: {answer!r} {data!r}")
        return data


async def onboard(order: dict[str, Any]) -> dict[str, float]:
    """Devices from nothing to idle: register, log in, factory state, first polls."""
    numbers = iter(range(order["devices"]))
    join = f"Pantahub-Devices-Auto-Token-V1: {order['join_token']}\r\n"

    async def worker() -> None:
        connection = await Connection(order["port"]).open()
        for _ in numbers:
            record = json.loads(await connection.call("POST", "/devices/", headers=join))
            login = json.dumps({"username": record["prn"], "password": record["secret"]}).encode()
            token = json.loads(await connection.call("POST", "/auth/login", login))["token"]
            bearer = f"Authorization: Bearer {token}\r\n"
            await connection.call("GET", f"/devices/{record['id']}", headers=bearer)
            await connection.call("POST", "/trails/", SPEC, headers=bearer)
            await connection.call("GET", f"/trails/{record['id']}/steps", headers=bearer)
            await connection.call("GET", f"/devices/{record['id']}/user-meta", headers=bearer)

    started_s = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(order["connections"])))
    return {"seconds": time.perf_counter() - started_s}


def main() -> None:
    """Read the order, carry it out, print what was measured."""
    order = json.load(sys.stdin)
    scenario = {"poll": poll, "onboard": onboard}[order["scenario"]]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(scenario(order))))


if __name__ == "__main__":
    main()
