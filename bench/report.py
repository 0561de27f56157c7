"""What every benchmark prints: a table for people and, as its last line, one JSON object for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping


def report(
    bench: str,
    figures: Mapping[str, float | None],
    peers: Mapping[str, float | None] | None = None,
    ratios: Mapping[str, float | None] | None = None,
) -> None:
    """Print the table and the JSON line. Names carry their unit (`_s`, `_mb`, `_per_s`); None: not measured."""
    for title, values in (("figures", figures), ("peers", peers or {}), ("ratios", ratios or {})):
        if not values:
            continue
        print(f"{bench}: {title}")
        for name, value in values.items():
            print(f"  {name:32} {'not measured' if value is None else f'{value:.4g}'}")
    print(
        json.dumps({"bench": bench, "figures": dict(figures), "peers": dict(peers or {}), "ratios": dict(ratios or {})})
    )
