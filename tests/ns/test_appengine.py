"""The runtime without an emulator: a container from a real image starts, is updated, and nothing stays behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from brickless.core import canonical
from brickless.core.errors import HostileInputError, UserError
from brickless.image import factory
from brickless.main import appengine
from brickless.testkit.debian_image import nginx_image
from brickless.testkit.registry import Registry

pytestmark = pytest.mark.needs("root", "lxc", "registry", "skopeo")
CACHE = Path(__file__).parents[2] / ".cache"
BIN = Path(sys.executable).parent
DEADLINE_S = 60.0
# Run inside the namespaces of the runtime: the control socket tells by the peer's pid who asks.
CALL = """
import http.client, socket, sys
class Local(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/run/pantavisor/pv/pv-ctrl")
method, path = sys.argv[1:3]
local = Local("localhost", timeout=60)
local.request(method, path, sys.stdin.buffer.read() if method in ("PUT", "POST") else None)
answer = local.getresponse()
print(answer.status)
sys.stdout.flush()
sys.stdout.buffer.write(answer.read())
"""
# A container that has started may not listen yet.
PAGE = """
import time, urllib.error, urllib.request
deadline_s = time.monotonic() + 60
while True:
    try:
        print(urllib.request.urlopen("http://127.0.0.1:80/", timeout=20).read().decode())
        break
    except urllib.error.URLError:
        if time.monotonic() > deadline_s:
            raise
        time.sleep(0.1)
"""


class Running:
    """A started `brickless appengine`, seen from outside and, by its namespaces, from inside."""

    def __init__(self, storage: Path, packages: Path | None, *options: str) -> None:
        self.log = storage.with_suffix(".log")
        argv = [str(BIN / "brickless"), "appengine", "--storage", str(storage), "--own-network", "-d", "0.1", *options]
        argv += ["--packages", str(packages)] if packages else []
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(argv, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL)

    def init(self) -> int:
        """PID 1 of the namespaces: the child of the child of the command."""
        pid = self.process.pid
        for _ in range(2):
            (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            pid = int(child)
        return pid

    def inside(self, program: str, *arguments: str, body: bytes = b"") -> bytes:
        argv = ["nsenter", "--target", str(self.init()), "--mount", "--pid", "--net", "--ipc", "--uts"]
        done = subprocess.run(
            [*argv, sys.executable, "-c", program, *arguments],
            input=body,
            stdout=subprocess.PIPE,
            check=True,
            timeout=90,
        )
        return done.stdout

    def call(self, method: str, path: str, body: bytes = b"") -> bytes:
        status, _, answer = self.inside(CALL, method, path, body=body).partition(b"\n")
        assert status == b"200", f"{method} {path}: {status.decode()} {answer.decode()}"
        return answer

    def wait_for(self, text: str, count: int = 1) -> None:
        """Until its console has said it so often."""
        deadline_s = time.monotonic() + DEADLINE_S
        while len(re.findall(text, self.log.read_text(errors="replace"))) < count:
            assert self.process.poll() is None, f"it ended: {self.log.read_text(errors='replace')}"
            assert time.monotonic() < deadline_s, f"no {text!r}: {self.log.read_text(errors='replace')}"
            time.sleep(0.1)  # between two looks at a file

    def page(self) -> str:
        return self.inside(PAGE).decode().strip()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(60)


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two releases of a web server as `pvr export` writes them, from images in a real registry."""
    folder = tmp_path_factory.mktemp("exports")
    env = {**os.environ, "PVR_CONFIG_DIR": str(folder / "config"), "HOME": str(folder)}
    repository = folder / "repository"
    repository.mkdir()

    def pvr(*arguments: str) -> None:
        subprocess.run([BIN / "pvr", *arguments], cwd=repository, env=env, check=True, capture_output=True, timeout=300)

    found = []
    with Registry() as registry:
        pvr("init")
        groups = {"groups": factory.stock_groups(timeout_s=30, stable_s=2)}
        (repository / "device.json").write_bytes(canonical.dumps(groups))
        for version, command in ((1, "add"), (2, "update")):
            nginx_image(folder / f"layout{version}", f"release {version}", CACHE / "debian")
            registry.push(folder / f"layout{version}", f"web:{version}")
            pvr("app", command, "web", "--from", f"{registry.address}/web:{version}")
            pvr("add", ".")
            pvr("commit", "-m", f"web {version}")
            packages = folder / f"packages{version}"
            packages.mkdir()
            pvr("export", str(packages / "web.tgz"))
            found.append(packages)
    return found


def states(packages: Path, folder: Path) -> tuple[bytes, dict[str, bytes]]:
    """State and objects of the one package in a folder, by tar itself."""
    folder.mkdir()
    subprocess.run(["tar", "-xzf", str(packages / "web.tgz"), "-C", str(folder)], check=True)
    return (folder / "json").read_bytes(), {one.name: one.read_bytes() for one in (folder / "objects").iterdir()}


def mounts() -> list[str]:
    return Path("/proc/self/mounts").read_text().splitlines()


def test_a_real_image_runs_is_updated_and_survives_a_reboot(exports: list[Path], tmp_path: Path) -> None:
    before = mounts()
    storage = tmp_path / "storage"
    running = Running(storage, exports[0])
    try:
        running.wait_for("container web STARTED")
        assert running.page() == "release 1"
        boots = running.init()

        state, objects = states(exports[1], tmp_path / "release2")
        for sha, content in objects.items():
            running.call("PUT", f"/objects/{sha}", content)
        running.call("PUT", "/steps/locals/two", state)
        running.call("POST", "/commands", json.dumps({"op": "LOCAL_RUN", "payload": "locals/two"}).encode())
        running.wait_for("locals/two.*(DONE|UPDATED)")
        assert running.page() == "release 2"
        assert running.init() == boots, "an app's update needs no reboot"

        running.call("POST", "/commands", json.dumps({"op": "REBOOT_DEVICE", "payload": ""}).encode())
        running.wait_for("appengine: boots revision", 2)
        running.wait_for("container web STARTED", 3)
        assert running.page() == "release 2"
    finally:
        running.end()
    assert running.process.returncode == 0
    assert mounts() == before
    assert not os.path.exists("/volumes/web"), "the runtime wrote to this machine"


def test_packages_become_the_first_revision_once(exports: list[Path], tmp_path: Path) -> None:
    settings = appengine.Settings(tmp_path / "storage", exports[0], initial="first")
    with pytest.raises(HostileInputError):
        appengine.prepare(settings)  # no name of a revision
    settings = settings._replace(initial="locals/first")
    assert appengine.prepare(settings)
    assert not appengine.prepare(settings)
    trail = tmp_path / "storage/trails/locals/first"
    assert (trail / ".pv/done").exists()
    assert (trail / "web/root.squashfs").stat().st_nlink == 2
    assert b"pv_rev=locals/first\0" in (tmp_path / "storage/boot/uboot.txt").read_bytes()


def test_a_folder_without_packages_is_refused_and_leaves_no_first_revision(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no package"):
        appengine.prepare(appengine.Settings(tmp_path / "storage", tmp_path / "empty"))
    (tmp_path / "empty/bad.tgz").write_bytes(b"not an archive")
    with pytest.raises((UserError, HostileInputError)):
        appengine.prepare(appengine.Settings(tmp_path / "storage", tmp_path / "empty"))
    assert not (tmp_path / "storage" / appengine.CREATED).exists()
