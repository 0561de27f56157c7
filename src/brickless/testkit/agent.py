"""A device without a kernel: storage in a folder, the real agent as a process, a supervisor that does as it is told.

For tests of everything between the hub and the trial. The supervisor here runs nothing: it writes the progress that a
real one would, from a script, and may be absent or refuse.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brickless.core.progress import Message, Progress, Status
from brickless.linux.process import Process, spawn
from brickless.store.trails import Storage
from brickless.testkit.hub_simulator import HubSimulator

FACTORY_STATE: Mapping[str, Any] = {
    "#spec": "pantavisor-service-system@1",
    "web/run.json": {
        "#spec": "service-manifest-run@1",
        "config": "lxc.container.conf",
        "name": "web",
        "root-volume": "root.squashfs",
        "type": "lxc",
    },
}
SUCCESS = (
    Progress.of(Status.INPROGRESS, Message.TRANSITIONING),
    Progress.of(Status.TESTING, Message.TESTING_NONREBOOT),
    Progress.of(Status.DONE, Message.DONE),
)


def state_of(hub: HubSimulator, root: bytes, **files: bytes) -> dict[str, Any]:
    """A good state with one container, its objects put into the hub. `files` are more files of that container."""
    state = dict(FACTORY_STATE)
    state["web/lxc.container.conf"] = hub.add_object(b"lxc.uts.name = web\n")
    state["web/root.squashfs"] = hub.add_object(root)
    for name, data in files.items():
        state[f"web/{name}"] = hub.add_object(data)
    return state


class ScriptedSupervisor:
    """Answers on `<R>/supervisor` and plays `script` for each revision that it is to try."""

    def __init__(self, storage: Storage, run: Path) -> None:
        self.script: tuple[Progress, ...] = SUCCESS
        #: When set, every `try` is refused with this text.
        self.refusal = ""
        self.tried: list[str] = []
        self.reachable: list[bool] = []
        #: Set to hold a trial after its first progress.
        self.hold = threading.Event()
        self.hold.set()
        self._storage = storage
        self._path = run / "supervisor"
        self._socket: socket.socket | None = None
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Listens."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(self._path))
        self._socket.listen()
        self._spawn(self._serve, self._socket)

    def stop(self) -> None:
        """Goes away as a crash would."""
        self.hold.set()
        if self._socket is not None:
            self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            self._socket = None
        for thread in self._threads:
            thread.join(10)
        self._threads.clear()

    def _spawn(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                line = connection.makefile("rb").readline(65536)
                connection.sendall(json.dumps(self._answer(json.loads(line))).encode() + b"\n")

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        op = question["op"]
        if op == "hub":
            self.reachable.append(question["reachable"])
        elif op == "try":
            if self.refusal:
                return {"ok": False, "error": self.refusal}
            self.tried.append(question["rev"])
            self._spawn(self._try, question["rev"])
        else:
            return {
                "ok": True,
                "rev": self._storage.current(),
                "trying": None,
                "goal": "ACHIEVED",
                "status": "READY",
                "containers": [],
            }
        return {"ok": True}

    def _try(self, rev: str) -> None:
        for progress in self.script:
            if progress.status is Status.DONE:
                self._storage.set_current(rev)
                self._storage.mark_done(rev)
            self._storage.write_progress(rev, progress.to_json())
            self.hold.wait()


class SimulatedDevice:
    """Storage with the factory revision below `folder`, a scripted supervisor, and the agent as a process."""

    def __init__(
        self,
        folder: Path,
        hub: HubSimulator | None = None,
        *,
        url: str = "",
        supervisor: type[ScriptedSupervisor] | None = None,
        **settings: str,
    ) -> None:
        self.folder = folder
        self._hub = hub
        #: Where the agent finds its hub: the simulated one unless another address is given.
        self.url = url or (hub.url if hub else "")
        self.run = folder / "run"
        self.storage = Storage(str(folder / "storage"))
        self.settings = settings
        self.supervisor = (supervisor or ScriptedSupervisor)(self.storage, self.run)
        self._process: Process | None = None
        self._log = folder / "agent.log"
        self._log_start = 0
        self._make_factory()
        self.supervisor.start()

    def _make_factory(self) -> None:
        from brickless.core.state import parse_state

        self.storage.prepare()
        state = dict(FACTORY_STATE)
        state["web/lxc.container.conf"] = self.storage.objects.add([b"lxc.uts.name = web\n"])
        state["web/root.squashfs"] = self.storage.objects.add([b"factory" * 1000])
        raw = json.dumps(state, sort_keys=True, separators=(",", ":")).encode()
        self.storage.install("0", parse_state(raw))
        self.storage.write_progress("0", Progress.of(Status.DONE, Message.FACTORY).to_json())
        self.storage.mark_done("0")
        self.storage.set_current("0")

    def __enter__(self) -> SimulatedDevice:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.supervisor.stop()

    @property
    def hub(self) -> HubSimulator:
        """The simulated hub of this device."""
        if self._hub is None:
            raise RuntimeError("this device has another hub")
        return self._hub

    @property
    def environment(self) -> dict[str, str]:
        """What the agent is configured with: everything below `folder`, quick timers, the clock left alone."""
        address = urllib.parse.urlsplit(self.url)
        return {
            "PV_STORAGE_MNTPOINT": self.storage.root,
            "PV_SYSTEM_RUNDIR": str(self.run),
            "PV_CACHE_USRMETADIR": f"{self.storage.root}/cache/usrmeta",
            "PV_CACHE_DEVMETADIR": f"{self.storage.root}/cache/devmeta",
            "PV_LOG_DIR": f"{self.storage.root}/logs",
            "PV_SYSTEM_INIT_MODE": "appengine",
            "PH_CREDS_SCHEME": address.scheme,
            "PH_CREDS_HOST": str(address.hostname),
            "PH_CREDS_PORT": str(address.port),
            "PH_UPDATER_INTERVAL": "1",
            "PH_METADATA_USRMETA_INTERVAL": "1",
            "PH_METADATA_DEVMETA_INTERVAL": "1",
            "PH_UPDATER_BACKOFF_MAX": "1",
            "PH_LIBEVENT_HTTP_TIMEOUT": "2",
            "PV_LOG_PUSH": "0",
            **self.settings,
        }

    def start(self, *prefix: str, **settings: str) -> None:
        """Starts the agent; `prefix` is a command that runs it, `settings` are for this run alone."""
        self.run.mkdir(parents=True, exist_ok=True)
        argv = [*prefix, sys.executable, "-B", "-m", "brickless.device.link", "--config", str(self.folder / "none")]
        source = str(Path(__file__).parents[2])
        self._log_start = len(self.log)
        with self._log.open("ab") as log:
            self._process = spawn(
                argv,
                purpose="run the agent",
                stdout=log,
                stderr=log,
                env={**self.environment, **settings, "PYTHONPATH": source},
                start_new_session=True,
            )

    def hurry(self) -> None:
        """Ends every pause of the agent."""
        ready = "the hub is" in self.log[self._log_start :]  # before that, the signal would end the process
        if ready and self._process is not None and self._process.poll() is None:
            self._process.signal(signal.SIGUSR1)

    def ends(self, rev: int, *statuses: str, timeout_s: float = 20.0) -> dict[str, Any]:
        """Hurries the agent until a step has a final status, or one of these; returns its progress."""
        wanted = statuses or ("DONE", "UPDATED", "WONTGO", "ERROR")
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return self.hub.wait_for_status(rev, *wanted, timeout_s=0.15)
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise
                self.hurry()

    def kill(self) -> None:
        """Ends the agent as a power cut would end it."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def stop(self) -> int:
        """Asks the agent to end; returns its exit status."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        return process.stop()

    @property
    def alive(self) -> bool:
        """Whether the agent's process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The agent's process id."""
        if self._process is None:
            raise RuntimeError("the agent does not run")
        return self._process.pid

    @property
    def log(self) -> str:
        """What the agent has said so far."""
        return self._log.read_text() if self._log.exists() else ""

    def progress(self, rev: int | str) -> dict[str, Any]:
        """A revision's progress on disk."""
        data = self.storage.progress(str(rev))
        found: dict[str, Any] = json.loads(data) if data else {}
        return found

    def snapshot(self, rev: str = "0") -> dict[str, bytes]:
        """Every file of a revision with its bytes, to show that nothing touched it; what the runtime keeps, too."""
        root = Path(self.storage.revision_dir(rev))
        paths = (path for path in sorted(root.rglob("*")) if path.is_file())
        # The agent marks here which report the hub has acknowledged, in its own time.
        return {str(p.relative_to(root)): p.read_bytes() for p in paths if ".reported" not in f".{p.name}"}
