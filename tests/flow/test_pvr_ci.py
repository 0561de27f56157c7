"""The pipeline of deploy/ci and the commands of its how-to, run as they stand: a real hub, a device that answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from brickless.oci.layout import LayoutWriter
from brickless.testkit.archives import file, tar_of
from brickless.testkit.certificates import code_signing
from brickless.testkit.debian_image import GZIP, write_image
from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import Caller, DeviceCaller, claimed_device

ROOT = Path(__file__).parents[2]
STATE = {"#spec": "pantavisor-service-system@1", "notes.json": {"made": "factory"}}
DPKG = (
    "Package: web\nStatus: install ok installed\nVersion: {}\n\n"
    "Package: gone-base\nStatus: deinstall ok config-files\nVersion: 1\n"
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with running_hub(str(tmp_path_factory.mktemp("hub") / "data")) as hub:
        yield hub


@pytest.fixture
def device(hub: HubProcess) -> Iterator[DeviceCaller]:
    with httpx.Client(base_url=hub.url) as client:
        yield claimed_device(Caller(client).login("user1", "user1")).start_trail(STATE)


@contextmanager
def answering(hub: HubProcess, device: DeviceCaller, status: str, message: str = "") -> Iterator[None]:
    """The device asks for new steps and says of each what the test wants."""
    over = threading.Event()

    def loop() -> None:
        with httpx.Client(base_url=hub.url) as client:
            caller = DeviceCaller(client, {"id": device.id, "prn": device.prn, "secret": device.secret}, device.token)
            while not over.wait(0.1):
                for step in caller.get(f"/trails/{device.id}/steps?progress.status=NEW").json():
                    path = f"/trails/{device.id}/steps/{step['rev']}/progress"
                    for said in ("INPROGRESS", status):
                        caller.put(path, {"status": said, "status-msg": message, "progress": 50}).raise_for_status()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture
def runner(hub: HubProcess, device: DeviceCaller, tmp_path: Path) -> dict[str, str]:
    """The environment of a CI runner: no terminal, everything by variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PVR_", "PVS_", "CI"))}
    nick = httpx.get(f"{hub.url}/devices/{device.id}", headers={"Authorization": f"Bearer {device.token}"}).json()[
        "nick"
    ]
    (tmp_path / "home").mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    chain = code_signing(key, datetime.now(UTC) - timedelta(days=1)).public_bytes(serialization.Encoding.PEM)
    (tmp_path / "chain.pem").write_bytes(chain)
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return kept | {
        "HOME": str(tmp_path / "home"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PVR_BASEURL": hub.url,
        "PVR_REPO_BASEURL": hub.url,
        "PVR_USERNAME": "user1",
        "PVR_PASSWORD": "user1",
        "DEVICE": f"user1/{nick}",
        "APP": "web",
        "MESSAGE": "from CI",
        "SIGN_KEY": str(tmp_path / "key.pem"),
        "SIGN_CHAIN": str(tmp_path / "chain.pem"),
        "SIGN_CA": str(tmp_path / "chain.pem"),
        "WAIT_S": "60",
    }


def image(folder: Path, version: str) -> str:
    writer = LayoutWriter(folder)
    layer = tar_of(("bin/web", file(version.encode())), ("var/lib/dpkg/status", file(DPKG.format(version).encode())))
    writer.finish([(write_image(writer, [(layer, GZIP)], {"Cmd": ["/bin/web"]}), "latest")])
    return f"oci:{folder}"


@pytest.fixture
def shell(runner: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def call(*argv: str, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        ran = subprocess.run(
            argv, cwd=tmp_path, env=runner | more, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert ran.returncode == code, (ran.stdout, ran.stderr)
        return ran

    return call


def test_the_pipeline_from_the_first_run_to_a_failed_one(
    hub: HubProcess, device: DeviceCaller, shell: Any, tmp_path: Path
) -> None:
    script = ("sh", str(ROOT / "deploy/ci/firmware.sh"))
    with answering(hub, device, "DONE"):
        ran = shell(*script, IMAGE=image(tmp_path / "one", "1.0"))
        assert "+ web" in ran.stdout
        assert "Revision 1: DONE" in ran.stderr
        ran = shell(*script, IMAGE=image(tmp_path / "two", "1.1"))
        assert "package web 1.0 → 1.1" in ran.stdout
        assert "gone-base" not in ran.stdout, "a package that is not installed any more is no package"
        assert "Revision 2: DONE" in ran.stderr
    ran = shell(*script, IMAGE=image(tmp_path / "three", "1.2"), DRY_RUN="yes")
    assert "posted" not in ran.stderr
    with answering(hub, device, "ERROR", "the goal STARTED was not reached"):
        ran = shell(*script, IMAGE=image(tmp_path / "three", "1.2"), code=3)
        assert "Revision 3 did not come to life: ERROR: the goal STARTED was not reached" in ran.stderr
    # A device that is off: the job ends, and says that the post is done.
    ran = shell(*script, IMAGE=image(tmp_path / "four", "1.3"), WAIT_S="1", code=3)
    assert "Revision 4 is still NEW after 1 s" in ran.stderr
    assert "MESSAGE" not in ran.stderr
    state = device.get(f"/trails/{device.id}/steps/4").json()
    assert state["commit-msg"] == "from CI"
    assert {"web/run.json", "_sigs/web.json", "notes.json"} <= set(state["state"])
    shell(*script, IMAGE="127.0.0.1:1/nothing:1", code=3)
    shell(*script, code=2)


def test_the_commands_of_the_how_to_as_they_stand(
    hub: HubProcess, device: DeviceCaller, shell: Any, tmp_path: Path
) -> None:
    with answering(hub, device, "DONE"):
        # The page is for a device that has the container already.
        shell("sh", str(ROOT / "deploy/ci/firmware.sh"), IMAGE=image(tmp_path / "one", "1.0"))
        page = (ROOT / "docs/how-to/firmware-from-ci.md").read_text()
        blocks = re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
        assert len(blocks) == 5
        ran = shell("sh", "-euc", "\n".join(blocks), IMAGE=image(tmp_path / "two", "1.1"))
    assert "Successfully cloned" in ran.stdout
    assert "package web 1.0 → 1.1" in ran.stdout
    assert "reboot" in ran.stdout
    assert "Revision 2: DONE" in ran.stderr
