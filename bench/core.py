"""How long a device needs for a state of one megabyte: read, written canonically, compared; beside plain `json`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from bench.report import report
from brickless.core import canonical, transition
from brickless.core.state import parse_state

CONTAINERS = 330
FILES_EACH = 27
ROUNDS = 5


def state() -> bytes:
    """Return a canonical state of about a megabyte: as many containers as no device has."""
    entries: dict[str, canonical.JsonInput] = {"#spec": "pantavisor-service-system@1"}
    for number in range(CONTAINERS):
        name = f"app{number}"
        entries[f"{name}/run.json"] = {
            "name": name,
            "config": "lxc.container.conf",
            "group": "app",
            "root-volume": "root.squashfs",
            "storage": {"data": {"persistence": "permanent"}},
        }
        for file in ("lxc.container.conf", "root.squashfs"):
            entries[f"{name}/{file}"] = "a" * 64
        for file_number in range(FILES_EACH):
            entries[f"_config/{name}/etc/conf.d/file{file_number}.conf"] = "b" * 64
    return canonical.dumps(entries)


def best_ms(run: Callable[[], object]) -> float:
    """Return the fastest of some rounds in milliseconds: the others measure the machine's other work."""
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times) * 1000


def main() -> None:
    """Measure and print."""
    raw = state()
    value = canonical.loads(raw)
    plain = json.loads(raw)
    made = parse_state(raw)
    figures = {
        "state_mb": len(raw) / 1e6,
        "parse_state_ms": best_ms(lambda: parse_state(raw)),
        "canonical_dumps_ms": best_ms(lambda: canonical.dumps(value)),
        "plan_ms": best_ms(lambda: transition.plan(made, made)),
    }
    peers = {
        "json_loads_ms": best_ms(lambda: json.loads(raw)),
        "json_dumps_ms": best_ms(
            lambda: json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
        ),
    }
    ratios = {
        "parse_over_json": figures["parse_state_ms"] / peers["json_loads_ms"],
        "dumps_over_json": figures["canonical_dumps_ms"] / peers["json_dumps_ms"],
    }
    report("core", figures, peers, ratios)


if __name__ == "__main__":
    main()
