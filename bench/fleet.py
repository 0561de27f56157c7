"""`make bench B=fleet`: a rollout to ten thousand devices over real HTTP, the hub on one core, the devices on another.

Each device polls every ten seconds, thirty times as often as usual. Figures: the time until every device has it
under the default policy (canary, growing waves), the hub's CPU time, and the latency of an operator's page meanwhile:
the rollout with its counts, and a hundred of its devices. BENCH_FLEET_SCALE=0.1 makes the fleet a tenth as large. No
peer in reach runs rollouts of this size on one machine.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile

import httpx

from bench.hub import ROOT, fleet, rss_mb
from bench.report import report
from brickless.linux.process import run
from brickless.testkit.hub import running_hub
from brickless.testkit.hub_client import SPEC, Caller

DEVICES = int(10_000 * float(os.environ.get("BENCH_FLEET_SCALE", "1")))
CONNECTIONS = 32
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Processor time that a process has used."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def tokens(polls_file: str, target: str) -> None:
    """From the file of polls to one line a device: id and token."""
    with open(polls_file) as polls, open(target, "w") as file:
        for line in polls:
            path, _, token = line.rstrip("\n").partition("\t")
            if path.startswith("/trails/"):
                file.write(f"{path.split('/')[2]}\t{token}\n")


def measure(folder: str) -> None:
    """One rollout."""
    with (
        running_hub(os.path.join(folder, "hub"), arguments=["--no-rate-limits"]) as hub,
        httpx.Client(base_url=hub.url, timeout=120) as client,
    ):
        assert hub.process is not None
        user = Caller(client).login("user1", "user1")
        polls_file, file = f"{hub.data_dir}.polls", f"{hub.data_dir}.tokens"
        fleet(hub.data_dir, user.claims["prn"], DEVICES, polls_file)
        tokens(polls_file, file)
        sha = user.upload(b"a new root file system")
        state = {"#spec": SPEC, "app/root": sha, "app/version.json": {"version": 2}}
        user.post("/fleets/releases", {"state": state, "fragment": "app", "name": "v2"}).raise_for_status()
        before_s = cpu_s(hub.process.pid)
        # The default budget of ten thousand devices, also for fewer: a smaller one would give the pace, not the hub.
        spec = {"policy": {"budget": min(1.0, 50 / DEVICES)}}
        rollout = {"release": "v2", "selector": "*", "name": "all", "spec": spec}
        user.post("/fleets/rollouts", rollout).raise_for_status()
        order = {
            "port": hub.port, "file": file, "token": user.token, "rollout": "all", "connections": CONNECTIONS,
        }  # fmt: skip
        done = run(
            [sys.executable, "-m", "bench.fleet_load"],
            purpose="the load generator",
            timeout_s=3600,
            input=json.dumps(order).encode(),
            cwd=ROOT,
            env={"PYTHONPATH": f"{ROOT}:{ROOT}/src"},
        )
        measured = json.loads(done.stdout)
        used_s = cpu_s(hub.process.pid) - before_s
        memory_mb = rss_mb(hub.process.pid)
    if measured["state"] != "settled" or measured["updated"] != DEVICES:
        raise RuntimeError(f"the rollout did not reach everybody: {measured}")
    report(
        "fleet",
        {
            "devices": float(DEVICES),
            # A smaller fleet goes through the same waves: its time says nothing of a larger one's.
            "rollout_10k_s" if DEVICES == 10_000 else "rollout_s": measured["seconds"],
            "page_p50_ms": measured["page_p50_ms"],
            "page_p99_ms": measured["page_p99_ms"],
            "pages": float(measured["looks"]),
            "hub_cpu_s": used_s,
            "hub_cpu_share": used_s / measured["seconds"],
            "hub_rss_mb": memory_mb,
            "polls_per_s": measured["polls"] / measured["seconds"],
        },
    )


def main() -> None:
    """Measure."""
    folder = tempfile.mkdtemp(prefix="bench-fleet-")
    try:
        measure(folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
