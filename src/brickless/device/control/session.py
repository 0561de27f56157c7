"""One connection of the control socket from its first byte to its last; runs in a process of its own (see `listener`).

Which endpoint is served by which module is listed here; a module is loaded when it is asked for, and its memory goes
with the process. Contract: device.md 6.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable
from typing import NamedTuple, Protocol

from brickless.core.errors import BricklessError, HostileInputError
from brickless.device.control import caller as callers
from brickless.device.control import http
from brickless.device.control.caller import Caller
from brickless.device.control.http import HttpError, Request, Response
from brickless.device.control.places import Place
from brickless.device.link.supervisor import Supervisor, SupervisorError

#: Seconds for the head, and after it for the rest; each 16 KiB that are announced buy one more.
HEAD_S, REST_S, BYTES_PER_S = 10, 60, 16 * 1024
LONGEST_S = 3600
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
#: First segment of the path -> the module in this package whose `answer` serves it.
MODULES = {
    "buildinfo": "system",
    "commands": "commands",
    "config": "system",
    "config2": "system",
    "containers": "containers",
    "daemons": "system",
    "device-meta": "meta",
    "drivers": "drivers",
    "groups": "containers",
    "objects": "objects",
    "signal": "containers",
    "steps": "steps",
    "storage": "storage",
    "user-meta": "meta",
    "wakelocks": "system",
    "xconnect-graph": "graph",
}
#: Endpoints that a container without the role mgmt may use: it speaks of itself there.
OPEN = {("POST", "signal"), ("GET", "drivers"), ("PUT", "drivers")}


class Call(NamedTuple):
    """A request with all that is needed to answer it."""

    request: Request
    caller: Caller
    place: Place
    supervisor: Supervisor

    @property
    def method(self) -> str:
        """The method."""
        return self.request.method

    @property
    def parts(self) -> tuple[str, ...]:
        """The segments of the path."""
        return self.request.parts

    def status(self) -> dict[str, object]:
        """How the containers stand. Raises HttpError when the supervisor does not say."""
        return self.ask("status")

    def ask(self, op: str, **more: object) -> dict[str, object]:
        """A question to the supervisor. Raises HttpError 503: it is being started again."""
        try:
            return dict(self.supervisor.ask(op, **more))
        except SupervisorError as error:
            if error.refused:
                raise
            raise HttpError(503, str(error), retry_after_s=5) from error


def method_error(call: Call) -> HttpError:
    """The error for a method or path that an endpoint does not have (the reference answers 400)."""
    return HttpError(400, f"There is no {call.method} {call.request.path[:200]}")


class Kernel:
    """Who the caller is, as the kernel and the supervisor tell."""

    __slots__ = ()

    def identify(self, sock: socket.socket, place: Place) -> tuple[Caller, Supervisor]:
        """The caller, and how the supervisor is asked. Raises HttpError 503 when that does not answer."""
        supervisor, peer = Supervisor(place.run), callers.peer_of(sock)
        if callers.container_of(peer) == "":
            return callers.identify(peer, {}), supervisor
        try:
            return callers.identify(peer, _roles(supervisor)), supervisor
        except SupervisorError as error:
            raise HttpError(503, str(error), retry_after_s=5) from error


class Knows(Protocol):
    """What `serve` needs of `Kernel`; tests have their own."""

    def identify(self, sock: socket.socket, place: Place) -> tuple[Caller, Supervisor]:
        """See `Kernel.identify`."""
        ...


def _roles(supervisor: Supervisor) -> dict[str, tuple[str, ...]]:
    containers = supervisor.status().get("containers")
    roles: dict[str, tuple[str, ...]] = {}
    for one in containers if isinstance(containers, list) else []:
        given = one.get("roles") if isinstance(one, dict) else None
        if isinstance(one, dict) and isinstance(given, list):
            roles[str(one.get("name"))] = tuple(str(role) for role in given)
    return roles


def serve(sock: socket.socket, place: Place, limit: Callable[[int], object], knows: Knows | None = None) -> None:
    """Serve one connection. `limit` sets in how many seconds this process ends if it has not until then."""
    limit(HEAD_S)
    request: Request | None = None
    try:
        request = http.read_request(sock)
        if request is None:
            return
        limit(min(LONGEST_S, REST_S + max(0, request.body.size_bytes) // BYTES_PER_S))
        response = respond(request, sock, place, knows or Kernel())
    except HttpError as error:
        response = http.error_response(error)
    except OSError:
        return  # the client is gone
    try:
        http.send(sock, response, head_only=request is not None and request.method == "HEAD")
        http.linger(sock)
    except OSError as error:
        # Who does not wait for the answer has asked all the same.
        sys.stderr.write(f"brickless: control: the answer was not taken: {error}\n")
    sock.close()
    if response.then is not None:
        limit(LONGEST_S)
        response.then()


def respond(request: Request, sock: socket.socket, place: Place, knows: Knows) -> Response:
    """The answer to a request: whatever goes wrong has a status and says why."""
    try:
        return _respond(request, sock, place, knows)
    except HttpError as error:
        return http.error_response(error)
    except SupervisorError as error:
        return http.error_response(HttpError(409, error.reason or str(error)))
    except HostileInputError as error:
        return http.error_response(HttpError(400, str(error)))
    except BricklessError as error:
        return http.error_response(HttpError(500, str(error)))
    except OSError as error:
        what = f"The storage refuses {error.filename or 'a file'}: {error.strerror or error}"
        return http.error_response(HttpError(507 if error.errno in _FULL else 500, what))


def _respond(request: Request, sock: socket.socket, place: Place, knows: Knows) -> Response:
    if request.headers.get("host", "").partition(":")[0].lower() not in {"", "localhost"}:
        raise HttpError(400, "The header Host must be empty or localhost")
    caller, supervisor = knows.identify(sock, place)
    first = request.parts[0] if request.parts else ""
    if not caller.known or (not caller.manages and (request.method, first) not in OPEN):
        raise HttpError(403, "Request not sent from a mgmt platform")
    if first not in MODULES:
        raise HttpError(400, f"There is no endpoint {request.path[:200]}")
    name = f"{__package__}.{MODULES[first]}"
    __import__(name)
    answer: Callable[[Call], Response] = sys.modules[name].answer
    return answer(Call(request, caller, place, supervisor))
