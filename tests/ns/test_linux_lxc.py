"""Real containers: what their monitors report, how they end, and that they outlive whoever started them."""

from __future__ import annotations

import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from brickless.linux import cgroup, lxc

pytestmark = pytest.mark.needs("root", "lxc")
DEADLINE_S = 20


class Lab:
    """One lxc path with one container made of busybox."""

    def __init__(self, folder: Path, script: str) -> None:
        self.folder = folder
        self.name = f"t{os.getpid()}"
        root = folder / "rootfs"
        for part in ("bin", "dev", "proc", "sys", "tmp", "run"):
            (root / part).mkdir(parents=True)
        shutil.copy("/usr/bin/busybox", root / "bin" / "busybox")
        (root / "bin" / "sh").symlink_to("busybox")
        (root / "init").write_text(f"#!/bin/sh\n{script}\n")
        (root / "init").chmod(0o755)
        self.lxc_path = str(folder / "lxc")
        self.fifo = lxc.Fifo(self.lxc_path, run_dir="/run/lxc")
        self.pid = 0
        self.unread: list[lxc.Event] = []

    def start(self) -> int:
        own = [
            lxc.Line("lxc.rootfs.path", f"dir:{self.folder}/rootfs"),
            lxc.Line("lxc.init.cmd", "/init"),
            lxc.Line("lxc.namespace.keep", "user net ipc"),
        ]
        add = lxc.Injected(
            name=self.name,
            hostname=self.name,
            console_log=str(self.folder / "console.log"),
            environment=("PV_GROUP=app",),
            unified=cgroup.layout() == "unified",
        )
        config = self.folder / "config"
        config.write_text(lxc.render(lxc.finalize(own, add)))
        log = str(self.folder / "lxc.log")
        stdio = os.open(self.folder / "stdio", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self.pid = lxc.start(
                self.name, str(config), self.lxc_path, log=log, level="WARN", stdio=stdio, cwd=str(self.folder)
            )
        finally:
            os.close(stdio)
        return self.pid

    def wait_for(self, kind: int, value: int | None = None) -> lxc.Event:
        deadline = time.monotonic() + DEADLINE_S
        poll = select.poll()
        poll.register(self.fifo.fileno(), select.POLLIN)
        while time.monotonic() < deadline:
            while self.unread:  # one read may bring several: what comes after the one that is waited for is kept
                event = self.unread.pop(0)
                if event.name == self.name and event.kind == kind and value in (None, event.value):
                    return event
            poll.poll(1000)
            self.unread += self.fifo.read()
        pytest.fail(f"no such event: {kind} {value}; {lxc.tail(str(self.folder / 'lxc.log'))}")

    def reap(self) -> None:
        os.waitpid(self.pid, 0)
        self.fifo.close()


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    made = Lab(tmp_path, request.param)
    yield made
    os.unlink(made.fifo.path)


@pytest.mark.parametrize("lab", ["echo $PV_GROUP; exit 7"], indirect=True)
def test_the_exit_status_of_the_init_is_reported_whole(lab: Lab) -> None:
    lab.start()
    lab.wait_for(lxc.Kind.STATE, lxc.State.RUNNING)
    event = lab.wait_for(lxc.Kind.EXIT_STATUS)
    assert lxc.describe_exit(event.value) == "exit status 7"
    lab.reap()
    assert (lab.folder / "console.log").read_text().split() == ["app"]


@pytest.mark.parametrize("lab", ["trap 'exit 0' PWR; while :; do /bin/busybox sleep 1; done"], indirect=True)
def test_a_container_that_handles_its_signal_halts(lab: Lab) -> None:
    lab.start()
    lab.wait_for(lxc.Kind.STATE, lxc.State.RUNNING)
    deadline = time.monotonic() + DEADLINE_S
    while (init := lxc.init_pid(lab.pid)) is None or not lxc.catches(init, signal.SIGPWR):
        assert time.monotonic() < deadline
        select.select([], [], [], 0.02)
    assert lxc.ask_to_halt(init, signal.SIGPWR)
    assert lxc.describe_exit(lab.wait_for(lxc.Kind.EXIT_STATUS).value) == "exit status 0"
    lab.reap()


@pytest.mark.parametrize("lab", ["exec /bin/busybox sleep 1000"], indirect=True)
def test_a_container_that_handles_nothing_is_killed(lab: Lab) -> None:
    lab.start()
    lab.wait_for(lxc.Kind.STATE, lxc.State.RUNNING)
    init = lxc.init_pid(lab.pid)
    assert init is not None
    assert cgroup.container_of(init) == lab.name
    assert not lxc.ask_to_halt(init, signal.SIGPWR)
    lxc.kill(init)
    assert lxc.describe_exit(lab.wait_for(lxc.Kind.EXIT_STATUS).value) == "signal SIGKILL"
    lab.reap()
