"""The values that the supervisor's parts exchange: what is to run, what runs, what happened."""

from __future__ import annotations

from typing import NamedTuple

from brickless.core.container import Container


class Handle(NamedTuple):
    """A container's monitor: its pid, and its start time in clock ticks, which together name one process for ever."""

    pid: int
    ticks: int


class Job(NamedTuple):
    """One container of one revision. `fingerprint` tells whether two revisions mean the same container by a name."""

    container: Container
    rev: str
    fingerprint: str


class Running(NamedTuple):
    """A container that an earlier supervisor started and that still runs."""

    name: str
    rev: str
    fingerprint: str
    handle: Handle
    started: bool


class Started(NamedTuple):
    """A container's init runs."""

    name: str


class Exited(NamedTuple):
    """A container's monitor is gone, so it is. `status` is the wait status of its init, None if nobody saw it."""

    name: str
    status: int | None


class Prepared(NamedTuple):
    """What a container's start waited for is done, or failed with `error`."""

    name: str
    error: str


Happening = Started | Exited | Prepared
