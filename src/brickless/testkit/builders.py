"""Other people's image tools, for real: buildah builds, podman serves what was built; both in a folder of their own.

Images are built without a daemon and without a network: `RUN` in a chroot, bases from OCI layouts. As root, since that
is how the owners, devices and attributes of an image come to be.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from brickless.linux import process

BUILD_TIMEOUT_S = 300.0
START_TIMEOUT_S = 60.0


class Buildah:
    """Images and containers below one folder; nothing of the machine's own store is seen or touched."""

    def __init__(self, folder: Path) -> None:
        """Make the folder ready. The driver copies layers whole: it needs no overlay mount."""
        # Podman refuses a longer run root than 50 characters, which a test's folder may have.
        run = tempfile.mkdtemp(prefix="buildah-")
        weakref.finalize(self, shutil.rmtree, run, ignore_errors=True)
        self._store = ["--root", str(folder / "root"), "--runroot", run, "--storage-driver", "vfs"]
        (folder / "tmp").mkdir(parents=True)
        self.folder = folder
        self._env = {"BUILDAH_ISOLATION": "chroot", "TMPDIR": str(folder / "tmp"), "HOME": str(folder)}
        # Nothing is pulled, so no policy of the machine may stand in the way, nor a registry be asked.
        policy = folder / "policy.json"
        policy.write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
        (folder / ".config/containers").mkdir(parents=True)
        (folder / ".config/containers/policy.json").write_text(policy.read_text())

    @property
    def environment(self) -> dict[str, str]:
        """What the tools need around them, for whoever starts what `running` says."""
        return dict(self._env)

    def build(self, context: Path, name: str, *options: str) -> str:
        """Build `context/Containerfile`, one layer an instruction unless `options` say otherwise; the image's id."""
        argv = ["buildah", *self._store, "build", "--layers", "--pull-never", "--cap-add", "MKNOD", "--quiet"]
        return self._run([*argv, *options, "-t", name, str(context)], "build an image").strip()

    def pull(self, source: str, name: str) -> None:
        """Take an image in, from `oci:FOLDER:TAG`, under a name."""
        policy = ["--signature-policy", str(self.folder / "policy.json")]
        found = self._run(["buildah", *self._store, "pull", "--quiet", *policy, source], "take an image in")
        self._run(["buildah", *self._store, "tag", found.strip(), name], "name an image")

    def inspect(self, image: str) -> str:
        """What buildah knows of an image, as JSON."""
        return self._run(["buildah", *self._store, "inspect", "--type", "image", image], "look at an image")

    def create(self, image: str) -> str:
        """A container of an image; its name."""
        return self._run(["buildah", *self._store, "from", "--pull-never", image], "make a container").strip()

    def running(self, container: str, command: Sequence[str], *, user: str) -> list[str]:
        """The command line that runs a command in a container, in a chroot and the machine's own network."""
        return ["buildah", *self._store, "run", "--user", user, container, "--", *command]

    def run(self, container: str, command: Sequence[str], *, user: str) -> str:
        """What a command in a container says. Raises `ProcessError` when it fails."""
        return self._run(self.running(container, command, user=user), "run in a container")

    def push(self, name: str, target: str, *flags: str) -> None:
        """Copy an image out, as `oci:FOLDER:TAG`, `oci-archive:FILE:TAG` or `docker-archive:FILE:NAME`."""
        policy = ["--signature-policy", str(self.folder / "policy.json")]
        self._run(["buildah", *self._store, "push", "--quiet", *policy, *flags, name, target], "copy an image")

    @contextmanager
    def served(self) -> Iterator[str]:
        """Podman's daemon over these images, on a unix socket: the address as DOCKER_HOST has it."""
        path = self.folder / "podman.sock"
        tool = process.require("podman", "podman")
        argv = [
            tool,
            *self._store,
            "--cgroup-manager",
            "cgroupfs",
            "system",
            "service",
            "--time",
            "0",
            f"unix://{path}",
        ]
        with process.spawn(argv, purpose="run podman", env=self._env) as server:
            _wait_until_it_listens(server, path)
            yield f"unix://{path}"

    def _run(self, argv: list[str], purpose: str) -> str:
        done = process.run(argv, purpose=purpose, timeout_s=BUILD_TIMEOUT_S, env=self._env)
        return done.stdout.decode()


def _wait_until_it_listens(server: process.Process, path: Path) -> None:
    """Return when the socket takes a connection. Raises `ProcessError` when the program ends first, or is too slow."""
    end_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end_s:
        with socket.socket(socket.AF_UNIX) as knock, suppress(FileNotFoundError, ConnectionRefusedError):
            knock.connect(str(path))
            return
        with suppress(process.ProcessTimeoutError):
            server.wait(0.05)
            raise server.failure()
    raise process.ProcessTimeoutError(f"podman did not listen on {path} within {START_TIMEOUT_S:g} s")
