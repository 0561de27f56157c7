"""Small containers of busybox for tests and benchmarks: seconds to build, a megabyte large, real all the same."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from brickless.core import canonical
from brickless.image import debian
from brickless.image.arch import AMD64, Arch
from brickless.image.initramfs import unpacked
from brickless.linux import process
from brickless.store.objects import ObjectStore

PACKAGE = "busybox-static"
APPLETS = ("cat", "echo", "grep", "httpd", "sh", "sleep", "tr")
FOLDERS = ("bin", "dev", "etc", "host", "host/proc", "proc", "run", "sys", "tmp", "www", "www/cgi-bin")
SQUASHFS_TIMEOUT_S = 60.0
_CONFIG = """lxc.rootfs.path = overlayfs:/volumes/{name}/root.squashfs:/volumes/{name}/lxc-overlay/upper
lxc.init.cmd = {command}
lxc.environment = PATH=/bin
lxc.namespace.keep = user net ipc
lxc.signal.halt = SIGTERM
lxc.mount.auto = proc sys:rw
"""


def program(cache: Path, arch: Arch = AMD64) -> Path:
    """Debian's static busybox; packages are kept in `cache`."""
    debs = debian.fetch([PACKAGE], cache / "debian", arch=arch.debian, closure=False)
    return unpacked(debs, cache / "trees") / "bin/busybox"


def rootfs(out: Path, cache: Path, files: Mapping[str, bytes] | None = None, arch: Arch = AMD64) -> Path:
    """A squashfs of busybox, the usual folders, and `files` (all executable). Returns `out`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in FOLDERS:
            tar.addfile(_member(path, tarfile.DIRTYPE))
        for path, content in {"bin/busybox": program(cache, arch).read_bytes(), **(files or {})}.items():
            member = _member(path, tarfile.REGTYPE)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for applet in APPLETS:
            member = _member(f"bin/{applet}", tarfile.SYMTYPE)
            member.linkname = "busybox"
            tar.addfile(member)
    out.unlink(missing_ok=True)
    argv = [process.require("sqfstar", "squashfs-tools"), "-quiet", "-no-progress", "-comp", "zstd", str(out)]
    process.pipe(argv, purpose="packing busybox", stdin_chunks=[buffer.getvalue()], timeout_s=SQUASHFS_TIMEOUT_S)
    return out


def container(
    objects: ObjectStore, name: str, command: str, squashfs: Path, *, group: str = "app", lines: Sequence[str] = ()
) -> dict[str, canonical.JsonValue]:
    """The entries of a state for a container that runs `command`; `lines` are added to its LXC configuration."""
    config = _CONFIG.format(name=name, command=command) + "".join(f"{line}\n" for line in lines)
    return {
        f"{name}/root.squashfs": objects.add_file(str(squashfs)),
        f"{name}/lxc.container.conf": objects.add([config.encode()]),
        f"{name}/run.json": {
            "#spec": "service-manifest-run@1",
            "config": "lxc.container.conf",
            "group": group,
            "name": name,
            "root-volume": "root.squashfs",
            "storage": {"lxc-overlay": {"persistence": "boot"}},
            "type": "lxc",
            "volumes": [],
        },
    }


def _member(path: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.mode = kind, 0o755
    return info
