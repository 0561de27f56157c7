"""The control socket without a kernel: a real supervisor in a fake world, requests as a client sends them."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from brickless.core import canonical
from brickless.core.canonical import loads
from brickless.core.errors import BricklessError
from brickless.core.state import parse_state
from brickless.core.update_types import Policy
from brickless.device.config import Sources
from brickless.device.control import session
from brickless.device.control.caller import Caller
from brickless.device.control.places import Place
from brickless.device.link.supervisor import Supervisor
from brickless.testkit.fake_linux import FakeDevice, World

HOST = Caller("", True)
GROUPS = [
    {"name": "root", "restart_policy": "system", "timeout": 30},
    {"name": "app", "restart_policy": "container", "timeout": 30},
]


def manifest(name: str, **more: object) -> dict[str, object]:
    """A container's run.json."""
    return {"#spec": "service-manifest-run@1", "name": name, "config": "lxc.container.conf", "group": "app", **more}


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The text of an error."""
        return str(self.value["Error"])


class DirectSupervisor(Supervisor):
    """Questions to a supervisor in this process, over the same texts; None: it is being started again."""

    __slots__ = ("device",)

    def __init__(self, run: str, device: FakeDevice | None = None) -> None:
        super().__init__(run)
        self.device = device

    def _exchange(self, line: bytes) -> bytes:
        if self.device is None:
            raise ConnectionRefusedError(111, "Connection refused")
        question = loads(line)
        if not isinstance(question, dict):
            raise TypeError("a question is an object")
        try:
            return json.dumps(self.device.supervisor.request(question), default=str).encode() + b"\n"
        except (BricklessError, OSError) as error:
            return json.dumps({"ok": False, "error": str(error)}).encode() + b"\n"


class ControlLab:
    """A device with two containers, `net` (restart policy system) and `web`, and requests to its control socket."""

    def __init__(self, root: str, **containers: Mapping[str, object]) -> None:
        self.world = World(root)
        self.storage = self.world.storage
        self.config_sha = self.storage.objects.add([b"lxc.uts.name = x\n"])
        self.containers = dict(containers) or {"net": {"group": "root"}, "web": {}}
        self.storage.install("0", parse_state(self.state()))
        self.device = FakeDevice(self.world, Policy(commit_delay_s=5))
        self.device.power_on()
        self.device.run_for(3)
        environ = {
            "PV_CACHE_USRMETADIR": f"{self.storage.root}/cache/usrmeta",
            "PV_CACHE_DEVMETADIR": f"{self.storage.root}/cache/devmeta",
            "PV_STORAGE_MNTPOINT": self.storage.root,
        }
        self.environ: dict[str, str] = environ
        self.private = os.path.join(root, "private")
        self.run_dir = os.path.join(root, "pv")  # outlives a reboot here, or the tests' clients would lose their socket
        self.place = Place(self.storage.root, self.run_dir, self.private, Sources(environ, file="/nonexistent"))
        self.supervisor = DirectSupervisor(self.place.run, self.device)
        self.then: list[Any] = []

    def state(self, **more: object) -> bytes:
        """A state with the containers; `more` are further entries, or replace one."""
        state: dict[str, Any] = {
            "#spec": "pantavisor-service-system@1",
            "device.json": {"groups": GROUPS},
        }
        for name, given in self.containers.items():
            state[f"{name}/run.json"] = manifest(name, **given)
            state[f"{name}/lxc.container.conf"] = self.config_sha
        state.update(more)
        return canonical.dumps({key: value for key, value in state.items() if value is not None})

    def ask(
        self, method: str, path: str, body: bytes | object = b"", *, caller: Caller = HOST, headers: str = ""
    ) -> Answer:
        """One request over a socket, served as in the child of the listener."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n{headers}\r\n"
        return self.raw(head.encode() + content, caller=caller)

    def raw(self, data: bytes, *, caller: Caller = HOST) -> Answer:
        """Bytes as they are."""
        ours, theirs = socket.socketpair()
        answers: list[Answer] = []
        with ours, theirs:
            ours.settimeout(30)
            client = threading.Thread(target=lambda: answers.append(_exchange(ours, data)), daemon=True)
            client.start()
            session.serve(theirs, self.place, lambda _seconds: None, _Known(caller, self.supervisor))
            theirs.close()
            client.join(30)
        return answers[0]


class _Known(NamedTuple):
    """Stands in for the kernel: says who the caller is, and how the supervisor is reached."""

    caller: Caller
    supervisor: Supervisor

    def identify(self, _sock: socket.socket, _place: Place) -> tuple[Caller, Supervisor]:
        """See `session.Kernel`."""
        return self.caller, self.supervisor


def _exchange(sock: socket.socket, data: bytes) -> Answer:
    sender = threading.Thread(target=_send, args=(sock, data), daemon=True)
    sender.start()
    answer = _receive(sock)
    sender.join(30)
    return answer


def _send(sock: socket.socket, data: bytes) -> None:
    try:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        return  # it was answered before all was sent


def _receive(sock: socket.socket) -> Answer:
    data = b""
    while piece := sock.recv(65536):
        data += piece
    if not data:
        return Answer(0, {}, b"")
    while data.startswith(b"HTTP/1.1 100 "):
        data = data.partition(b"\r\n\r\n")[2]
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return Answer(int(lines[0].split()[1]), headers, body)
