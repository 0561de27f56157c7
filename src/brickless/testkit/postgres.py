"""A PostgreSQL of the test's own: Debian's programs, a new cluster in a private folder, a socket there and no port."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from brickless.linux.process import ToolMissingError, run

_ADMIN = "postgres"


def programs() -> str | None:
    """The folder of the newest installed server's programs; None without one."""
    found = glob.glob("/usr/lib/postgresql/*/bin/postgres")
    return os.path.dirname(max(found, key=lambda path: int(path.split("/")[4]))) if found else None


class Cluster:
    """A running server. `url(name)` makes a database and tells where it is."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        found = programs()
        if found is None:
            raise ToolMissingError("PostgreSQL is not installed: install the Debian package postgresql")
        self._programs = found

    def _run(self, program: str, *arguments: str, purpose: str) -> None:
        # The server refuses to run as root: then it runs as the user that Debian's package made.
        prefix: Sequence[str] = ["runuser", "-u", _ADMIN, "--"] if os.geteuid() == 0 else []
        path = os.path.join(self._programs, program)
        run([*prefix, path, *arguments], purpose=purpose, timeout_s=120, cwd=self.folder)

    def start(self) -> None:
        """Make the cluster and start it; returns when it accepts connections."""
        if os.geteuid() == 0:
            entry = pwd.getpwnam(_ADMIN)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        data = os.path.join(self.folder, "data")
        self._run("initdb", "-D", data, "-U", "hub", "--auth=trust", "-E", "UTF8", "--no-locale", purpose="initdb")
        options = f"-k {self.folder} -c listen_addresses= -c max_connections=80"
        log = os.path.join(self.folder, "log")
        self._run("pg_ctl", "-D", data, "-w", "-l", log, "-o", options, "start", purpose="starting PostgreSQL")

    def stop(self) -> None:
        """End it at once: nothing of it is kept."""
        data = os.path.join(self.folder, "data")
        self._run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop", purpose="stopping PostgreSQL")

    def sever(self, name: str) -> None:
        """End every connection to the database `name`, as a failover does."""
        statement = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"  # noqa: S608 the name is ours
        self._run("psql", "-h", self.folder, "-U", "hub", "-d", "postgres", "-c", statement, purpose="severing")

    def drop(self, name: str) -> None:
        """Take the database away from under everybody who uses it."""
        self._run("dropdb", "-f", "-h", self.folder, "-U", "hub", name, purpose="dropping a database")

    def url(self, name: str) -> str:
        """Make the database and return its URL for the hub."""
        self._run("createdb", "-h", self.folder, "-U", "hub", name, purpose="making a database")
        return f"postgresql+asyncpg://hub@/{name}?host={self.folder}"


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A server that runs in the block."""
    # A socket's path has at most 107 bytes, so the folder lies as high as can be.
    folder = tempfile.mkdtemp(prefix="brickless-pg-", dir="/tmp")
    made = Cluster(folder)
    try:
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder)
