"""`pvr app` as a process: a real image from a real registry becomes an app, and an archive does; bad ones do not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from brickless.testkit import debian_image
from brickless.testkit.registry import Registry

CACHE = Path(__file__).parents[2] / ".cache" / "debian"
FILES = {"lxc.container.conf", "root.squashfs", "root.squashfs.docker-digest", "run.json", "src.json"}
pytestmark = pytest.mark.needs("registry")


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("layouts")
    return {page: debian_image.nginx_image(folder / page, f"<h1>{page}</h1>\n", CACHE) for page in ("one", "two")}


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


@pytest.fixture
def pvr(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    (tmp_path / "home").mkdir()
    (tmp_path / "tree").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PVR_")}
    environment = kept | {"HOME": str(tmp_path / "home")}

    def call(*args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        ran = subprocess.run(
            [sys.executable, "-m", "brickless.pvr.main", *args],
            cwd=tmp_path / "tree", env=environment, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert ran.returncode == code, (args, ran.returncode, ran.stdout, ran.stderr)
        return ran

    call("init")
    return call


def test_an_app_from_a_registry(pvr: Any, registry: Registry, layouts: dict[str, Path], tmp_path: Path) -> None:
    source = registry.push(layouts["one"], "team/web:stable")
    flags = [
        "--group",
        "app",
        "--volume",
        "/var/lib/web:permanent",
        "--arg",
        "PV_DEBUG_MODE=1",
        "--status-goal",
        "STARTED",
    ]
    assert pvr("app", "add", "web", "--from", source, *flags).stdout == "Application added\n"
    app = tmp_path / "tree/web"
    assert {path.name for path in app.iterdir()} == FILES
    run = json.loads((app / "run.json").read_bytes())
    assert run["group"] == "app"
    assert run["status_goal"] == "STARTED"
    assert run["storage"]["docker--var-lib-web"] == {"persistence": "permanent"}
    assert "lxc.log.file" in (app / "lxc.container.conf").read_text()
    assert pvr("app", "ls").stdout == "web\n"
    assert json.loads(pvr("app", "info", "web").stdout)["docker_tag"] == "stable"
    pvr("add")
    pvr("commit")
    first = (app / "root.squashfs").read_bytes()

    assert "already up to date" in pvr("app", "install", "web").stderr
    # A key that a build system wrote survives every rewrite.
    src = json.loads((app / "src.json").read_bytes())
    (app / "src.json").write_text(json.dumps(src | {"pv_build_origin": {"recipe": "x"}}))
    registry.push(layouts["two"], "team/web:stable")
    assert (
        pvr("app", "update", "web", "--arg", "PV_ROLES=x", "--unset-arg", "PV_DEBUG_MODE").stdout
        == "Application updated\n"
    )
    assert (app / "root.squashfs").read_bytes() != first
    src = json.loads((app / "src.json").read_bytes())
    assert src["pv_build_origin"] == {"recipe": "x"}
    assert src["args"]["PV_ROLES"] == "x"
    assert "PV_DEBUG_MODE" not in src["args"]
    assert "C web/root.squashfs" in pvr("status").stdout

    assert "--force" in pvr("app", "add", "web", "--from", source, code=3).stderr
    pvr("app", "add", "copy", "--type", "pvr", "--from", ".#web")
    assert json.loads((tmp_path / "tree/copy/run.json").read_bytes())["name"] == "copy"
    pvr("app", "rm", "web")
    assert pvr("app", "ls").stdout == "copy\n"
    assert "doesn't exist" in pvr("app", "info", "web", code=3).stderr


def test_the_same_image_is_the_same_object_from_every_source(
    pvr: Any, registry: Registry, layouts: dict[str, Path], tmp_path: Path
) -> None:
    source = registry.push(layouts["one"], "same:1")
    pvr("app", "add", "a", "--from", source)
    pvr("app", "add", "b", "--from", f"oci:{layouts['one']}")
    one, other = ((tmp_path / "tree" / name / "root.squashfs").read_bytes() for name in "ab")
    assert one == other


def test_a_root_file_system_becomes_an_app(pvr: Any, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/hello").write_text("#!/bin/sh\n")
    config = tmp_path / "config.json"
    config.write_text('{"Entrypoint":["/bin/hello"]}')
    pvr("app", "add", "hello", "--type", "rootfs", "--from", str(root), "--config-json", str(config))
    app = tmp_path / "tree/hello"
    assert (app / "root.squashfs.rootfs-digest").exists()
    assert "lxc.init.cmd = /bin/hello" in (app / "lxc.container.conf").read_text()


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["app", "add", "x"], 4),
        (["app", "add"], 2),
        (["app", "add", "x", "--from", "REGISTRY/none:1"], 3),
        (["app", "add", "../x", "--from", "REGISTRY/none:1"], 3),
        (["app", "add", "x", "--from", "UPPER/Case:1"], 3),
        (["app", "add", "x", "--from", "REGISTRY/none:1", "--source", "elsewhere"], 3),
        (["app", "add", "x", "--from", "REGISTRY/none:1", "--group", "a", "--runlevel", "b"], 5),
        (["app", "add", "x", "--from", "REGISTRY/none:1", "--volume", "/x:for-ever"], 3),
        (["app", "add", "x", "--from", "127.0.0.1:1/none:1"], 3),
        (["app", "add", "x", "--type", "nonsense", "--from", "y"], 3),
        (["app", "add", "x", "--type", "rootfs", "--from", "/nowhere"], 3),
        (["app", "add", "x", "--from", "oci:/nowhere"], 3),
    ],
    ids=lambda value: " ".join(value[2:]) if isinstance(value, list) else "",
)
def test_a_bad_source_leaves_the_tree_as_it_was(
    args: list[str], code: int, pvr: Any, registry: Registry, tmp_path: Path
) -> None:
    ran = pvr(*(arg.replace("REGISTRY", registry.address) for arg in args), code=code)
    assert "Traceback" not in ran.stderr
    assert os.listdir(tmp_path / "tree") == [".pvr"]
