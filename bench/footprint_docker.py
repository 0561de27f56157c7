"""Docker Engine (Debian's docker.io) in the same guest with the same three containers, measured as our runtime is.

Kernel, memory and processor are those of `bench.footprint`. The disk holds Debian's packages and nothing else; init is
a shell script that starts the engine without its network (ours has none of its own either), imports an image of busybox
and runs it three times. Counted are the engine's processes: dockerd, containerd, a shim for each container.
"""

from __future__ import annotations

import io
import re
import shutil
import tarfile
from pathlib import Path
from typing import NamedTuple

from brickless.image import cpio, debian
from brickless.image.compress import Compression, write
from brickless.linux import process
from brickless.main.artefacts import Artefacts
from brickless.testkit import busybox
from brickless.twin.console import Console
from brickless.twin.qemu import Boot, Machine

PACKAGES = ("docker.io", "ca-certificates")
DISK_MB = 1024
UP_TIMEOUT_S = 600.0
SETTLE_S = 30
IDLE_S = 60
MODULES = "virtio_pci virtio_blk virtio_net overlay veth bridge"
COMMAND_LINE = "console=ttyS0 panic=2 rdinit=/init root=/dev/ram"

FIRST = f"""#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
for module in {MODULES}; do /bin/busybox modprobe $module; done
until [ -b /dev/vda ]; do /bin/busybox sleep 0.1; done
/bin/busybox mount -t ext4 /dev/vda /root
exec /bin/busybox switch_root /root /start
"""
START = f"""#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
$b mkdir -p /dev/pts /dev/shm /run /tmp
$b mount -t devpts devpts /dev/pts; $b mount -t tmpfs shm /dev/shm; $b mount -t tmpfs run /run
$b mount -t cgroup2 cgroup2 /sys/fs/cgroup
$b ip link set lo up
dockerd --iptables=false --ip6tables=false --bridge=none --storage-driver=overlay2 >/dockerd.log 2>&1 &
until docker version >/dev/null 2>&1; do
    $b kill -0 $! 2>/dev/null || {{ $b cat /dockerd.log; echo "docker: failed"; }}
    $b sleep 0.2
done
docker import /image.tar bench >/dev/null
for name in one two three; do
    docker run -d --network host --name $name bench /bin/sleep 1000000000 >/dev/null || echo "docker: failed"
done
echo "docker: up $(docker ps -q | $b wc -l)"
show() {{
    for process in /proc/[0-9]*; do
        name=$($b cat $process/comm 2>/dev/null)
        case "$name" in
        dockerd|containerd|containerd-shim*)
            pss=$($b awk '/^Pss:/ {{ print $2 }}' $process/smaps_rollup)
            woken=$($b cat $process/task/*/status | $b awk '/^voluntary_ctxt/ {{ n += $2 }} END {{ print n }}')
            echo "docker: $1 ${{process##*/}} $name $pss $woken"
        esac
    done
}}
$b sleep {SETTLE_S}
show before
$b sleep {IDLE_S}
show after
echo "docker: measured"
while :; do $b sleep 1000; done
"""
LINE = re.compile(r"docker: (before|after) (\d+) (\S+) (\d+) (\d+)")


class Engine(NamedTuple):
    """What was measured: seconds from QEMU's start until three containers run, PSS in kB by process, wake-ups."""

    up_s: float
    pss_kb: dict[str, int]
    wakeups_per_s: float


def measure(artefacts: Artefacts, scratch: Path) -> Engine:
    """Boot it and read the figures from its console. Raises `TwinError` when the engine does not come up."""
    disk, initrd = scratch / "docker.img", scratch / "docker.initrd"
    _disk(artefacts, scratch, disk)
    _initrd(artefacts, initrd)
    console = Console(scratch / "docker.log")
    with Machine(Boot(artefacts.kernel.image, initrd, COMMAND_LINE), console, disk=disk) as machine:
        machine.start()
        begin = console.wait_for("Linux version", timeout_s=UP_TIMEOUT_S)
        up = console.wait_for(r"docker: (up 3|failed)", timeout_s=UP_TIMEOUT_S)
        console.wait_for("docker: measured", timeout_s=UP_TIMEOUT_S)
    console.close()
    text = (scratch / "docker.log").read_text(errors="replace")
    rows = [match.groups() for match in LINE.finditer(text)]
    before = {pid: int(woken) for when, pid, _, _, woken in rows if when == "before"}
    after = [(pid, name, int(pss), int(woken)) for when, pid, name, pss, woken in rows if when == "after"]
    if "docker: failed" in text or not after:
        raise RuntimeError(f"Docker Engine did not come up in the guest: {text[-2000:]}")
    woken = sum(count - before.get(pid, 0) for pid, _, _, count in after)
    pss = {f"{name} {pid}": size for pid, name, size, _ in after}
    return Engine(up.at_s - begin.at_s, pss, woken / IDLE_S)


def _disk(artefacts: Artefacts, scratch: Path, out: Path) -> None:
    tree = scratch / "docker"
    debian.extract(debian.fetch(PACKAGES, artefacts.folder / "debian"), tree)
    program = busybox.program(artefacts.folder)
    (tree / "bin").mkdir(exist_ok=True)
    shutil.copyfile(program, tree / "bin/busybox")
    (tree / "bin/busybox").chmod(0o755)
    (tree / "start").write_text(START)
    (tree / "start").chmod(0o755)
    for folder in ("proc", "sys", "dev", "run", "tmp", "root", "var/lib/docker", "etc"):
        (tree / folder).mkdir(parents=True, exist_ok=True)
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\ndocker:x:999:\n")
    (tree / "image.tar").write_bytes(_image(program))
    with out.open("wb") as stream:
        stream.truncate(DISK_MB << 20)
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(tree), str(out)]
    process.run(argv, purpose="making Docker's disk", timeout_s=300)
    shutil.rmtree(tree)


def _image(program: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, target in (("bin/busybox", None), ("bin/sleep", "busybox"), ("bin/sh", "busybox")):
            member = tarfile.TarInfo(name)
            member.mode = 0o755
            if target is None:
                content = program.read_bytes()
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = tarfile.SYMTYPE, target
                tar.addfile(member)
    return buffer.getvalue()


def _initrd(artefacts: Artefacts, out: Path) -> None:
    archive = cpio.Archive()
    for path, target in {"bin": "usr/bin", "lib": "usr/lib", "sbin": "usr/sbin"}.items():
        archive.symlink(path, target)
    archive.file("usr/bin/busybox", busybox.program(artefacts.folder), 0o755)
    archive.device("dev/console", 5, 1)
    archive.file("init", FIRST.encode(), 0o755)
    write(archive.chunks(), out, Compression.NONE)
    with out.open("ab") as stream:
        stream.write(bytes(-stream.tell() % 4))
        stream.write(artefacts.modules.read_bytes())
