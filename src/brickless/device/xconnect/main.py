"""The proxy between containers (`pv-xconnect`): a process that runs only while a revision has services.

The supervisor writes the graph to its socket, one JSON object a line, each time a container comes or goes. The proxy
makes what is new, drops what is gone, and says one line for each fault. It never polls.

    {"links": [{"consumer", "consumer_pid", "provider", "provider_pid", "name", "type", "role", "target", "socket"}],
     "bus": {"roles": {"<role>": <uid>}, "config": "<path>"}}
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from brickless.core.errors import HostileInputError
from brickless.core.services import ANY_ROLE, BUILTIN
from brickless.device.xconnect import reach
from brickless.device.xconnect.filters import Filter, Login, Plain, Requests
from brickless.device.xconnect.pump import Pump

if TYPE_CHECKING:
    from brickless.linux.process import Process

GRAPH_MAX_BYTES = 1 << 20
CONNECTIONS_MAX = 256
REFUSED = b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Wire(NamedTuple):
    """A link with the processes at its ends; `provider_pid` 0 is the runtime itself."""

    consumer: str
    consumer_pid: int
    provider: str
    provider_pid: int
    name: str
    type: str
    role: str
    target: str
    socket: str

    @property
    def place(self) -> tuple[int, str]:
        """Where its socket appears: one in each container that was started, at each path."""
        return self.consumer_pid, self.target


class Proxy:
    """The loop's state."""

    def __init__(self, control: socket.socket) -> None:
        """`control` is the socket to the supervisor."""
        self._control = control
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._wires: dict[tuple[int, str], Wire] = {}
        self._listeners: dict[int, tuple[socket.socket, tuple[int, str]]] = {}
        self._devices: set[tuple[tuple[int, str], int]] = set()
        self._pumps: dict[int, Pump] = {}
        self._uids: dict[str, int] = {}
        self._daemon: Process | None = None
        self._bus = ""
        self._buffer = b""

    def run(self) -> int:
        """Serve until the supervisor is gone."""
        while True:
            for fd, events in self._poll.poll():
                if fd == self._control.fileno():
                    if not self._read_graph():
                        self._end()
                        return 0
                elif fd in self._listeners:
                    self._accept(fd)
                elif fd in self._pumps:
                    self._serve(fd, events)

    def say(self, text: str) -> None:
        """A line for the supervisor, which has the log."""
        self._control.send(text.encode("utf-8", "replace")[:900] + b"\n")

    # -- the graph -------------------------------------------------------------------------------------------------

    def _read_graph(self) -> bool:
        data = self._control.recv(65536)
        if not data:
            return False
        self._buffer += data
        if len(self._buffer) > GRAPH_MAX_BYTES:
            raise HostileInputError(f"the graph of services is longer than {GRAPH_MAX_BYTES} bytes")
        *lines, self._buffer = self._buffer.split(b"\n")
        if lines:
            # Only the last one counts: those before it are out of date already.
            self._take(json.loads(lines[-1]))
        return True

    def _take(self, graph: dict[str, Any]) -> None:
        wanted = {}
        for fields in graph["links"]:
            wire = Wire(**fields)
            wanted[wire.place] = wire
        self._host_bus(graph.get("bus"))
        for place in [place for place in self._wires if place not in wanted]:
            self._drop(place)
        for place, wire in wanted.items():
            before = self._wires.get(place)
            self._wires[place] = wire
            try:
                self._make(wire, before)
            except (OSError, ValueError) as error:
                self.say(f"service {wire.name} for {wire.consumer}: {error}")

    def _make(self, wire: Wire, before: Wire | None) -> None:
        if not reach.is_of(wire.consumer_pid, wire.consumer):
            return
        if wire.type == "drm":
            key = (wire.place, wire.provider_pid)
            if wire.provider_pid and key not in self._devices:
                reach.hand_device(wire.provider_pid, wire.socket, wire.consumer_pid, wire.target)
                self._devices.add(key)
        elif wire.type == "input":
            raise ValueError("services of the type input cannot be handed on: the field never said how")
        elif before is None:
            listener = reach.listen(wire.consumer_pid, wire.target)
            self._listeners[listener.fileno()] = (listener, wire.place)
            self._poll.register(listener, select.POLLIN)

    def _drop(self, place: tuple[int, str]) -> None:
        """A link that is no longer in the graph goes, with its connections."""
        wire = self._wires.pop(place)
        for fd, (listener, at) in list(self._listeners.items()):
            if at == place:
                self._poll.unregister(fd)
                listener.close()
                del self._listeners[fd]
                if reach.is_of(wire.consumer_pid, wire.consumer):
                    self._withdraw(wire)
        for pump in {pump for pump in self._pumps.values() if pump.link == place}:
            self._close(pump)
        self._devices = {key for key in self._devices if key[0] != place}

    def _withdraw(self, wire: Wire) -> None:
        try:
            reach.withdraw(wire.consumer_pid, wire.target)
        except OSError as error:
            self.say(f"service {wire.name} for {wire.consumer}: {error}")

    # -- connections -----------------------------------------------------------------------------------------------

    def _accept(self, fd: int) -> None:
        listener, place = self._listeners[fd]
        try:
            client, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        client.setblocking(False)
        wire = self._wires[place]
        fault = self._admit(wire, client)
        if fault:
            self.say(f"service {wire.name} for {wire.consumer}: {fault}")
            if wire.type == "rest":
                _last_words(client, b"503 Service Unavailable")
            client.close()

    def _admit(self, wire: Wire, client: socket.socket) -> str:
        """Connect a caller; why not, in words, "" when it is."""
        # The socket lies in the consumer, which may have shown it to others: the kernel says who calls.
        who = reach.caller(client)
        if who != wire.consumer:
            return f"a connection from {who or 'the host'} is refused"
        if len(self._pumps) >= 2 * CONNECTIONS_MAX:
            return f"more than {CONNECTIONS_MAX} connections"
        if wire.provider != BUILTIN and not wire.provider_pid:
            return f"{wire.provider} does not run"
        uid = self._uid(wire) if wire.type == "dbus" else None
        try:
            provider = reach.connect(wire.provider_pid, wire.socket, uid)
        except OSError as error:
            return f"{wire.provider}: {error}"
        pump = Pump(wire.place, client, provider, _filter(wire, uid), self._poll)
        for fd in pump.filenos():
            self._pumps[fd] = pump
        return ""

    def _uid(self, wire: Wire) -> int:
        if wire.provider == BUILTIN:
            return self._uids.get(wire.role, reach.NOBODY)
        return reach.NOBODY if wire.role == ANY_ROLE else reach.uid_in(wire.provider_pid, wire.role)

    def _serve(self, fd: int, events: int) -> None:
        pump = self._pumps[fd]
        try:
            goes_on = pump.serve(fd, events)
        except HostileInputError as error:
            wire = self._wires.get(pump.link)
            if wire is not None:
                self.say(f"service {wire.name} for {wire.consumer}: {error}")
                if wire.type == "rest":
                    _last_words(pump.client, b"400 Bad Request")
            goes_on = False
        if not goes_on:
            self._close(pump)

    def _close(self, pump: Pump) -> None:
        for fd in pump.filenos():
            self._pumps.pop(fd, None)
        pump.close()

    # -- the hosted bus --------------------------------------------------------------------------------------------

    def _host_bus(self, bus: dict[str, Any] | None) -> None:
        if bus is None:
            return
        self._uids = bus["roles"]
        if self._daemon is not None and self._daemon.poll() is None:
            self._daemon.signal(signal.SIGHUP)
            return
        from brickless.linux import process

        path = bus["config"]
        try:
            self._daemon = process.spawn(
                ["dbus-daemon", f"--config-file={path}", "--nofork", "--nopidfile"],
                purpose="the system bus of the containers",
                stdout=self._control.fileno(),
                stderr=self._control.fileno(),
            )
        except OSError as error:
            self.say(str(error))

    def _end(self) -> None:
        if self._daemon is not None:
            self._daemon.kill()


def _filter(wire: Wire, uid: int | None) -> Filter:
    if wire.type == "rest":
        return Requests(wire.consumer, wire.role)
    return Plain() if uid is None else Login(uid)


def _last_words(client: socket.socket, status: bytes) -> None:
    """An answer of our own, if the caller takes it at once."""
    try:
        client.send(REFUSED % status)
    except OSError:
        # It is gone already: there is nobody to tell.
        return


def main(control: socket.socket) -> int:
    """Be the proxy."""
    # A provider may look at the groups of who connects: we have none to show.
    os.setgroups([])
    return Proxy(control).run()
