"""`make bench B=hub`: what the hub takes of one core, with the load generator on another one.

Figures: idle polls a second and their p99, the onboarding of 10,000 devices, memory with 100,000 devices that poll,
objects up and down. Peers in the same run: a bare ASGI handler behind the same server that answers every request with
`[]`, and nginx serving the same file. BENCH_HUB_SCALE=0.1 makes everything a tenth as large.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from sqlalchemy import create_engine, insert

from bench.report import report
from brickless.hub.adapters import tables
from brickless.hub.adapters.crypto import JwtSigner
from brickless.hub.adapters.keys import load
from brickless.hub.adapters.server import serve_application
from brickless.linux.process import PIPE, Process, find, run, spawn
from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import Caller, sha256

SCALE = float(os.environ.get("BENCH_HUB_SCALE", "1"))
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
POLL = 'progress.status=%7B"$in":["NEW","DOWNLOADING","INPROGRESS","TESTING","QUEUED"]%7D'
CONNECTIONS = 64
_CHUNK = 1024 * 1024
OBJECT_BYTES = max(1, int(256 * min(1.0, SCALE))) * _CHUNK


def say(text: str) -> None:
    """Progress, for people."""
    print(f"bench hub: {text}", file=sys.stderr, flush=True)


def load_generator(**order: Any) -> dict[str, float]:
    """Run the generator and return what it measured."""
    done = run(
        [sys.executable, "-m", "bench.hub_load"],
        purpose="the load generator",
        timeout_s=3600,
        input=json.dumps(order).encode(),
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT}/src"},
    )
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:")) / 1024


def cpu_s(pid: int) -> float:
    """Processor time that a process took so far. Unlike a rate it does not depend on who else runs."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fleet(data_dir: str, owner: str, count: int, polls_file: str, *, already: int = 0) -> None:
    """Put `count` claimed devices with their factory revision into the database, and two polls of each into a file.

    Straight into SQLite: what is measured is how the hub carries them, onboarding is measured by itself.
    """
    signer = JwtSigner(load(os.path.join(data_dir, "keys")))
    now_ms = time.time_ns() // 1_000_000
    engine = create_engine(f"sqlite:///{data_dir}/hub.sqlite")
    state = b'{"#spec":"pantavisor-service-system@1"}'
    with open(polls_file, "a") as polls, engine.begin() as connection:
        for start in range(already, count, 1000):
            ids = [f"{number:08x}{secrets.token_hex(8)}" for number in range(start, min(start + 1000, count))]
            for table, row in rows(owner, state, now_ms).items():
                connection.execute(insert(table), [row(record_id) for record_id in ids])
            for record_id in ids:
                prn = f"prn:::devices:/{record_id}"
                claims: dict[str, object] = {
                    "id": prn, "nick": record_id, "prn": prn, "owner": owner, "type": "DEVICE", "roles": "device",
                    "scopes": "prn:pantahub.com:apis:/base/all", "exp": now_ms // 1000 + 36000,
                    "orig_iat": now_ms // 1000,
                }  # fmt: skip
                token = signer.bearer(claims)
                polls.write(f"/trails/{record_id}/steps?{POLL}\t{token}\n/devices/{record_id}/user-meta\t{token}\n")
    engine.dispose()


def rows(owner: str, state: bytes, now_ms: int) -> dict[Any, Any]:
    """For each table, what makes the row of a device id."""
    times = {"created_ms": now_ms, "modified_ms": now_ms}
    progress = '{"downloads":{"objects":null},"log":"","progress":0,"status":"DONE","status-msg":""}'
    return {
        tables.devices: lambda key: {
            "id": key, "nick": key, "owner": owner, "secret_hash": "", "challenge": "", "public": False,
            "user_meta": "{}", "device_meta": '{"pantavisor.status":"READY"}', "garbage": False, **times,
        },
        tables.trails: lambda key: {
            "id": key, "factory_state": state, "used_objects": "null", "last_insync_ms": now_ms,
            "last_touched_ms": now_ms, "newest_rev": 0, "reported_rev": 0, "done_rev": 0,
        },
        tables.steps: lambda key: {
            "trail_id": key, "rev": 0, "owner": owner, "committer": "", "commit_msg": "", "state": state,
            "state_sha": sha256(state), "meta": "{}", "used_objects": "null", "status": "DONE", "progress": progress,
            "progress_ms": now_ms, "step_ms": now_ms, **times,
        },
    }  # fmt: skip


def poll(port: int, file: str, *, seconds: float, connections: int = CONNECTIONS) -> dict[str, float]:
    """Polls of the file's devices."""
    return load_generator(scenario="poll", port=port, file=file, seconds=seconds, connections=connections)


def measure_polls(hub: HubProcess, user: Caller, figures: dict[str, float | None]) -> None:
    """Fleets of growing size: the first poll of each device asks the database, the second is answered from memory and
    teaches the server the short way (ADR 0044), every later one takes it; those are the idle polls."""
    owner = user.claims["prn"]
    seconds = max(2.0, 8 * SCALE)
    assert hub.process is not None
    already = 0
    polls_file = f"{hub.data_dir}.polls"
    for size in (1000, 10_000, 100_000):
        count = int(size * SCALE)
        say(f"{count} devices")
        fleet(hub.data_dir, owner, count, polls_file, already=already)
        already = count
        first = poll(hub.port, polls_file, seconds=0)
        second = poll(hub.port, polls_file, seconds=0)
        before_s = cpu_s(hub.process.pid)
        idle = poll(hub.port, polls_file, seconds=seconds)
        figures["idle_poll_cpu_us"] = (cpu_s(hub.process.pid) - before_s) / idle["requests"] * 1e6
        name = f"{size // 1000}k"
        figures[f"first_polls_per_s_{name}"] = first["per_s"]
        figures[f"second_polls_per_s_{name}"] = second["per_s"]
        figures[f"idle_polls_per_s_{name}"] = idle["per_s"]
        figures[f"idle_poll_p99_ms_{name}"] = idle["p99_ms"]
        figures[f"rss_{name}_mb"] = rss_mb(hub.process.pid)
    figures["idle_polls_per_s"] = figures["idle_polls_per_s_100k"]
    figures["idle_poll_p99_ms"] = figures["idle_poll_p99_ms_100k"]


async def _bare(scope: dict[str, Any], _receive: Any, send: Any) -> None:
    """The least that any framework does: the same bytes to everybody, nothing looked at."""
    if scope["type"] == "http":
        headers = [(b"content-type", b"application/json; charset=utf-8"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"[]"})


def serve_bare() -> None:
    """The peer's process: `python -m bench.hub bare`."""
    import uvloop

    def ready(addresses: list[str]) -> None:
        print(addresses[0], flush=True)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_application(_bare, host="127.0.0.1", port=0, tls=None, ready=ready, stopping=lambda: None))


@contextmanager
def bare_handler() -> Iterator[tuple[int, int]]:
    """The bare handler: its port and its process."""
    argv = [sys.executable, "-m", "bench.hub", "bare"]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT}/src"}
    with spawn(argv, purpose="the bare handler", stdout=PIPE, env=environment, cwd=ROOT) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline().decode().rpartition(":")[2]), process.pid


def receive(url: str) -> float:
    """Megabytes a second of a download that is thrown away."""
    host, _, path = url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    buffer, total = bytearray(_CHUNK), 0
    started_s = time.perf_counter()
    with socket.create_connection((name, int(port))) as sock:
        sock.sendall(f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        while count := sock.recv_into(buffer):
            total += count
    if total < OBJECT_BYTES:
        raise RuntimeError(f"{total} bytes instead of {OBJECT_BYTES}")
    return total / 1e6 / (time.perf_counter() - started_s)


@contextmanager
def nginx(folder: str) -> Iterator[int | None]:
    """nginx with its defaults, serving a folder; None where it is not installed."""
    if find("nginx") is None:
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    config = os.path.join(folder, "nginx.conf")
    with open(config, "w") as file:
        file.write(
            f"daemon off; user root; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
            f"http {{ access_log off; sendfile on; server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n"
        )
    with spawn(["nginx", "-c", config, "-p", folder], purpose="nginx") as process:
        wait_for(process, port)
        yield port


def wait_for(process: Process, port: int) -> None:
    """Until something listens there."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            if process.poll() is not None:
                raise process.failure() from None


def measure_objects(user: Caller, figures: dict[str, float | None], peers: dict[str, float | None]) -> None:
    """One large object up and down, and the same file from nginx."""
    data = secrets.token_bytes(_CHUNK) * (OBJECT_BYTES // _CHUNK)
    body = {"objectname": "large", "size": str(len(data)), "sha256sum": sha256(data)}
    access = user.post("/objects/", body).json()
    started_s = time.perf_counter()
    user.client.put(access["signed-puturl"], content=data, timeout=600).raise_for_status()
    figures["object_put_mb_per_s"] = len(data) / 1e6 / (time.perf_counter() - started_s)
    figures["object_get_mb_per_s"] = max(receive(access["signed-geturl"]) for _ in range(3))
    folder = tempfile.mkdtemp(prefix="bench-nginx-")
    try:
        path = os.path.join(folder, "large")
        with open(path, "wb") as file:
            file.write(data)
        with nginx(folder) as port:
            peers["nginx_get_mb_per_s"] = (
                None if port is None else max(receive(f"http://127.0.0.1:{port}/large") for _ in range(3))
            )
    finally:
        shutil.rmtree(folder)


def measure(folder: str) -> None:
    """Everything, in one go."""
    figures: dict[str, float | None] = {}
    peers: dict[str, float | None] = {}
    arguments = ["--no-rate-limits"]
    with running_hub(os.path.join(folder, "a"), arguments=arguments) as hub, httpx.Client(base_url=hub.url) as client:
        user = Caller(client).login("user1", "user1")
        token = user.post("/devices/tokens").json()["token"]
        count = int(10_000 * SCALE)
        say(f"onboarding {count} devices")
        onboarded = load_generator(scenario="onboard", port=hub.port, join_token=token, devices=count, connections=32)
        figures["onboard_10k_s"] = onboarded["seconds"] * 10_000 / count
        say("objects")
        measure_objects(user, figures, peers)
    with running_hub(os.path.join(folder, "b"), arguments=arguments) as hub, httpx.Client(base_url=hub.url) as client:
        user = Caller(client).login("user1", "user1")
        measure_polls(hub, user, figures)
        polls_file = f"{hub.data_dir}.polls"
        hub.stop()
        say("the bare handler")
        with bare_handler() as (port, pid):
            before_s = cpu_s(pid)
            bare = poll(port, polls_file, seconds=max(2.0, 8 * SCALE))
            peers["bare_handler_cpu_us"] = (cpu_s(pid) - before_s) / bare["requests"] * 1e6
    peers["bare_handler_polls_per_s"] = bare["per_s"]
    peers["bare_handler_p99_ms"] = bare["p99_ms"]
    report("hub", figures, peers, ratios(figures, peers))


def ratios(figures: dict[str, float | None], peers: dict[str, float | None]) -> dict[str, float | None]:
    """Ours by the peer's; None where the peer was not measured."""

    def ratio(ours: str, theirs: str) -> float | None:
        left, right = figures[ours], peers[theirs]
        return left / right if left and right else None

    return {
        "vs_bare_handler": ratio("idle_polls_per_s", "bare_handler_polls_per_s"),
        # The other way round: less is better. The share of a poll's work that the server itself does.
        "idle_poll_cpu_vs_bare": ratio("idle_poll_cpu_us", "bare_handler_cpu_us"),
        "object_get_vs_nginx": ratio("object_get_mb_per_s", "nginx_get_mb_per_s"),
    }


def main() -> None:
    """`bare` serves the peer, anything else measures."""
    if sys.argv[1:] == ["bare"]:
        serve_bare()
        return
    folder = tempfile.mkdtemp(prefix="bench-hub-")
    try:
        measure(folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
