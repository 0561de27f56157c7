"""The pipeline of deploy/ci and the commands of its how-to, run as they stand: a real hub, a device that answers.

The templates fit the schemas of GitLab and GitHub, and the scripts of their jobs run, with a real builder and registry.
Left out is only what changes the runner itself: installing packages (`apt-get`, `pip`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import string
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from ruamel.yaml import YAML

from brickless.oci.layout import LayoutWriter
from brickless.testkit.archives import file, tar_of
from brickless.testkit.certificates import code_signing
from brickless.testkit.debian_image import GZIP, write_image
from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import Caller, DeviceCaller, claimed_device
from brickless.testkit.registry import PASSWORD, USER, Registry

ROOT = Path(__file__).parents[2]
CI = ROOT / "deploy/ci"
INSTALLS = ("sudo apt-get", "apt-get", "pip install")
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


@pytest.mark.parametrize(
    ("schema", "name"), [("vendor.gitlab-ci", "gitlab-ci.yml"), ("vendor.github-workflows", "github-actions.yml")]
)
def test_a_template_fits_the_schema_of_its_platform(schema: str, name: str, tmp_path: Path) -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    transform = ["--data-transform", "gitlab-ci"] if "gitlab" in schema else []
    ran = subprocess.run([*check, *transform, CI / name], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    # The schema is a real one: a job whose script is a number is refused.
    document = YAML(typ="safe").load(CI / name)
    broken = document["jobs"]["firmware"] if "jobs" in document else document["plan"]
    broken["steps" if "steps" in broken else "script"] = 7
    YAML(typ="safe").dump(document, tmp_path / "broken.yml")
    ran = subprocess.run([*check, tmp_path / "broken.yml"], capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stdout + ran.stderr


@pytest.fixture
def project(runner: dict[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
    """A checked-out project with a Containerfile, and a runner whose builder keeps to itself; the environment."""
    checkout = tmp_path / "project"
    checkout.mkdir()
    shutil.copy(CI / "firmware.sh", checkout)
    (checkout / "program").write_text("one")
    (checkout / "Containerfile").write_text('FROM scratch\nCOPY program /bin/web\nCMD ["/bin/web"]\n')
    home = Path(runner["HOME"])
    # Podman's kin refuse a run root of more than 50 characters, which a test's folder may have.
    run = tempfile.mkdtemp(prefix="ci-")
    (home / "auth.json").write_text("{}")
    settings = home / ".config/containers"
    settings.mkdir(parents=True)
    (settings / "policy.json").write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    (settings / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/images"\nrunroot = "{run}"\n'
    )
    kept = {name: value for name, value in runner.items() if name not in {"APP", "MESSAGE", "IMAGE", "WAIT_S"}}
    yield kept | {
        "BUILDAH_ISOLATION": "chroot",
        "CONTAINERS_STORAGE_CONF": str(settings / "storage.conf"),
        "REGISTRY_AUTH_FILE": str(home / "auth.json"),
        "TMPDIR": run,
        "RUNNER_TEMP": run,
        "WAIT_S": "120",
    }
    shutil.rmtree(run)


def run_script(lines: list[str], environment: Mapping[str, str], cwd: Path, code: int = 0) -> str:
    """Run a job's lines in one shell that stops at the first failure, as runners do; what it said."""
    ran = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", "\n".join(lines)],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@pytest.mark.needs("root", "buildah", "registry")
def test_the_jobs_of_gitlab(project: dict[str, str], hub: HubProcess, device: DeviceCaller, tmp_path: Path) -> None:
    template = YAML(typ="safe").load(CI / "gitlab-ci.yml")
    with Registry(password=True) as registry:
        conf = Path(project["HOME"], ".config/containers/registries.conf")
        conf.write_text(f'[[registry]]\nlocation = "{registry.address}"\ninsecure = true\n')
        given = project | {
            "CI_PROJECT_DIR": str(tmp_path / "project"),
            "CI_REGISTRY": registry.address,
            "CI_REGISTRY_IMAGE": f"{registry.address}/group/web",
            "CI_REGISTRY_USER": USER,
            "CI_REGISTRY_PASSWORD": PASSWORD,
            "CI_COMMIT_SHORT_SHA": "0123abcd",
        }

        def job(name: str, **more: str) -> str:
            """Run a job. What the project sets (its hub, its device) counts more than the file, as at GitLab."""
            own = template[name]
            environment = dict(given)
            for key, value in {**template["variables"], **own.get("variables", {})}.items():
                environment.setdefault(key, string.Template(str(value)).safe_substitute(given))
            before = template[own["extends"]]["before_script"] if "extends" in own else []
            assert all(line.startswith(INSTALLS) for line in before)
            return run_script(own["script"], environment | more, tmp_path / "project")

        job("build-image")
        said = job("plan")
        assert "+ web" in said
        assert "posted" not in said
        with answering(hub, device, "DONE"):
            assert "Revision 1: DONE" in job("test-device")
        (tmp_path / "project/program").write_text("two")
        given["CI_COMMIT_SHORT_SHA"] = "4567cdef"
        job("build-image")
        with answering(hub, device, "DONE"):
            assert "Revision 2: DONE" in job("canary")
    state = device.get(f"/trails/{device.id}/steps/2").json()["state"]
    assert state["web/src.json"]["docker_tag"] == "4567cdef"
    assert "_sigs/web.json" in state


def expressions(runner: Mapping[str, str], dry_run: str) -> Callable[[str], str]:
    """What GitHub makes of `${{ ... }}`; one that is not known is an error."""
    known = {
        "vars.DEVICE": runner["DEVICE"],
        "vars.PVR_BASEURL": runner["PVR_BASEURL"],
        "vars.PVR_REPO_BASEURL": runner["PVR_REPO_BASEURL"],
        "secrets.PVR_USERNAME": runner["PVR_USERNAME"],
        "secrets.PVR_PASSWORD": runner["PVR_PASSWORD"],
        "secrets.SIGN_KEY_PEM": Path(runner["SIGN_KEY"]).read_text(),
        "secrets.SIGN_CHAIN_PEM": Path(runner["SIGN_CHAIN"]).read_text(),
        "secrets.SIGN_CA_PEM": Path(runner["SIGN_CA"]).read_text(),
        "github.event_name == 'pull_request' && 'yes' || ''": dry_run,
    }
    return lambda text: re.sub(r"\$\{\{ (.*?) \}\}", lambda found: known[found[1]], text)


@pytest.mark.needs("root", "buildah")
def test_the_steps_of_github(project: dict[str, str], hub: HubProcess, device: DeviceCaller, tmp_path: Path) -> None:
    job = YAML(typ="safe").load(CI / "github-actions.yml")["jobs"]["firmware"]
    bare = {k: v for k, v in project.items() if not k.startswith(("SIGN_", "PVR_", "DEVICE"))}

    def run_job(event: str) -> str:
        fill = expressions(project, "yes" if event == "pull_request" else "")
        environment = bare | {key: fill(value) for key, value in job["env"].items()}
        said, left_out = "", []
        for step in job["steps"]:
            if "run" not in step:
                continue
            if step["run"].startswith(INSTALLS):
                left_out.append(step["run"])
                continue
            own = {key: fill(value) for key, value in step.get("env", {}).items()}
            said += run_script([fill(step["run"])], environment | own, tmp_path / "project")
        assert len(left_out) == 2
        return said

    assert "posted" not in run_job("pull_request")
    os.unlink(tmp_path / "project/image.tar")
    with answering(hub, device, "DONE"):
        assert "Revision 1: DONE" in run_job("push")
    state = device.get(f"/trails/{device.id}/steps/1").json()["state"]
    assert {"web/root.squashfs", "_sigs/web.json"} <= set(state)
    assert json.loads((tmp_path / "home/.pvr/auth.json").read_text())["tokens"]
    # The key was for the job's eyes only.
    assert Path(project["RUNNER_TEMP"], "key.pem").stat().st_mode & 0o077 == 0
