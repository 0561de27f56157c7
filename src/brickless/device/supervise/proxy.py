"""The supervisor's side of the proxy between containers: its graph, its process, what it says.

There is no process while no link of the running revision could be used. One that dies is started again; one that dies
at once, again and again, is given up until a container comes or goes.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from brickless.core import services
from brickless.core.container import Container
from brickless.core.services import BUILTIN, Link
from brickless.linux import libc

HEALTHY_S = 10.0
DEATHS_MAX = 3
LINE_MAX_BYTES = 65536
HIGHEST_FD = 4096


class Live(NamedTuple):
    """A link whose consumer runs, with the inits of both ends; 0 for a provider that does not run, or the runtime."""

    link: Link
    consumer_pid: int
    provider_pid: int


class ProxyProcess:
    """See above. Its socket is registered with the supervisor's poll."""

    __slots__ = ("_buffer", "_deaths", "_last", "_pid", "_poll", "_say", "_socket", "_started_s", "_storage")

    def __init__(self, poll: select.poll, say: Callable[[str], None], storage: str) -> None:
        self._poll = poll
        self._say = say
        self._storage = storage
        self._socket: socket.socket | None = None
        self._pid = 0
        self._buffer = b""
        self._last = b""
        self._deaths = 0
        self._started_s = 0.0

    def show(self, live: list[Live], containers: Mapping[str, Container]) -> None:
        """Tell it what links there are; start it for the first. The same graph again is not sent twice."""
        if not live and self._socket is None:
            return
        message = json.dumps(self._graph(live, containers)).encode() + b"\n"
        if message == self._last and self._socket is not None:
            return
        self._last = message
        self._deaths = 0
        self._send()

    def _graph(self, live: list[Live], containers: Mapping[str, Container]) -> dict[str, object]:
        graph: dict[str, object] = {"links": [_wire(one) for one in live]}
        if any(one.link.provider == BUILTIN for one in live):
            from brickless.device.xconnect import bus

            policies = services.bus_policies(containers)
            roles = {one.role for one in policies} | {one.link.role for one in live if one.link.provider == BUILTIN}
            try:
                uids = bus.assign_uids(roles, self._storage)
                graph["bus"] = {"roles": uids, "config": bus.write(policies, uids, bus.Places(storage=self._storage))}
            except OSError as error:
                self._say(f"the system bus of the containers: {error}")
        return graph

    def _send(self) -> None:
        if self._socket is None:
            self._start()
        if self._socket is not None:
            try:
                self._socket.sendall(self._last)
            except OSError as error:
                self._say(f"the proxy between containers does not listen: {error}")

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._started_s = time.monotonic()
        self._pid = os.fork()
        if self._pid == 0:
            _become(theirs)
        theirs.close()
        ours.settimeout(5.0)
        self._socket = ours
        self._poll.register(ours, select.POLLIN)

    def serve(self) -> None:
        """Take what it says, and start it again when it is gone."""
        if self._socket is None or not _is_readable(self._socket.fileno()):
            return
        try:
            data = self._socket.recv(LINE_MAX_BYTES)
        except OSError:
            data = b""
        if not data:
            self._mourn()
            return
        *lines, self._buffer = (self._buffer + data)[-LINE_MAX_BYTES:].split(b"\n")
        for line in lines:
            self._say(line.decode("utf-8", "replace"))

    def _mourn(self) -> None:
        if self._socket is not None:
            self._poll.unregister(self._socket)
            self._socket.close()
        self._socket = None
        _, status = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._deaths = self._deaths + 1 if time.monotonic() - self._started_s < HEALTHY_S else 1
        if self._deaths > DEATHS_MAX:
            self._say(f"the proxy between containers died {self._deaths} times ({code}) and is given up for now")
            return
        self._say(f"the proxy between containers died ({code}) and is started again")
        self._send()

    def close(self) -> None:
        """End it."""
        if self._socket is not None:
            self._poll.unregister(self._socket)
            self._socket.close()
            self._socket = None
            os.kill(self._pid, signal.SIGTERM)
            os.waitpid(self._pid, 0)

    @property
    def pid(self) -> int:
        """Its process, 0 when there is none (`GET /daemons`)."""
        return self._pid if self._socket is not None else 0


def _wire(one: Live) -> dict[str, object]:
    link = one.link
    return {
        "consumer": link.consumer,
        "consumer_pid": one.consumer_pid,
        "provider": link.provider,
        "provider_pid": one.provider_pid,
        "name": link.name,
        "type": link.type,
        "role": link.role,
        "target": link.target,
        "socket": link.socket,
    }


def _become(control: socket.socket) -> None:
    """In the child: never returns. It has nothing open but its socket, and ends with the supervisor."""
    code = 70
    try:
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.set_process_name("pv-xconnect")
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        kept = control.fileno()
        os.closerange(3, kept)
        os.closerange(kept + 1, HIGHEST_FD)
        from brickless.device.xconnect import main

        code = main.main(control)
    except BaseException as error:
        control.send(f"the proxy between containers failed: {type(error).__name__}: {error}\n".encode())
    os._exit(code)


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
