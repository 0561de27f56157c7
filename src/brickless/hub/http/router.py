"""Services, routes and the rules by which a path finds its handler (contract sections 0.1 and 0.4).

Written by hand because these rules are the wire's, not a framework's (docs/adr/0020-hub-wire-by-hand.md): the path is
matched while it is still encoded, a trailing slash is another path, literals win for one method at a time,
authentication comes before routing, a 405 has no `Allow`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote

from brickless.hub.http.messages import Handler, Request

TRAILS_HEADERS = frozenset({"accept", "content-type", "x-custom-header", "origin", "authorization"})
COMMON_HEADERS = frozenset(
    {
        "accept", "content-type", "content-length", "x-custom-header", "origin", "authorization", "x-trace-id",
        "trace-id", "x-request-id", "traceid", "parentid", "uber-trace-id", "traceparent", "tracestate",
    }
)  # fmt: skip
COMMON_METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS")
PATCH_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a pattern below the service's prefix: `{name}` takes one segment that is not empty.

    `scopes`: any of them is enough, none means no check. `public`: works without a token; a valid one is still read, an
    invalid one is still refused.
    """

    method: str
    pattern: str
    handler: Handler
    scopes: tuple[str, ...] = ()
    public: bool = False
    summary: str = ""

    @property
    def segments(self) -> tuple[str, ...]:
        """The pattern's segments; the service's root has none."""
        return tuple(self.pattern.split("/")) if self.pattern else ()


@dataclass(slots=True)
class Service:
    """Routes below one prefix. `canonical`: the JSON style of /trails. `strip_slash`: one trailing slash is ignored."""

    prefix: str
    routes: Sequence[Route]
    canonical: bool = False
    strip_slash: bool = False
    bearer: bool = True
    methods: tuple[str, ...] = COMMON_METHODS
    headers: frozenset[str] = COMMON_HEADERS
    _patterns: dict[tuple[str, int], list[_Pattern]] = field(default_factory=dict)
    _lengths: dict[int, list[_Pattern]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for route in self.routes:
            pattern = _pattern(route)
            self._patterns.setdefault((route.method, len(route.segments)), []).append(pattern)
            self._lengths.setdefault(len(route.segments), []).append(pattern)
        for patterns in self._patterns.values():
            patterns.sort(key=lambda pattern: len(pattern.names))

    def match(self, method: str, rest: str) -> tuple[Route | None, dict[str, str], bool]:
        """The route for what follows the prefix, its parameters, and whether any method knows the path."""
        segments = rest.split("/") if rest else []
        for pattern in self._patterns.get((method, len(segments)), ()):
            params = _params(pattern, segments)
            if params is not None:
                return pattern.route, params, True
        known = any(_params(pattern, segments) is not None for pattern in self._lengths.get(len(segments), ()))
        return None, {}, known


class _Pattern(NamedTuple):
    """A route taken apart, once: which segments must be what, and which are parameters."""

    route: Route
    literals: tuple[tuple[int, str], ...]
    names: tuple[tuple[int, str], ...]


def _pattern(route: Route) -> _Pattern:
    numbered = tuple(enumerate(route.segments))
    return _Pattern(
        route,
        tuple((number, text) for number, text in numbered if not text.startswith("{")),
        tuple((number, text[1:-1]) for number, text in numbered if text.startswith("{")),
    )


def _params(pattern: _Pattern, segments: Sequence[str]) -> dict[str, str] | None:
    for number, text in pattern.literals:
        if segments[number] != text:
            return None
    params = {}
    for number, name in pattern.names:
        segment = segments[number]
        if not segment:
            return None
        params[name] = _decoded(segment) if "%" in segment else segment
    return params


def _decoded(segment: str) -> str:
    return "%2F".join(unquote(part, errors="replace") for part in segment.replace("%2f", "%2F").split("%2F"))


def cleaned(path: str) -> str | None:
    """Where a path with `//`, `.` or `..` segments is redirected to; None when it is clean."""
    if "//" not in path and "/." not in path:
        return None
    segments = path.split("/")
    if "//" not in path and not any(segment in {".", ".."} for segment in segments):
        return None
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if path.endswith(("/", "/.", "/..")) and not clean.endswith("/"):
        clean += "/"
    return clean


class Router:
    """Finds the service for a path."""

    def __init__(self, services: Sequence[Service], fallback: Callable[[Request], Service | None]) -> None:
        self._services: dict[str, Service] = {}
        self._fallback = fallback
        for service in services:
            self.add(service)

    @property
    def services(self) -> tuple[Service, ...]:
        """Every service, in the order in which they were added."""
        return tuple(self._services.values())

    def add(self, service: Service) -> None:
        """Serve another prefix."""
        self._services[service.prefix.strip("/")] = service

    def find(self, request: Request) -> tuple[Service | None, str]:
        """The service and what follows its prefix. `/devices` works as `/devices/` without a redirect."""
        first, _, rest = request.path[1:].partition("/")
        service = self._services.get(first)
        if service is None:
            return self._fallback(request), request.path[1:]
        if service.strip_slash and rest.endswith("/"):
            rest = rest[:-1]
        return service, rest
