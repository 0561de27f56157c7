"""Real containers at the control socket: the kernel says who they are, whatever they try."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from brickless.linux import cgroup, lxc
from brickless.testkit.control_device import Device

pytestmark = pytest.mark.needs("root", "lxc")
DEADLINE_S = 60
REFUSED = "Request not sent from a mgmt platform"
ASK = "curl -s -m 20 --unix-socket /pantavisor/pv-ctrl"
SCRIPT = f"""
cd /out
{ASK} http://localhost/containers >containers
{ASK} -o signal -w '%{{http_code}}' -d '{{"type":"ready","payload":""}}' http://localhost/signal >signal.status
setpriv --reuid=65534 --clear-groups {ASK} http://localhost/containers >unprivileged
unshare --pid --fork {ASK} http://localhost/containers >other-pid-namespace
mkdir /tmp/group && mount -t cgroup2 none /tmp/group
mkdir /tmp/group/lxc.payload.manager && echo $$ >/tmp/group/lxc.payload.manager/cgroup.procs
{ASK} http://localhost/containers >own-group
for procs in /tmp/group/../cgroup.procs /sys/fs/cgroup/../cgroup.procs /proc/1/root/sys/fs/cgroup/cgroup.procs; do
    echo $$ >$procs
done 2>/dev/null
{ASK} -H 'X-Container: manager' http://localhost/containers >escaped
touch done
exec sleep 1000
"""


class Lab:
    """The control socket in a process, and one container of the host's own programs."""

    def __init__(self, folder: Path, roles: list[str]) -> None:
        self.folder = folder
        self.name = f"c{os.getpid()}"
        containers = {self.name: {"roles": roles, "status_goal": "READY"}, "manager": {"roles": ["mgmt"]}}
        self.device = Device(folder / "device", env={"CONTAINERS": json.dumps(containers)})
        self.out = folder / "out"
        self.out.mkdir()
        self.fifo = lxc.Fifo(str(folder / "lxc"), run_dir="/run/lxc")
        self.pid = self._start()

    def _start(self) -> int:
        root = self.folder / "rootfs"
        for part in ("usr", "dev", "proc", "sys", "tmp", "run", "etc", "out", "pantavisor"):
            (root / part).mkdir(parents=True)
        for link in ("bin", "lib", "lib64", "sbin"):
            (root / link).symlink_to(f"usr/{link}")
        (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
        (root / "init").write_text(f"#!/bin/sh\n{SCRIPT}")
        (root / "init").chmod(0o755)
        own = [
            lxc.Line("lxc.rootfs.path", f"dir:{root}"),
            lxc.Line("lxc.init.cmd", "/init"),
            lxc.Line("lxc.namespace.keep", "user net ipc"),
            lxc.Line("lxc.mount.auto", "proc sys:rw"),
            lxc.Line("lxc.mount.entry", "/usr usr none bind,ro 0 0"),
            lxc.Line("lxc.mount.entry", f"{self.out} out none bind 0 0"),
            lxc.Line("lxc.mount.entry", f"{self.device.socket.parent} pantavisor none bind,ro 0 0"),
        ]
        add = lxc.Injected(
            name=self.name,
            hostname=self.name,
            console_log=str(self.folder / "console.log"),
            environment=("PATH=/usr/sbin:/usr/bin",),
            unified=cgroup.layout() == "unified",
        )
        config = self.folder / "config"
        config.write_text(lxc.render(lxc.finalize(own, add)))
        stdio = os.open(self.folder / "stdio", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            log = str(self.folder / "lxc.log")
            path = str(self.folder / "lxc")
            return lxc.start(self.name, str(config), path, log=log, level="WARN", stdio=stdio, cwd=str(self.folder))
        finally:
            os.close(stdio)

    def wait(self) -> None:
        end_s = time.monotonic() + DEADLINE_S
        while not (self.out / "done").exists():
            console = self.folder / "console.log"
            said = console.read_text() if console.exists() else ""
            assert time.monotonic() < end_s, f"{lxc.tail(str(self.folder / 'lxc.log'))} {said}"
            select.select([], [], [], 0.1)

    def answer(self, name: str) -> str:
        return (self.out / name).read_text()

    def close(self) -> None:
        init = lxc.init_pid(self.pid)
        if init is not None:
            lxc.kill(init)
        else:
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.fifo.close()
        os.unlink(self.fifo.path)
        with self.device.process:
            pass


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    one = Lab(tmp_path, request.param)
    try:
        one.wait()
        yield one
    finally:
        one.close()


@pytest.mark.parametrize("lab", [[]], indirect=True, ids=["no-role"])
def test_a_container_without_the_role(lab: Lab) -> None:
    for name in ("containers", "unprivileged", "other-pid-namespace", "own-group", "escaped"):
        assert json.loads(lab.answer(name)) == {"Error": REFUSED}, name
    assert lab.answer("signal.status") == "200"
    row = next(one for one in lab.device.value("ls") if one["name"] == lab.name)
    assert row["status"] == "READY", "what it says of itself is heard"


@pytest.mark.parametrize("lab", [["mgmt"]], indirect=True, ids=["mgmt"])
def test_a_container_with_the_role(lab: Lab) -> None:
    assert {one["name"] for one in json.loads(lab.answer("containers"))} == {lab.name, "manager"}
    assert json.loads(lab.answer("unprivileged")) == {"Error": REFUSED}, "only its root manages"
    assert {one["name"] for one in json.loads(lab.answer("other-pid-namespace"))} == {lab.name, "manager"}
