"""The endpoint for `pvr clone IP` and `pvr post IP` (device.md 6.5): off unless configured, and never without a secret.

It speaks pvr's own protocol, so a client of the field works unmodified: it gives the secret as an access token (`pvr -a
SECRET clone IP`), or logs in with it as the password of the user `device`. What is handed out instead of the secret is
a ticket: an expiry and a MAC over it and what it is for. One process a connection, as for the control socket; TLS is
loaded in that process alone. Contract for the bytes: pvr.md 7.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from brickless.core import canonical
from brickless.core.canonical import JsonValue, loads, sha256_hex
from brickless.core.errors import BricklessError, HostileInputError
from brickless.device.control import commands, http, objects, session, steps
from brickless.device.control.caller import Caller
from brickless.device.control.http import HttpError, Request, Response, json_response
from brickless.device.control.places import Place, settings
from brickless.device.control.session import Call
from brickless.device.link.supervisor import Supervisor
from brickless.store.objects import is_sha
from brickless.store.trails import MAX_STATE_BYTES, Storage

USER = "device"
BASES = (("cgi-bin", "pvr"), ("cgi-bin",))
AUTH = ("cgi-bin", "auth", "login")
SPEC, STATE_KEY = "pvr-pantahub-1", "state"
TICKET_S = 3600
MAX_LOGIN_BYTES = 4096
MAX_LISTED_BYTES = 64 * 1024
#: A wrong secret costs this much time; with a few connections an address at a time, guessing stays slow.
WRONG_S = 2.0
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?|\[[0-9a-fA-F:.]{2,45}\](?::[0-9]{1,5})?")


class Secret(NamedTuple):
    """What proves that a client may: the secret itself, or a ticket made from it."""

    text: str

    def ticket(self, purpose: str, until_s: int) -> str:
        """A ticket for one purpose."""
        import hmac

        mac = hmac.new(self.text.encode(), f"{purpose}:{until_s}".encode(), "sha256").hexdigest()
        return f"{until_s}-{mac}"

    def accepts(self, purpose: str, ticket: str, now_s: float) -> bool:
        """Whether a ticket is ours, for this purpose, and still good."""
        import hmac

        until = ticket.partition("-")[0]
        if not until.isascii() or not until.isdigit() or len(until) > 12 or int(until) < now_s:
            return False
        return hmac.compare_digest(self.ticket(purpose, int(until)).encode(), ticket.encode("utf-8", "replace"))

    def is_it(self, given: str) -> bool:
        """Whether it is the secret itself; takes the same time whatever is given."""
        import hmac

        return hmac.compare_digest(self.text.encode(), given.encode("utf-8", "replace"))


class Visit(NamedTuple):
    """A request of a remote client: how it reached us, and with what it may be answered."""

    call: Call
    secret: Secret
    scheme: str

    @property
    def storage(self) -> Storage:
        """The partition."""
        return Storage(self.call.place.storage)

    def url(self, *parts: str) -> str:
        """An address of ours as this client sees us. Raises HttpError for a Host that is none."""
        host = self.call.request.headers.get("host", "")
        if not _HOST.fullmatch(host):
            raise HttpError(400, "The header Host is missing or malformed")
        return f"{self.scheme}://{host}/" + "/".join(parts)


def serve(sock: socket.socket, place: Place, limit: Callable[[int], object]) -> None:
    """Serve one connection."""
    limit(session.HEAD_S)
    config = settings(place)
    secret, certificate = Secret(config.text("PV_CONTROL_HTTP_SECRET")), config.text("PV_CONTROL_HTTP_CERTIFICATE")
    if not secret.text:
        return  # taken away since the door was opened
    if certificate:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        try:
            sock = context.wrap_socket(sock, server_side=True)
        except OSError:
            return  # no TLS client, or it does not trust us: its own error tells it
    serve_plain(sock, place, limit, secret, "https" if certificate else "http", Supervisor(place.run))


def serve_plain(
    sock: socket.socket,
    place: Place,
    limit: Callable[[int], object],
    secret: Secret,
    scheme: str,
    supervisor: Supervisor,
) -> None:
    """One request and its answer, with the TLS already off."""
    try:
        request = http.read_request(sock)
        if request is None:
            return
        limit(min(session.LONGEST_S, session.REST_S + max(0, request.body.size_bytes) // session.BYTES_PER_S))
        visit = Visit(Call(request, Caller("", True), place, supervisor), secret, scheme)
        response = _guarded(visit)
    except HttpError as error:
        response = http.error_response(error)
    except OSError:
        return  # the client is gone
    try:
        http.send(sock, response)
        http.linger(sock)
    except OSError:
        pass  # it does not wait for the answer; what it asked for is done all the same
    sock.close()
    if response.then is not None:
        limit(session.LONGEST_S)
        response.then()


def _guarded(visit: Visit) -> Response:
    try:
        return respond(visit)
    except HttpError as error:
        return http.error_response(error)
    except HostileInputError as error:
        return http.error_response(HttpError(400, str(error)))
    except BricklessError as error:
        return http.error_response(HttpError(500, str(error)))
    except OSError as error:
        return http.error_response(HttpError(500, f"The storage refuses: {error.strerror or error}"))


def respond(visit: Visit) -> Response:
    """The answer. Raises HttpError, and what the disk refuses."""
    request = visit.call.request
    if (request.method, request.parts) == ("POST", AUTH):
        return _login(visit)
    parts = _relative(request)
    if len(parts) == 3 and parts[0] == "objects" and is_sha(parts[1]):
        return _object_by_ticket(visit, parts[1], parts[2])
    _authorise(visit)
    if (request.method, parts) == ("GET", (".pvrremote",)):
        return json_response(_describe(visit))
    if (request.method, parts) == ("GET", ("json",)):
        return Response(200, steps.state_of(visit.storage, visit.storage.current() or "0"))
    if request.method == "GET" and len(parts) == 2 and parts[0] == "objects":
        return _object_info(visit, parts[1])
    if (request.method, parts) == ("POST", ("objects",)):
        return _announce(visit)
    if (request.method, parts) == ("POST", ("post",)):
        return _post(visit)
    raise HttpError(404, f"There is no {request.method} {request.path[:200]}")


def _relative(request: Request) -> tuple[str, ...]:
    for base in BASES:
        if request.parts[: len(base)] == base:
            return request.parts[len(base) :]
    raise HttpError(404, f"There is no {request.path[:200]}")


# -- who ---------------------------------------------------------------------------------------------------------------


def _authorise(visit: Visit) -> None:
    """Raises HttpError 401 with the place to log in: clients of the field find it there."""
    scheme, _, token = visit.call.request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() == "bearer" and token:
        if visit.secret.accepts("token", token, time.time()) or visit.secret.is_it(token):
            return
        time.sleep(WRONG_S)
    challenge = f'JWT realm="device", ph-aeps="{visit.url("cgi-bin", "auth")}"'
    raise HttpError(401, "This device wants its secret", headers={"WWW-Authenticate": challenge})


def _login(visit: Visit) -> Response:
    value = _object(visit.call.request.body.read(MAX_LOGIN_BYTES))
    if value.get("username") != USER or not visit.secret.is_it(str(value.get("password", ""))):
        time.sleep(WRONG_S)
        raise HttpError(401, f"The user is {USER!r}, the password the device's secret")
    return json_response({"token": visit.secret.ticket("token", int(time.time()) + TICKET_S)})


def _object(data: bytes) -> dict[str, JsonValue]:
    value = loads(data)
    if not isinstance(value, dict):
        raise HttpError(400, "The body is no JSON object")
    return value


# -- what --------------------------------------------------------------------------------------------------------------


def _describe(visit: Visit) -> dict[str, object]:
    base = ("cgi-bin", "pvr")
    return {
        "pvr-spec": SPEC,
        "json-get-url": visit.url(*base, "json"),
        "json-key": STATE_KEY,
        "objects-endpoint": visit.url(*base, "objects"),
        "post-url": visit.url(*base, "post"),
        "post-fields": ["commit-msg"],
        "post-fields-opt": ["rev"],
    }


def _object_document(visit: Visit, sha: str, size: int, name: str = "") -> dict[str, object]:
    now_s = int(time.time())

    def signed(purpose: str) -> str:
        ticket = visit.secret.ticket(f"{purpose}:{sha}", now_s + TICKET_S)
        return visit.url("cgi-bin", "pvr", "objects", sha, ticket)

    return {
        "id": sha,
        "objectname": name,
        "sha256sum": sha,
        "size": str(size),
        "mime-type": objects.BINARY,
        "signed-geturl": signed("get"),
        "signed-puturl": signed("put"),
        "now": str(now_s),
        "expire-time": str(TICKET_S),
    }


def _object_info(visit: Visit, sha: str) -> Response:
    if not is_sha(sha) or not visit.storage.objects.has(sha):
        raise HttpError(404, steps.MISSING)
    return json_response(_object_document(visit, sha, visit.storage.objects.size_bytes(sha)))


def _announce(visit: Visit) -> Response:
    """A client says what it will send: it gets an address for it, or hears that it is there already."""
    value = _object(visit.call.request.body.read(MAX_LISTED_BYTES))
    sha, size = str(value.get("sha256sum", "")), str(value.get("size", "0"))
    if not is_sha(sha) or not size.isdigit() or len(size) > 15:
        raise HttpError(400, "An object has a sha256sum of 64 hex digits and a size")
    there = visit.storage.objects.has(sha)
    document = _object_document(visit, sha, int(size), str(value.get("objectname", ""))[:1024])
    kind = {"Pantahub-Object-Type": "object"}
    return json_response(document, 409 if there else 200)._replace(headers=kind)


def _object_by_ticket(visit: Visit, sha: str, ticket: str) -> Response:
    """The bytes themselves: whoever has the ticket may."""
    method, now_s = visit.call.request.method, time.time()
    if method == "GET" and visit.secret.accepts(f"get:{sha}", ticket, now_s):
        return objects.get(visit.storage, sha)
    if method == "PUT" and visit.secret.accepts(f"put:{sha}", ticket, now_s):
        return objects.put(visit.call, visit.storage, sha)
    raise HttpError(403, "This address is not good any more: ask for a new one")


def _post(visit: Visit) -> Response:
    """A new revision: installed under a local name, and tried after the answer."""
    value = _object(visit.call.request.body.read(MAX_STATE_BYTES))
    state, message, rev = value.get(STATE_KEY), value.get("commit-msg", ""), value.get("rev")
    if not isinstance(state, dict):
        raise HttpError(400, f"The posted document has no {STATE_KEY!r}")
    if commands.is_updating(visit.call):
        raise HttpError(503, "An update is ongoing", retry_after_s=commands.BUSY_S)
    raw = canonical.dumps(state)
    name = rev if isinstance(rev, str) and rev.startswith("locals/") else _name(raw)
    steps.install_step(visit.call, visit.storage, name, raw)
    if isinstance(message, str) and message:
        text = message.encode()[: steps.MAX_MESSAGE_BYTES].decode("utf-8", "ignore")
        visit.storage.write_commit_message(name, text)
    then = commands.run_revision(visit.call, name).then
    device = _device_id(visit.call.place)
    answer = {"rev": -1, "revlocal": name, "state-sha": sha256_hex(raw), "trail-id": device}
    return json_response(answer)._replace(then=then)


def _name(raw: bytes) -> str:
    number = int.from_bytes(os.urandom(4), "big") % 1000
    return f"locals/pvr-{int(time.time())}-{sha256_hex(raw)[:8]}-{number}"


def _device_id(place: Place) -> str:
    try:
        with open(os.path.join(place.run, "device-id"), encoding="utf-8") as stream:
            return stream.read(64).strip() or "local"
    except FileNotFoundError:
        return "local"
