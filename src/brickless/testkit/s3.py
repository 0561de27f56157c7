"""An S3 server of the test's own: versitygw (see `tools/go-tools`) over a private folder, on a free loopback port."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import brickless
from brickless.linux.process import Process, ToolMissingError, find, spawn

ACCESS_KEY = "test-access"
SECRET_KEY = "test-secret-of-the-test"  # noqa: S105 - a test's own server
#: What a hub's environment must hold.
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
_CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(brickless.__file__)))


def program() -> str | None:
    """Where the server is; None where nobody built it."""
    return find(os.path.join(_CHECKOUT, ".cache", "bin", "versitygw")) or find("versitygw")


class Server:
    """A running server; buckets are folders below `folder`."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.port = 0
        self._process: Process | None = None

    def start(self) -> Server:
        """Start it, on the port that it had before, and return when it accepts connections."""
        path = program()
        if path is None:
            raise ToolMissingError("there is no versitygw here: run tools/go-tools versitygw")
        if not self.port:
            with socket.create_server(("127.0.0.1", 0)) as sock:
                self.port = sock.getsockname()[1]
        data = os.path.join(self.folder, "data")
        os.makedirs(data, exist_ok=True)
        environment = {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
        argv = [path, "--port", f"127.0.0.1:{self.port}", "--quiet", "--keep-alive", "posix", data]
        with open(os.path.join(self.folder, "log"), "ab") as log:
            self._process = spawn(argv, purpose="the S3 server", stdout=log, stderr=log, env=environment)
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return self
            except ConnectionRefusedError:
                if self._process.poll() is not None:
                    raise self._process.failure() from None

    def kill(self) -> None:
        """SIGKILL: what it acknowledged stays."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def url(self, bucket: str) -> str:
        """Make the bucket and return its URL for the hub."""
        os.makedirs(self.path(bucket), exist_ok=True)
        return f"s3://{bucket}/hub?endpoint=http://127.0.0.1:{self.port}"

    def path(self, bucket: str) -> str:
        """The bucket's folder."""
        return os.path.join(self.folder, "data", bucket)


@contextmanager
def server() -> Iterator[Server]:
    """A server that runs in the block."""
    folder = tempfile.mkdtemp(prefix="brickless-s3-")
    made = Server(folder)
    try:
        yield made.start()
    finally:
        made.kill()
        shutil.rmtree(folder)
