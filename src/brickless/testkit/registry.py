"""A real registry (Debian's docker-registry) on a free loopback port, for tests and the demo."""

from __future__ import annotations

import re
import tempfile
import threading
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import IO

from brickless.linux import process
from brickless.oci.auth import Credentials
from brickless.oci.reference import Reference
from brickless.oci.registry import Access, RegistryClient
from brickless.oci.sources import push_layout
from brickless.store.objects import ObjectStore

USER, PASSWORD = "brick", "layer"
# bcrypt of PASSWORD: docker-registry takes no other kind of hash.
HTPASSWD = "brick:$2b$04$brickless.brickless.be0kh7Ct6NsxnXZihkEg2sZRPnh4KiePe"
READY = re.compile(rb"listening on (127\.0\.0\.1:\d+)")


class Registry:
    """A context manager: the registry answers when it is entered, and is gone with its data when it is left.

    `address` is `127.0.0.1:PORT`. With `password`, it wants `USER` and `PASSWORD`. `data` keeps the images elsewhere.
    """

    def __init__(self, *, password: bool = False, data: Path | None = None) -> None:
        self.password = password
        self.address = ""
        self.log: deque[str] = deque(maxlen=200)
        self._data = data
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: process.Process | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Registry:
        tool = process.require("docker-registry", "docker-registry")
        self._folder = tempfile.TemporaryDirectory(prefix="brickless-registry-")
        folder = Path(self._folder.name)
        config = folder / "config.yml"
        config.write_text(self._config(folder))
        self._process = process.spawn(
            [tool, "serve", str(config)],
            purpose="run a registry",
            stdout=process.PIPE,
            stderr=process.STDOUT,
            cwd=str(folder),
            env={"OTEL_TRACES_EXPORTER": "none"},
        )
        if self._process.stdout is None:
            raise process.ProcessError("the registry's output is not readable")
        self.address = self._wait_until_ready(self._process.stdout)
        # Its pipe must not fill up while it runs.
        self._reader = threading.Thread(target=self._keep, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.stop()
            if self._reader is not None:
                self._reader.join(10)
            self._process.__exit__()
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def access(self) -> Access:
        """How to visit it."""
        return Access(credentials=Credentials(USER, PASSWORD) if self.password else None)

    def push(self, layout: Path, name: str) -> str:
        """Upload an OCI layout as `name:tag`; the full reference to pull it by."""
        reference = Reference.parse(f"{self.address}/{name}")
        with (
            tempfile.TemporaryDirectory() as cache,
            RegistryClient(reference, ObjectStore(cache), access=self.access) as client,
        ):
            push_layout(layout, reference, client)
        return str(reference)

    def _config(self, folder: Path) -> str:
        data = self._data or folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        text = f"""version: 0.1
log: {{level: info, accesslog: {{disabled: false}}}}
storage: {{filesystem: {{rootdirectory: "{data}"}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:0", secret: brickless}}
"""
        if self.password:
            (folder / "htpasswd").write_text(HTPASSWD + "\n")
            text += f'auth: {{htpasswd: {{realm: brickless, path: "{folder}/htpasswd"}}}}\n'
        return text

    def _wait_until_ready(self, output: IO[bytes]) -> str:
        """Read its log until it says where it listens; its end before that is an error with the log."""
        for line in output:
            self.log.append(line.decode("utf-8", "replace").rstrip())
            if found := READY.search(line):
                return found.group(1).decode()
        raise process.ProcessError("the registry did not start:\n" + "\n".join(self.log))

    def _keep(self, output: IO[bytes]) -> None:
        for line in output:
            self.log.append(line.decode("utf-8", "replace").rstrip())
