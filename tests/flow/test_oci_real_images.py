"""Real images of real software, every feature of layers in them, unpacked entry by entry as umoci unpacks them as root.

Twelve and more images: Debian systems, Python and Node software, our own stacks with the rare features, in layouts
made by us and in copies that skopeo wrote. Compared: type, mode, owner, device, target, hard links,
attributes, content.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brickless.linux import process
from brickless.oci.layout import LayoutWriter
from brickless.testkit.archives import file, folder, hardlink, symlink, tar_of
from brickless.testkit.debian_image import GZIP, PLAIN, debian_layer, debian_layers, write_image
from brickless.testkit.unpacked import by_umoci, by_us

CACHE = Path(__file__).parents[2] / ".cache" / "debian"
pytestmark = pytest.mark.needs("root", "umoci")
Layers = list[tuple[bytes, str]]
CAPABILITY = bytes([1, 0, 0, 2, 0, 4, 0, 0, *([0] * 12)]).decode()


def packages(*names: str, closure: bool = True) -> Layers:
    return debian_layers(names, CACHE, closure=closure)


def features() -> Layers:
    lower = tar_of(
        ("./", folder(mode=0o755)),
        ("bin/su", file(b"su", mode=0o4755)),
        ("bin/ping", file(b"ping", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": CAPABILITY})),
        ("bin/user-xattr", file(b"x", pax_headers={"SCHILY.xattr.user.note": "a=b\nc"})),
        ("dev", folder()),
        ("dev/null", {"type": b"3", "devmajor": 1, "devminor": 3, "mode": 0o666}),
        ("dev/sda", {"type": b"4", "devmajor": 8, "devminor": 0, "mode": 0o660, "gid": 6}),
        ("fifo", {"type": b"6", "mode": 0o644}),
        ("a", file(b"shared", uid=1000, gid=1001, mtime=1_500_000_000)),
        ("b", hardlink("a")),
        ("d/e/f", file(b"deep")),
        ("spaces and \udcff\udcfe", file(b"bytes")),
        ("n" * 200, file(b"long name")),
        ("tmp", folder(mode=0o1777)),
    )
    upper = tar_of(
        ("c", hardlink("b")),
        (".wh.a", file()),
        ("d", folder(mode=0o700, uid=5)),
        ("d/.wh..wh..opq", file()),
        ("d/new", file(b"2")),
        ("bin/su", file(b"su2", mode=0o2755, gid=50)),
        ("link", symlink("d/new")),
        ("abs", symlink("/d")),
    )
    return [(lower, GZIP), (upper, GZIP), (tar_of(("abs/through", file(b"3")), ("link", file(b"no link"))), PLAIN)]


def replaced() -> Layers:
    """Files become folders and folders files; whiteouts of both."""
    one = tar_of(("x", folder()), ("x/1", file(b"1")), ("y", file(b"y")), ("z", folder()), ("z/1", file(b"1")))
    two = tar_of(("x", file(b"x")), ("y", folder()), ("y/1", file(b"1")), (".wh.z", file()))
    three = tar_of((".wh.x", file()), ("y/.wh.1", file()), ("z", folder(mode=0o711)), ("z/2", file(b"2")))
    return [(one, GZIP), (two, GZIP), (three, GZIP)]


def sparse() -> Layers:
    data = bytes(1 << 20) + b"end"
    return [(tar_of(("sparse", file(data)), ("empty", file(b"")), ("one", file(b"x"))), GZIP)]


def many() -> Layers:
    members: list[tuple[str, dict[str, Any]]] = [
        (f"d{n % 50}/f{n}", file(b"%d" % n, mode=0o600 + n % 64)) for n in range(3000)
    ]
    return [(tar_of(*members[:1500]), GZIP), (tar_of(*members[1000:]), GZIP)]


def gnu() -> Layers:
    data = tar_of(
        ("p" * 90 + "/" + "q" * 90, file(b"x", uid=3_000_000)), ("l", symlink("t" * 200)), form=tarfile.GNU_FORMAT
    )
    return [(data, GZIP)]


IMAGES: dict[str, Callable[[], Layers]] = {
    "debian libc": lambda: [(debian_layer(["libc6", "libgcc-s1"], CACHE), GZIP)],
    "busybox": lambda: packages("busybox-static"),
    "python": lambda: packages("python3-minimal"),
    "python flask": lambda: packages("python3-flask"),
    "node": lambda: packages("node-semver", closure=False) + packages("libnode108", "nodejs", closure=False),
    "ping with capabilities": lambda: packages("iputils-ping"),
    "sudo and passwd": lambda: packages("sudo", "passwd"),
    "openssh": lambda: packages("openssh-server", "openssh-client", closure=False),
    "perl": lambda: packages("perl-base", closure=False),
    "features of layers": features,
    "files that become folders": replaced,
    "holes": sparse,
    "three thousand files": many,
    "GNU headers": gnu,
}


def write(folder: Path, layers: Layers) -> Path:
    layout = LayoutWriter(folder)
    layout.finish([(write_image(layout, layers, {"Cmd": ["/bin/true"]}), "latest")])
    return folder


@pytest.mark.parametrize("name", list(IMAGES))
def test_our_squashfs_holds_what_umoci_unpacks_as_root(name: str, tmp_path: Path) -> None:
    layout = write(tmp_path / "image", IMAGES[name]())
    theirs, ours = by_umoci(layout, tmp_path / "bundle"), by_us(f"oci:{layout}", tmp_path)
    assert len(ours) > 1
    difference = {
        path: (ours.get(path), theirs.get(path)) for path in ours | theirs if ours.get(path) != theirs.get(path)
    }
    assert difference == {}


@pytest.mark.needs("skopeo")
def test_copies_of_another_tool_give_the_same_squashfs(tmp_path: Path) -> None:
    layout = write(tmp_path / "image", [*features(), (debian_layer(["zlib1g"], CACHE), GZIP)])
    os.mkdir(tmp_path / "first")
    by_us(f"oci:{layout}", tmp_path / "first")
    expected = (tmp_path / "first/root.squashfs").read_bytes()
    targets = {
        f"oci:{tmp_path}/copy": f"oci:{tmp_path}/copy",
        f"oci-archive:{tmp_path}/copy.tar": f"oci-archive:{tmp_path}/copy.tar",
        f"docker-archive:{tmp_path}/docker.tar:web:1": f"docker-archive:{tmp_path}/docker.tar",
    }
    for number, (target, source) in enumerate(targets.items()):
        process.run(
            ["skopeo", "--insecure-policy", "copy", "-q", f"oci:{layout}:latest", target],
            purpose="copy the image",
            timeout_s=120,
            env={"TMPDIR": str(tmp_path)},
        )
        os.mkdir(tmp_path / str(number))
        by_us(source, tmp_path / str(number))
        assert (tmp_path / str(number) / "root.squashfs").read_bytes() == expected, target
