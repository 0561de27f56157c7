"""The container `sdk`: a shell and the device's own command-line tools, for working on a device from the device.

busybox, Python as on the device, `pvcontrol`, `pvtx`, `pvcurl`. It manages the device by its role alone; nothing in it
is privileged. Reproducible and without root, as all images of ours.
"""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from brickless.image import debian
from brickless.image.initramfs import tools, unpacked
from brickless.linux import process

BUSYBOX = "busybox-static"
APPLETS = (
    "cat", "chmod", "cp", "cut", "date", "echo", "env", "false", "grep", "gzip", "head", "httpd", "id", "kill", "ln",
    "logger", "ls", "mkdir", "mv", "ps", "rm", "sed", "seq", "sh", "sha256sum", "sleep", "sort", "stat", "tail", "tar",
    "touch", "tr", "true", "umount", "uname", "wc",
)  # fmt: skip
FOLDERS = ("dev", "etc", "pantavisor", "proc", "root", "run", "sys", "tmp", "var/cache", "www/cgi-bin")
SQUASHFS_TIMEOUT_S = 300.0


def rootfs(out: Path, cache: Path, files: Mapping[str, bytes] | None = None) -> Path:
    """Write the squashfs with everything above and `files` (all executable); returns `out`."""
    process.require("sqfstar", "squashfs-tools")
    argv = ["sqfstar", "-quiet", "-no-progress", "-comp", "zstd", "-mkfs-time", "0", str(out)]
    out.unlink(missing_ok=True)
    chunks = _tar(cache, files or {})
    process.pipe(argv, purpose="packing the sdk container", stdin_chunks=chunks, timeout_s=SQUASHFS_TIMEOUT_S)
    return out


def _tar(cache: Path, files: Mapping[str, bytes]) -> Iterator[bytes]:
    busybox = unpacked(debian.fetch([BUSYBOX], cache / "debian", closure=False), cache / "trees") / "bin/busybox"
    with tools(cache) as archive:
        archive.file("usr/bin/busybox", busybox, 0o755)
        for applet in APPLETS:
            archive.symlink(f"usr/bin/{applet}", "busybox")
        for folder in FOLDERS:
            archive.directory(folder)
        archive.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        for path, content in files.items():
            archive.file(path, content, 0o755)
        for path in archive.paths():
            entry = archive[path]
            info = tarfile.TarInfo(path)
            info.mode = stat.S_IMODE(entry.mode)
            data = entry.source.read_bytes() if entry.source is not None else entry.data
            if stat.S_ISDIR(entry.mode):
                info.type = tarfile.DIRTYPE
            elif stat.S_ISLNK(entry.mode):
                info.type, info.linkname, data = tarfile.SYMTYPE, data.decode(), b""
            info.size = len(data) if stat.S_ISREG(entry.mode) else 0
            yield info.tobuf(tarfile.PAX_FORMAT)
            if info.size:
                yield data + b"\0" * (-len(data) % tarfile.BLOCKSIZE)
        yield b"\0" * tarfile.RECORDSIZE
