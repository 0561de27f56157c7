"""A short run of `make bench B=hub-fuzz`: requests from the hub's own OpenAPI, by every caller, never make a 500."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from brickless.linux.process import run

ROOT = Path(__file__).parents[2]


def test_no_described_request_makes_a_500() -> None:
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT}/src", "HUB_FUZZ_SECONDS": "20"}
    argv = [sys.executable, "-m", "bench.hub_fuzz"]
    done = run(argv, purpose="bench.hub_fuzz", timeout_s=580, env=environment, cwd=str(ROOT), check=False)
    assert done.returncode == 0, done.stderr.decode()[-8000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert all(found[f"{name}_requests"] > 10 for name in ("nobody", "person", "device", "administrator"))
