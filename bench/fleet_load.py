"""The load generator of `bench.fleet`: ten thousand devices on one core that poll, update and report over HTTP.

Reads its order from stdin as JSON: port, file (lines `device id TAB token`), operator's token, rollout, connections.
Every connection serves its share of the devices in turns: each device polls every ten seconds, or later where the hub
does not keep up, and one that finds a step reports INPROGRESS and DONE at once. Beside them an operator looks at the
rollout's page. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import uvloop

from bench.hub_load import Connection

POLL = 'progress.status=%7B"$in":["NEW","DOWNLOADING","INPROGRESS","TESTING","QUEUED"]%7D'
POLL_EVERY_S = 10.0
_LOOK_S = 0.2


class Fleet:
    """The devices' side of a rollout."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.port: int = order["port"]
        self.rollout: str = order["rollout"]
        self.operator = f"Authorization: Bearer {order['token']}\r\n"
        with open(order["file"]) as file:
            self.devices = [line.rstrip("\n").split("\t") for line in file]
        self.polls = self.updates = 0
        self.ended = False
        self.final: dict[str, Any] = {}
        self.page_s: list[float] = []

    async def serve(self, share: list[list[str]]) -> None:
        """One connection: polls of its devices, one after the other, until the rollout is over."""
        connection = await Connection(self.port).open()
        apart_s = POLL_EVERY_S / max(1, len(share))
        due_s = time.perf_counter()
        while not self.ended:
            for device_id, token in share:
                # Late polls are not made up for: devices do not poll faster after a slow answer.
                due_s = max(due_s + apart_s, time.perf_counter())
                await asyncio.sleep(due_s - time.perf_counter())
                if self.ended:
                    return
                bearer = f"Authorization: Bearer {token}\r\n"
                steps = json.loads(await connection.call("GET", f"/trails/{device_id}/steps?{POLL}", headers=bearer))
                self.polls += 1
                for step in steps:
                    path = f"/trails/{device_id}/steps/{step['rev']}/progress"
                    for status in (b'{"status":"INPROGRESS"}', b'{"status":"DONE"}'):
                        await connection.call("PUT", path, status, headers=bearer)
                    self.updates += 1

    async def watch(self) -> None:
        """The operator: what the rollout's page asks for, again and again."""
        connection = await Connection(self.port).open()
        while not self.ended:
            started_s = time.perf_counter()
            found = json.loads(await connection.call("GET", f"/fleets/rollouts/{self.rollout}", headers=self.operator))
            page = f"/fleets/rollouts/{self.rollout}/devices?page[size]=100"
            await connection.call("GET", page, headers=self.operator)
            self.page_s.append(time.perf_counter() - started_s)
            self.final = found
            self.ended = found["state"] != "running"
            await asyncio.sleep(_LOOK_S)

    async def run(self, connections: int) -> dict[str, Any]:
        """Everything at once; what was measured."""
        started_s = time.perf_counter()
        shares = [self.devices[number::connections] for number in range(connections)]
        await asyncio.gather(self.watch(), *map(self.serve, shares))
        self.page_s.sort()
        return {
            "seconds": time.perf_counter() - started_s,
            "polls": self.polls,
            "updates": self.updates,
            "state": self.final["state"],
            "updated": self.final["counts"]["updated"],
            "looks": len(self.page_s),
            "page_p50_ms": self.page_s[len(self.page_s) // 2] * 1000,
            "page_p99_ms": self.page_s[len(self.page_s) * 99 // 100] * 1000,
        }


def main() -> None:
    """Read the order, carry it out, print what was measured."""
    order = json.load(sys.stdin)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(Fleet(order).run(order["connections"]))))


if __name__ == "__main__":
    main()
