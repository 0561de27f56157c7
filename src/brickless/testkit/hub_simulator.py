"""A hub that does as it is told, misbehaviour included: the device's side of the wire, in this process.

It speaks what contracts/hub.md 1.3, 2.3, 3.5 to 3.8, 4 and 5 give to a device and nothing else, keeps everything in
memory, and carries out scripted faults (`Fault`) one by one, in order, so that a test is the same each time it runs.
It is not the hub: it checks what a device sends only as far as a test needs it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from brickless.testkit.hub_faults import Armed, Fault, Kind, Request
from brickless.testkit.hub_sockets import Handler, Server, ServerV6

__all__ = ["ACTIVE", "Device", "Fault", "HubSimulator", "Kind", "Request", "Step"]

ACTIVE = ("NEW", "QUEUED", "DOWNLOADING", "INPROGRESS", "TESTING")


@dataclass
class Device:
    """A registered device."""

    id: str
    secret: str
    challenge: str
    owner: str = ""
    user_meta: dict[str, Any] = field(default_factory=dict)
    device_meta: dict[str, Any] = field(default_factory=dict)
    gone: bool = False

    @property
    def prn(self) -> str:
        """Its full name."""
        return f"prn:::devices:/{self.id}"

    def wire(self, *, with_secret: bool) -> dict[str, Any]:
        """As in an answer, in the order which the C client needs (contracts/hub.md 2.1)."""
        secret = {"secret": self.secret} if with_secret else {}
        challenge = {"challenge": self.challenge} if self.challenge else {}
        metas = {"user-meta": self.user_meta, "device-meta": self.device_meta}
        return {"id": self.id, "prn": self.prn, "nick": "sim", "owner": self.owner, **secret, **challenge, **metas}


@dataclass
class Step:
    """One revision on a trail; `raw_state` is the text that a device gets, which need not be JSON."""

    rev: int
    raw_state: str
    commit_msg: str = "a step"
    progress: dict[str, Any] = field(default_factory=lambda: {"progress": 0, "status": "NEW"})
    reports: list[dict[str, Any]] = field(default_factory=list)


class HubSimulator:
    """The hub, a context manager; `url` is where it listens. Its state may be read and changed under `changed`."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0) -> None:
        self.changed = threading.Condition()
        self.requests: list[Request] = []
        self.devices: dict[str, Device] = {}
        self.steps: dict[str, dict[int, Step]] = {}
        self.objects: dict[str, bytes] = {}
        self.logs: list[dict[str, Any]] = []
        self.auto_claim = False
        #: Join token -> owner.
        self.join_tokens: dict[str, str] = {}
        #: Lie about the size of an object: sha -> what `size` says.
        self.size_lies: dict[str, str] = {}
        #: Text that stands in for the answer to a poll for steps.
        self.steps_answer: str | None = None
        self._tokens: dict[str, str] = {}
        self._signed: dict[str, tuple[str, str]] = {}
        self._faults: list[Armed] = []
        self._numbers = itertools.count(1)
        self.tls = tls
        self._host = host
        self._port = port
        self._server: Server | None = None
        self.closing = threading.Event()

    # Life -----------------------------------------------------------------------------------------------------------
    def __enter__(self) -> HubSimulator:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port, the same after a restart."""
        return self._port

    @property
    def host(self) -> str:
        """The address that it listens on."""
        return self._host

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self.tls else 'http'}://{host}:{self._port}"

    def start(self) -> None:
        """Listens, on the port of before when it listened before."""
        self.closing.clear()
        server_class = ServerV6 if ":" in self._host else Server
        self._server = server_class((self._host, self._port), Handler, self, self.tls)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Ends it as a crash would: open connections are reset, what it knows is kept for `start`."""
        if self._server is None:
            return
        self.closing.set()
        self._server.shutdown()
        self._server.reset_all()
        self._server.server_close()
        self._server = None

    # What a test does -----------------------------------------------------------------------------------------------
    def add_object(self, data: bytes) -> str:
        """Stores an object; returns its sha256."""
        sha = hashlib.sha256(data).hexdigest()
        self.objects[sha] = data
        return sha

    def post(self, state: Mapping[str, Any] | str, *, device_id: str | None = None, commit_msg: str = "a step") -> int:
        """A new step for the (only) device: a state, or a text that stands where a state should. Returns its number."""
        raw = state if isinstance(state, str) else json.dumps(state, sort_keys=True, separators=(",", ":"))
        with self.changed:
            steps = self.steps[device_id or self.device.id]
            rev = max(steps, default=0) + 1
            steps[rev] = Step(rev, raw, commit_msg)
            self.changed.notify_all()
            return rev

    def inject(self, *faults: Fault) -> None:
        """Arms faults. For each request the first armed one that hits is carried out."""
        with self.changed:
            self._faults.extend(Armed(fault) for fault in faults)

    def heal(self) -> None:
        """Disarms every fault and ends stalls."""
        with self.changed:
            self._faults.clear()
            self.closing.set()
            self.closing = threading.Event()

    def claim(self, owner: str = "prn:::accounts:/5f5f5f5f5f5f5f5f5f5f5f5f") -> None:
        """What a user does with the challenge."""
        with self.changed:
            self.device.owner = owner
            self.device.challenge = ""
            self.changed.notify_all()

    def expire_tokens(self) -> None:
        """Every session ends: the next request gets 401."""
        with self.changed:
            self._tokens.clear()

    def expire_urls(self) -> None:
        """Every signed URL that was given out ends: it answers 403."""
        with self.changed:
            self._signed.clear()

    @property
    def device(self) -> Device:
        """The device that registered last."""
        return list(self.devices.values())[-1]

    def step(self, rev: int) -> Step:
        """A step of the only device."""
        return self.steps[self.device.id][rev]

    def wait_for(self, condition: Callable[[HubSimulator], Any], *, timeout_s: float = 20.0, what: str = "") -> Any:
        """Waits until a condition over the hub holds and returns its value. Raises TimeoutError with what was seen."""
        deadline = time.monotonic() + timeout_s
        with self.changed:
            while True:
                with contextlib.suppress(KeyError, IndexError):
                    if value := condition(self):
                        return value
                left = deadline - time.monotonic()
                if left <= 0:
                    seen = [f"{r.method} {r.path}" for r in self.requests[-12:]]
                    reports = {rev: s.progress for steps in self.steps.values() for rev, s in steps.items()}
                    raise TimeoutError(f"{what or 'the condition'} did not come: last requests {seen}, steps {reports}")
                self.changed.wait(left)

    def wait_for_status(self, rev: int, *statuses: str, timeout_s: float = 20.0) -> dict[str, Any]:
        """Waits until a step has one of these statuses; returns its progress."""

        def reached(hub: HubSimulator) -> dict[str, Any] | None:
            progress = hub.step(rev).progress
            return progress if progress.get("status") in statuses else None

        found: dict[str, Any] = self.wait_for(reached, timeout_s=timeout_s, what=f"step {rev} as {statuses}")
        return found

    def counted(self, method: str, path: str) -> int:
        """How many requests had this method and a path that the expression finds."""
        return sum(1 for r in self.requests if r.method == method and re.search(path, r.path))

    # What the handler does ------------------------------------------------------------------------------------------
    def fault_for(self, method: str, path: str) -> Fault | None:
        """The fault for this request, counted."""
        with self.changed:
            return next((armed.fault for armed in self._faults if armed.hits(method, path)), None)

    def saw(self, request: Request) -> None:
        """Keeps a request for the test."""
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()

    def answer(self, request: Request) -> tuple[int, bytes]:
        """Status and body for a request, without any fault."""
        with self.changed:
            try:
                return self._route(request)
            finally:
                self.changed.notify_all()

    def _route(self, request: Request) -> tuple[int, bytes]:
        path = urllib.parse.urlsplit(request.path).path
        for method, expression, handler in _ROUTES:
            match = re.fullmatch(expression, path)
            if match and method == request.method:
                return handler(self, request, *match.groups())
        return _json(404, {"Error": "Resource not found"})

    def caller(self, request: Request) -> Device | None:
        """The device that a token belongs to."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        device = self.devices.get(self._tokens.get(token, "")) if scheme == "Bearer" else None
        return device if device and not device.gone else None

    def register(self, request: Request) -> tuple[int, bytes]:
        """POST /devices/"""
        number = next(self._numbers)
        device = Device(id=f"{number:024x}", secret=f"secret{number}", challenge="likely-creative-troll")
        token = request.headers.get("pantahub-devices-auto-token-v1")
        if token is not None:
            if token not in self.join_tokens:
                return _json(400, {"error": "REST-ERR-ID-1", "code": 400})
            device.owner, device.challenge = self.join_tokens[token], ""
        elif self.auto_claim:
            device.owner, device.challenge = "prn:::accounts:/5f5f5f5f5f5f5f5f5f5f5f5f", ""
        self.devices[device.id] = device
        self.steps.setdefault(device.id, {})
        return _json(200, device.wire(with_secret=True))

    def login(self, request: Request) -> tuple[int, bytes]:
        """POST /auth/login"""
        body = request.json()
        device = self.devices.get(str(body.get("username")).rpartition("/")[2])
        if device is None or device.gone or body.get("password") != device.secret:
            return _json(401, {"error": "REST-ERR-ID-2", "code": 401})
        token = f"token-{next(self._numbers)}-{device.id}"
        self._tokens[token] = device.id
        return _json(200, {"token": token})

    def get_device(self, request: Request, device_id: str) -> tuple[int, bytes]:
        """GET /devices/<id>"""
        device = self.caller(request)
        if device is None:
            return _UNAUTHORIZED
        return _json(200, device.wire(with_secret=False)) if device.id == device_id else _json(403, {})

    def get_user_meta(self, request: Request, _: str) -> tuple[int, bytes]:
        """GET /devices/<id>/user-meta"""
        device = self.caller(request)
        return _UNAUTHORIZED if device is None else _json(200, device.user_meta)

    def put_device_meta(self, request: Request, _: str) -> tuple[int, bytes]:
        """PUT /devices/<id>/device-meta"""
        device = self.caller(request)
        if device is None:
            return _UNAUTHORIZED
        device.device_meta = request.json()
        return _json(200, {"status": "ok"})

    def get_trails(self, request: Request) -> tuple[int, bytes]:
        """GET /trails/"""
        device = self.caller(request)
        if device is None:
            return _UNAUTHORIZED
        return _json(200, [{"id": device.id}] if self.steps.get(device.id) else [])

    def post_trail(self, request: Request) -> tuple[int, bytes]:
        """POST /trails/"""
        device = self.caller(request)
        if device is None:
            return _UNAUTHORIZED
        steps = self.steps.setdefault(device.id, {})
        if steps:
            return _json(409, {"error": "REST-ERR-ID-3", "code": 409})
        state = request.json()
        missing = [s for p, s in state.items() if p != "#spec" and not p.endswith(".json") and s not in self.objects]
        if missing:
            return _json(500, {"error": "REST-ERR-ID-4", "code": 500})
        steps[0] = Step(0, request.body.decode(), "Factory State (rev 0)", {"progress": 0, "status": "DONE"})
        return _json(200, {"id": device.id})

    def get_steps(self, request: Request, _: str) -> tuple[int, bytes]:
        """GET /trails/<id>/steps?progress.status={"$in":[...]}"""
        device = self.caller(request)
        if device is None:
            return _UNAUTHORIZED
        if self.steps_answer is not None:
            return 200, self.steps_answer.encode()
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(request.path).query)
        condition = json.loads(query["progress.status"][0])
        wanted = [s for _, s in sorted(self.steps[device.id].items()) if s.progress["status"] in condition["$in"]]
        return 200, f"[{','.join(_step_text(device, s) for s in wanted)}]".encode()

    def put_progress(self, request: Request, _: str, rev: str) -> tuple[int, bytes]:
        """PUT /trails/<id>/steps/<rev>/progress"""
        device = self.caller(request)
        if device is None:
            return _UNAUTHORIZED
        step = self.steps[device.id].get(int(rev))
        if step is None:
            return _json(400, {"error": "REST-ERR-ID-5", "code": 400})
        step.progress = request.json()
        step.reports.append(step.progress)
        return _json(200, step.progress)

    def post_object(self, request: Request) -> tuple[int, bytes]:
        """POST /objects/"""
        if self.caller(request) is None:
            return _UNAUTHORIZED
        sha = request.json()["sha256sum"]
        return _json(409 if sha in self.objects else 200, self._object_wire(request, sha, "PUT"))

    def get_object(self, request: Request, sha: str) -> tuple[int, bytes]:
        """GET /objects/<sha>"""
        if self.caller(request) is None:
            return _UNAUTHORIZED
        if sha not in self.objects:
            return _json(403, {"error": "REST-ERR-ID-6", "code": 403})
        return _json(200, self._object_wire(request, sha, "GET"))

    def _object_wire(self, request: Request, sha: str, method: str) -> dict[str, Any]:
        token = f"{next(self._numbers)}.{sha[:8]}"
        self._signed[token] = (method, sha)
        scheme = "https" if self.tls else "http"
        url = f"{scheme}://{request.headers.get('host')}/local-s3/{token}"
        size = self.size_lies.get(sha, str(len(self.objects.get(sha, b""))))
        urls = {"signed-geturl": url, "signed-puturl": url}
        return {"id": sha, "sha256sum": sha, "objectname": "o", "size": size, **urls}

    def get_blob(self, _: Request, token: str) -> tuple[int, bytes]:
        """GET /local-s3/<token>; ranges are the handler's"""
        method, sha = self._signed.get(token, ("", ""))
        return (200, self.objects[sha]) if method == "GET" and sha in self.objects else (403, b"")

    def put_blob(self, request: Request, token: str) -> tuple[int, bytes]:
        """PUT /local-s3/<token>"""
        method, sha = self._signed.get(token, ("", ""))
        if method != "PUT":
            return 403, b""
        if hashlib.sha256(request.body).hexdigest() != sha:
            return 400, b""
        self.objects[sha] = request.body
        return 200, b""

    def post_logs(self, request: Request) -> tuple[int, bytes]:
        """POST /logs/"""
        if self.caller(request) is None:
            return _UNAUTHORIZED
        body = request.json()
        self.logs.extend(body if isinstance(body, list) else [body])
        return _json(200, {"status": "ok"})


def _json(status: int, value: Any) -> tuple[int, bytes]:
    return status, json.dumps(value, separators=(",", ":")).encode()


def _step_text(device: Device, step: Step) -> str:
    """A step in canonical key order; the state is put in as text, so that it need not be JSON."""
    head = json.dumps({"commit-msg": step.commit_msg, "id": f"{device.id}-{step.rev}"}, separators=(",", ":"))
    progress = json.dumps(step.progress, separators=(",", ":"))
    return f'{head[:-1]},"progress":{progress},"rev":{step.rev},"state":{step.raw_state},"trail-id":"{device.id}"}}'


_UNAUTHORIZED = _json(401, {"Error": "Not Authorized"})
_ID = "([0-9a-f]{24})"
_ROUTES: tuple[tuple[str, str, Callable[..., tuple[int, bytes]]], ...] = (
    ("POST", "/devices/", HubSimulator.register),
    ("POST", "/auth/login", HubSimulator.login),
    ("GET", f"/devices/{_ID}", HubSimulator.get_device),
    ("GET", f"/devices/{_ID}/user-meta", HubSimulator.get_user_meta),
    ("PUT", f"/devices/{_ID}/device-meta", HubSimulator.put_device_meta),
    ("GET", "/trails/", HubSimulator.get_trails),
    ("POST", "/trails/", HubSimulator.post_trail),
    ("GET", f"/trails/{_ID}/steps", HubSimulator.get_steps),
    ("PUT", f"/trails/{_ID}/steps/([0-9]+)/progress", HubSimulator.put_progress),
    ("POST", "/objects/", HubSimulator.post_object),
    ("GET", "/objects/([0-9a-f]{64})", HubSimulator.get_object),
    ("GET", "/local-s3/(.+)", HubSimulator.get_blob),
    ("PUT", "/local-s3/(.+)", HubSimulator.put_blob),
    ("POST", "/logs/", HubSimulator.post_logs),
)
