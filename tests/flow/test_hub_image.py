"""The hub's container image, built by buildah from its Containerfile, started as its entry point says, and asked.

The base is a Debian system of packages with the same Python instead of the one from a public registry, and pip finds
the locked packages in a folder: nothing of the build depends on who else is up.
"""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from brickless.linux import process
from brickless.linux.process import PIPE, Process, run
from brickless.oci.layout import LayoutWriter
from brickless.testkit.builders import Buildah
from brickless.testkit.debian_image import PLAIN, archive, debian_layers, symlink, write_image

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache"
WHEELS = CACHE / "hub-wheels"
PACKAGES = ("python3", "python3-venv", "passwd", "coreutils", "dash", "ca-certificates", "libstdc++6")
START_TIMEOUT_S = 120.0
pytestmark = pytest.mark.needs("root", "buildah")


def wheels() -> Path:
    """What pip needs for the image, downloaded once by pip itself, each with its hash."""
    locked = ROOT / "requirements" / "hub.txt"
    if not (WHEELS / "complete").exists() or (WHEELS / "complete").read_bytes() != locked.read_bytes():
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "-d", str(WHEELS)]
        passed = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        run([*pip, "--require-hashes", "-r", str(locked)], purpose="pip download", timeout_s=600, env=passed)
        run([*pip, "hatchling"], purpose="pip download", timeout_s=600, env=passed)
        (WHEELS / "complete").write_bytes(locked.read_bytes())
    return WHEELS


def base(folder: Path) -> Path:
    """An OCI layout of Debian's Python, which the Containerfile calls `python`."""
    users = "root:x:0:0:root:/root:/bin/sh\n"
    settings = "[global]\nno-index = true\nfind-links = /wheels\n"
    system = archive(
        {
            "./": "755", "etc/": "755", "etc/passwd": users, "etc/group": "root:x:0:\n", "etc/shadow": "root:*::::::\n",
            "etc/pip.conf": settings, "usr/bin/": "755", "usr/bin/python": symlink("python3"), "root/": "700",
            "tmp/": "1777", "bin/": "755", "bin/sh": symlink("dash"),
        }
    )  # fmt: skip
    config = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
    layout = LayoutWriter(folder)
    # Nobody stores these layers, so nobody compresses them.
    layers = [(data, PLAIN) for data, _ in debian_layers(PACKAGES, CACHE / "debian")] + [(system, PLAIN)]
    layout.finish([(write_image(layout, layers, config), "latest")])
    return folder


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Buildah:
    return Buildah(tmp_path_factory.mktemp("buildah"))


@pytest.fixture(scope="module")
def image(buildah: Buildah, tmp_path_factory: pytest.TempPathFactory) -> str:
    layout = base(tmp_path_factory.mktemp("base") / "layout")
    buildah.pull(f"oci:{layout}:latest", "localhost/python")
    return buildah.build(
        ROOT, "localhost/brickless-hub", "--layers=false", "--build-arg", "BASE=localhost/python",
        "--file", str(ROOT / "deploy" / "hub" / "Containerfile"), "--volume", f"{wheels()}:/wheels:ro",
    )  # fmt: skip


@pytest.fixture(scope="module")
def config(buildah: Buildah, image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(buildah.inspect(image))["OCIv1"]["config"]
    return found


def first_line(server: Process) -> str:
    """What it says once it is ready. Raises `ProcessError` when it ends first, or is too slow."""
    assert server.stdout is not None
    readable = select.select([server.stdout], [], [], START_TIMEOUT_S)[0]
    line = os.read(server.stdout.fileno(), 4096).decode() if readable else ""
    if not line:
        server.stop()
        raise server.failure()
    return line


@pytest.fixture(scope="module")
def hub(buildah: Buildah, image: str, config: dict[str, Any]) -> Iterator[str]:
    container = buildah.create(image)
    argv = buildah.running(container, [*config["Entrypoint"], "--port", "0"], user=config["User"])
    with process.spawn(argv, purpose="the hub's image", stdout=PIPE, stderr=None, env=buildah.environment) as server:
        yield first_line(server).removeprefix("hub: ready ").split()[0].replace("0.0.0.0", "127.0.0.1")


def test_the_image_serves_a_hub(hub: str) -> None:
    assert httpx.get(f"{hub}/readyz", timeout=60).json() == {"status": "ok"}
    assert httpx.get(f"{hub}/livez", timeout=60).json() == {"status": "ok"}
    with httpx.Client(base_url=hub, timeout=60, headers={"User-Agent": "test"}) as client:
        account = {"email": "a@example.com", "nick": "alice", "password": "a good password"}
        assert client.post("/auth/accounts", json=account).status_code == 200
        login = client.post("/auth/login", json={"username": "alice", "password": "a good password"})
        client.headers["Authorization"] = f"Bearer {login.json()['token']}"
        assert client.get("/devices/").json() == []


def test_it_holds_nothing_of_the_checkout_and_runs_as_nobody_in_particular(
    buildah: Buildah, image: str, config: dict[str, Any]
) -> None:
    assert config["User"] == "10001:10001"
    assert config["ExposedPorts"] == {"12365/tcp": {}}
    assert config["Volumes"] == {"/data": {}}
    container = buildah.create(image)
    assert "src" not in buildah.run(container, ["ls", "-A", "/"], user="0:0").split()
    # Where the folder of the wheels was mounted is left, and nothing in it.
    assert buildah.run(container, ["ls", "-A", "/wheels"], user="0:0") == ""
    found = buildah.run(container, ["python3", "-c", "import brickless.hub.app, os; print(os.getuid())"], user="10001")
    assert found.strip() == "10001"
