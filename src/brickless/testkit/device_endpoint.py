"""A device's own repository endpoint on port 12368 (device.md 6.5), as clients of the field know it: no login, no TLS.

Keeps one state, its objects and the steps that were posted. It can also play a server that lets its whole state be put.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from brickless.core import canonical

PORT = 12368
BASE = "/cgi-bin/pvr"


class DeviceEndpoint(ThreadingHTTPServer):
    """A context manager: it answers while entered, at an address of loopback that is this process's own.

    The port is a fixed one, so that two tests at a time must differ in their addresses.
    """

    daemon_threads = True

    def __init__(self, state: dict[str, Any], objects: dict[str, bytes]) -> None:
        """Listen. Raises OSError when the port is taken there."""
        number = os.getpid()
        address = f"127.{64 + number // 65536 % 64}.{number // 256 % 256}.{number % 254 + 1}"
        super().__init__((address, PORT), _Handler)
        self.address = address
        self.state = state
        self.objects = dict(objects)
        #: What was posted: the whole body of each step.
        self.steps: list[dict[str, Any]] = []
        #: Requests, as `METHOD path`.
        self.seen: list[str] = []
        #: What a step is refused with, when it is (the device's own words).
        self.refusal = ""
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))

    def __enter__(self) -> DeviceEndpoint:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    @property
    def url(self) -> str:
        """Where the repository is."""
        return f"http://{self.address}:{PORT}{BASE}"


class _Handler(BaseHTTPRequestHandler):
    server: DeviceEndpoint
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _answer(self, status: int, value: Any, **headers: str) -> None:
        body = value if isinstance(value, bytes) else canonical.dumps(value)
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def handle_any(self) -> None:
        """Every request, by its method and what follows the base."""
        body = self._body()
        self.server.seen.append(f"{self.command} {self.path}")
        if "Authorization" in self.headers:
            self._answer(400, {"error": "a token was sent to a device"})
            return
        path = self.path.removeprefix(BASE)
        name = path.rpartition("/")[2]
        match (self.command, path.partition(name)[0] if name else path):
            case ("GET", "/") if name == ".pvrremote":
                self._answer(200, self._remote())
            case ("GET", "/step/") if name == "json":
                self._answer(200, self.server.state)
            case ("PUT", "/step/") if name == "json":
                self.server.state = json.loads(body)
                self._answer(200, self.server.state)
            case ("POST", "/objects/"):
                self._register(json.loads(body))
            case ("GET", "/objects/") if name in self.server.objects:
                self._answer(200, self._object(name), Pantahub_Object_Type="object")
            case ("GET", "/raw/") if name in self.server.objects:
                self._answer(200, self.server.objects[name])
            case ("PUT", "/raw/"):
                self._store(name, body)
            case ("POST", "/") if name == "steps":
                self._step(json.loads(body))
            case _:
                self._answer(404, {"error": "no such thing"})

    do_GET = do_POST = do_PUT = handle_any  # noqa: N815 - the names that http.server looks for

    def _remote(self) -> dict[str, Any]:
        url = self.server.url
        return {
            "pvr-spec": "pvr-pantahub-1",
            "json-get-url": f"{url}/step/json",
            "json-key": "state",
            "objects-endpoint": f"{url}/objects",
            "post-url": f"{url}/steps",
            "post-fields": ["commit-msg"],
            "post-fields-opt": ["rev"],
        }

    def _object(self, sha: str) -> dict[str, Any]:
        size = len(self.server.objects.get(sha, b""))
        raw = f"{self.server.url}/raw/{sha}"
        return {"id": sha, "sha256sum": sha, "size": str(size), "signed-geturl": raw, "signed-puturl": raw}

    def _register(self, document: dict[str, Any]) -> None:
        sha = document["sha256sum"]
        self._answer(409 if sha in self.server.objects else 200, document | self._object(sha))

    def _store(self, sha: str, body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != sha:
            self._answer(400, {"error": "these are not the bytes of that name"})
            return
        self.server.objects[sha] = body
        self._answer(200, b"")

    def _step(self, document: dict[str, Any]) -> None:
        if self.server.refusal:
            self._answer(400, {"Error": self.server.refusal})
            return
        self.server.steps.append(document)
        self.server.state = document["state"]
        asked = document.get("rev")
        local = asked if isinstance(asked, str) else f"locals/pvr-{len(self.server.steps)}"
        sha = hashlib.sha256(canonical.dumps(document["state"])).hexdigest()
        self._answer(200, {"rev": -1, "revlocal": local, "state-sha": sha, "trail-id": "device"})
