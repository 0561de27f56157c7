"""Images that other builders made for real (buildah's layers, umoci's repacking, GNU tar's sparse files), and a real
podman's socket: each becomes the very root that umoci unpacks, entry by entry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from brickless.linux import process
from brickless.oci.layout import LayoutWriter
from brickless.testkit.archives import file, tar_of
from brickless.testkit.builders import Buildah
from brickless.testkit.debian_image import GZIP, debian_layers, write_image
from brickless.testkit.unpacked import by_umoci, by_us, described, of_squashfs

CACHE = Path(__file__).parents[2] / ".cache" / "debian"
pytestmark = pytest.mark.needs("root", "umoci", "buildah")
# Everything a layer can say, said by a shell in a container: the builder makes the layers of it.
RARE = """FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /d/e /opaque/old /tmp /run && chmod 1777 /tmp && echo 1 >/d/x && chmod 4755 /d/x && ln /d/x /d/y \\
 && ln -s x /d/link && mkfifo -m 600 /d/pipe && mknod -m 666 /d/null c 1 3 && mknod /d/disk b 8 1 \\
 && echo n >"/d/$(printf 'no utf-8 \\377\\376')" && truncate -s 5M /d/hole && echo end >>/d/hole \\
 && chown 1000:1001 /d/e && echo 1 >/opaque/old/1 && echo 2 >/opaque/2
RUN rm /d/y && rm -r /opaque && mkdir /opaque && echo new >/opaque/3 && rm -r /d/e && echo file >/d/e && chmod 2711 /d/x
RUN touch -d '2001-01-01 00:00:00' /d/e && ln -sf /d/e /d/link && echo 4 >/d/.wh-is-no-whiteout
USER 1000:1001
ENV A="b c"
WORKDIR /d
ENTRYPOINT ["/bin/busybox", "sh", "-c"]
CMD ["echo 'a  b'"]
"""
PYTHON = """FROM scratch
ADD 0.tar /
ADD 1.tar /
ADD 2.tar /
COPY app.py /srv/app.py
RUN ["/usr/bin/python3.11", "-m", "compileall", "-q", "/srv"]
RUN ["/usr/bin/python3.11", "-c", "import os; os.remove('/srv/app.py'); os.mkdir('/srv/data', 0o700)"]
CMD ["/usr/bin/python3.11", "/srv/__pycache__/app.cpython-311.pyc"]
"""


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Buildah:
    return Buildah(tmp_path_factory.mktemp("buildah"))


@pytest.fixture(scope="module")
def rare(buildah: Buildah, tmp_path_factory: pytest.TempPathFactory) -> str:
    context = tmp_path_factory.mktemp("context")
    shutil.copy("/bin/busybox", context / "busybox")
    (context / "Containerfile").write_text(RARE)
    buildah.build(context, "rare:1")
    return "rare:1"


def difference(ours: dict[bytes, Any], theirs: dict[bytes, Any]) -> dict[bytes, Any]:
    assert len(ours) > 1
    return {path: (ours.get(path), theirs.get(path)) for path in ours | theirs if ours.get(path) != theirs.get(path)}


def test_an_image_of_buildah_with_everything_a_layer_can_say(buildah: Buildah, rare: str, tmp_path: Path) -> None:
    buildah.push(rare, f"oci:{tmp_path}/layout:latest")
    ours = by_us(f"oci:{tmp_path}/layout", tmp_path)
    assert difference(ours, by_umoci(tmp_path / "layout", tmp_path / "bundle")) == {}
    assert {b"d/null", b"d/disk", b"d/pipe", b"d/no utf-8 \xff\xfe", b"opaque/3"} <= set(ours)
    assert not {b"d/y", b"opaque/old", b"opaque/2"} & set(ours)
    assert ours[b"d/x"][1] == 0o2711
    first = (tmp_path / "root.squashfs").read_bytes()
    targets = {
        f"oci-archive:{tmp_path}/a.tar:latest": (f"oci-archive:{tmp_path}/a.tar", []),
        f"docker-archive:{tmp_path}/d.tar:rare:1": (f"docker-archive:{tmp_path}/d.tar", []),
        f"oci:{tmp_path}/zstd:latest": (f"oci:{tmp_path}/zstd", ["--compression-format", "zstd"]),
    }
    for number, (target, (source, flags)) in enumerate(targets.items()):
        buildah.push(rare, target, *flags)
        (tmp_path / str(number)).mkdir()
        by_us(source, tmp_path / str(number))
        assert (tmp_path / str(number) / "root.squashfs").read_bytes() == first, target


def test_real_python_built_by_buildah(buildah: Buildah, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    for number, (layer, _) in enumerate(debian_layers(["python3-minimal"], CACHE)):
        (context / f"{number}.tar").write_bytes(layer)
    (context / "app.py").write_text("print('hello')\n")
    (context / "Containerfile").write_text(PYTHON)
    buildah.build(context, "python:1")
    buildah.push("python:1", f"oci:{tmp_path}/layout:latest")
    ours = by_us(f"oci:{tmp_path}/layout", tmp_path)
    assert difference(ours, by_umoci(tmp_path / "layout", tmp_path / "bundle")) == {}
    assert b"srv/__pycache__/app.cpython-311.pyc" in ours
    assert b"srv/app.py" not in ours


def umoci(*args: str) -> None:
    process.run(["umoci", *args], purpose="build with umoci", timeout_s=120)


def test_an_image_that_umoci_repacked(tmp_path: Path) -> None:
    layout = LayoutWriter(tmp_path / "image")
    base = tar_of(("etc/keep", file(b"1")), ("etc/goes", file(b"2")), ("usr/lib/a", file(b"3" * 5000, mode=0o755)))
    layout.finish([(write_image(layout, [(base, GZIP)], {}), "latest")])
    umoci("unpack", "--image", f"{tmp_path}/image:latest", str(tmp_path / "work"))
    root = tmp_path / "work/rootfs"
    (root / "etc/goes").unlink()
    shutil.rmtree(root / "usr")
    (root / "usr").write_text("a file now")
    os.chmod(root / "etc/keep", 0o4711)
    os.setxattr(root / "etc/keep", "security.capability", bytes([1, 0, 0, 2, 0, 4, 0, 0, *([0] * 12)]))
    os.mknod(root / "etc/null", 0o20666, os.makedev(1, 3))
    umoci("repack", "--image", f"{tmp_path}/image:next", str(tmp_path / "work"))
    umoci("insert", "--image", f"{tmp_path}/image:next", "--whiteout", "/etc/null")
    umoci("insert", "--image", f"{tmp_path}/image:next", "--opaque", str(tmp_path / "work/rootfs/etc"), "/etc")
    ours = by_us(f"oci:{tmp_path}/image:next", tmp_path)
    theirs = by_umoci(tmp_path / "image", tmp_path / "bundle", tag="next")
    assert difference(ours, theirs) == {}
    assert b"etc/goes" not in ours
    assert ours[b"etc/keep"][5], "the capability is there"


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_sparse_files_of_gnu_tar(tmp_path: Path, form: str) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "hole").open("wb") as hole:
        for place in (0, 5 << 20, 40 << 20):
            hole.seek(place)
            hole.write(b"data" * 1000)
        hole.truncate(64 << 20)
    (tree / "empty hole").touch()
    os.truncate(tree / "empty hole", 1 << 20)
    (tree / "full").write_bytes(b"x" * 100_000)
    argv = [
        "tar",
        "--create",
        "--sparse",
        f"--format={form}",
        "--file",
        str(tmp_path / "layer.tar"),
        "-C",
        str(tree),
        ".",
    ]
    process.run(argv, purpose="make a sparse archive", timeout_s=60)
    data = (tmp_path / "layer.tar").read_bytes()
    assert len(data) < 1 << 20, "the archive has no bytes for the holes"
    layout = LayoutWriter(tmp_path / "image")
    layout.finish([(write_image(layout, [(data, GZIP)], {}), "latest")])
    ours = by_us(f"oci:{tmp_path}/image", tmp_path)
    if form == "pax":
        assert difference(ours, by_umoci(tmp_path / "image", tmp_path / "bundle")) == {}
    # umoci cannot read the older form; GNU tar as root is the measure for both.
    (tmp_path / "by-tar").mkdir()
    argv = ["tar", "-x", "-p", "--numeric-owner", "-f", str(tmp_path / "layer.tar"), "-C", str(tmp_path / "by-tar")]
    process.run(argv, purpose="unpack the archive", timeout_s=60)
    assert difference(ours, described(tmp_path / "by-tar")) == {}


def test_a_real_podman_hands_its_image_out(buildah: Buildah, rare: str, tmp_path: Path) -> None:
    """`app add --source local` over podman's socket, as the program that users start."""
    buildah.push(rare, f"oci:{tmp_path}/layout:latest")
    expected = by_us(f"oci:{tmp_path}/layout", tmp_path)
    (tmp_path / "repo").mkdir()
    with buildah.served() as address:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PVR_")}
        environment = kept | {"HOME": str(tmp_path), "DOCKER_HOST": address}

        def pvr(*args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
            program = Path(sys.executable).with_name("pvr")
            ran = subprocess.run(
                [program, *args], cwd=tmp_path / "repo", env=environment, capture_output=True, text=True, check=False
            )
            assert ran.returncode == code, ran
            return ran

        pvr("init")
        assert "Repo exists in local docker" in pvr("app", "add", "web", "--from", rare, "--source", "local").stderr
        assert "has no image" in pvr("app", "add", "no", "--from", "none:1", "--source", "local", code=3).stderr
        assert "already up to date" in pvr("app", "install", "web").stderr
    app = tmp_path / "repo/web"
    found = of_squashfs(app / "root.squashfs", tmp_path / "from-podman")
    assert set(found) - set(expected) == {b"var", b"var/run", b"var/tmp"}, "what every container needs"
    assert {path: found[path] for path in expected} == expected
    src = json.loads((app / "src.json").read_text())
    assert src["docker_source"] == "local"
    assert src["docker_config"]["User"] == "1000:1001"
    conf = (app / "lxc.container.conf").read_text()
    assert "lxc.init.cwd = /d\n" in conf
    assert "lxc.environment = A=b c\n" in conf
