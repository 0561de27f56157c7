"""What the hub counts of itself, as Prometheus text. Labels are route templates: their number is bounded."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters and latency histograms by method, route and status; `gauges` are asked when the text is made."""

    def __init__(self, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        self._requests: dict[tuple[str, str, int], int] = {}
        self._times: dict[str, list[float]] = {}
        self._gauges = gauges

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """One answered request."""
        key = (method if method in _METHODS else "other", route, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        times = self._times.get(route)
        if times is None:
            times = self._times[route] = [0.0] * (len(_BUCKETS_S) + 2)
        times[bisect_left(_BUCKETS_S, seconds)] += 1
        times[-1] += seconds

    def text(self) -> bytes:
        """The exposition format 0.0.4."""
        lines = [
            "# HELP hub_requests_total Answered requests.",
            "# TYPE hub_requests_total counter",
        ]
        for (method, route, status), count in sorted(self._requests.items()):
            lines.append(f'hub_requests_total{{method="{method}",route="{_label(route)}",status="{status}"}} {count}')
        lines += [
            "# HELP hub_request_seconds Time from the head of a request to the head of its answer.",
            "# TYPE hub_request_seconds histogram",
        ]
        for route, times in sorted(self._times.items()):
            lines += _histogram(_label(route), times)
        for name, (text, ask) in self._gauges.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", f"{name} {ask():g}"]
        return ("\n".join(lines) + "\n").encode()


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _histogram(route: str, times: list[float]) -> list[str]:
    lines, total = [], 0.0
    for bound, count in zip((*map(str, _BUCKETS_S), "+Inf"), times[:-1], strict=True):
        total += count
        lines.append(f'hub_request_seconds_bucket{{route="{route}",le="{bound}"}} {total:g}')
    lines.append(f'hub_request_seconds_sum{{route="{route}"}} {times[-1]:.6f}')
    lines.append(f'hub_request_seconds_count{{route="{route}"}} {total:g}')
    return lines
