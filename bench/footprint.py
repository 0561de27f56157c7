"""How small the runtime is: memory, wake-ups and boot times of an emulated device with three containers and a hub.

Run by `make bench B=footprint`. The guest is the demo's (Debian's cloud kernel in QEMU, no KVM, 256 MB, one CPU); the
device has three containers and is connected to a hub over TLS, with a product's intervals. Memory is PSS summed over
the runtime's processes (PID 1, supervisor, agent, one LXC monitor a container), the containers' own left out. A
container that sees the device's /proc reads the figures, as a monitoring container of a product would.
The first line of PID 1 is timed beside a busybox shell's, in the same kernel, in turn. Docker Engine runs the same
three containers in the same guest beside it (`bench.footprint_docker`).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import httpx

from bench import footprint_docker
from bench.report import report
from brickless.image import cpio, factory, storage
from brickless.image.bsp import Bsp
from brickless.image.compress import Compression, write
from brickless.main.artefacts import Artefacts, Variant
from brickless.main.hubapi import wait_until
from brickless.main.lab import Lab, free_port
from brickless.main.talk import Talk
from brickless.store.objects import ObjectStore
from brickless.testkit import busybox
from brickless.twin.console import Console
from brickless.twin.device import EmulatedDevice
from brickless.twin.qemu import SERVICE_ADDRESS, Boot, Forward, Hardware, Machine, Service

CACHE = Path(".cache")
ROUNDS = 3
BOOT_TIMEOUT_S = 120.0
SETTLE_S = 30.0
IDLE_S = 60.0
PROBE_PORT = 8080
HUB_PORT = 12366
# Three containers of the reference runtime, from the start of its kernel, in the guest measured for comparison.
REFERENCE_UP_S = 14.2
CONTAINERS = ("network", "probe", "idle")

# One record a process: its pid, command line, control group, memory, and context switches of each thread.
PROBE = b"""#!/bin/sh
echo "Content-Type: text/plain"
echo
for process in /host/proc/[0-9]*; do
    echo "@process ${process##*/}"
    echo "@command $(tr '\\0' ' ' <$process/cmdline)"
    echo "@group $(cat $process/cgroup)"
    grep -E '^(Pss|Rss):' $process/smaps_rollup
    cat $process/task/*/status | grep '^voluntary_ctxt'
done 2>/dev/null
"""


class Process(NamedTuple):
    """One process of the guest that is the runtime's own."""

    pid: int
    command: str
    pss_kb: int
    rss_kb: int
    switches: int


def main() -> None:
    """Measure, print a line for each process, then the report."""
    CACHE.mkdir(exist_ok=True)
    artefacts = Artefacts(CACHE.absolute(), own=True)
    with tempfile.TemporaryDirectory(prefix="brickless-footprint-", dir=artefacts.folder) as scratch:
        size_mb = _initramfs_mb(artefacts)
        ours_s, busybox_s = _first_lines(artefacts, Path(scratch))
        with Lab(Path(scratch) / "lab", artefacts, Talk()) as lab:
            up_s, processes, wakeups_per_s = device(lab, artefacts)
        docker = footprint_docker.measure(artefacts, Path(scratch))
    for one in processes:
        print(f"  {one.pid:>6} {one.pss_kb:>7} kB PSS {one.rss_kb:>7} kB RSS  {one.command[:70]}")
    for name, size_kb in docker.pss_kb.items():
        print(f"  Docker {size_kb:>7} kB PSS  {name}")
    total_mb = sum(one.pss_kb for one in processes) / 1024
    docker_mb = sum(docker.pss_kb.values()) / 1024
    report(
        "footprint",
        {
            "initramfs_xz_mb": size_mb,
            "pss_total_mb": total_mb,
            "rss_total_mb": sum(one.rss_kb for one in processes) / 1024,
            "pss_pid1_mb": next(one.pss_kb for one in processes if one.pid == 1) / 1024,
            "idle_wakeups_per_s": wakeups_per_s,
            "pid1_first_line_s": ours_s,
            "containers_up_s": up_s,
        },
        {
            "busybox_first_line_s": busybox_s,
            "docker_pss_total_mb": docker_mb,
            "docker_idle_wakeups_per_s": docker.wakeups_per_s,
            "docker_containers_up_s": docker.up_s,
        },
        {
            "pid1_vs_busybox_first_line": ours_s / busybox_s,
            "pid1_after_busybox_s": ours_s - busybox_s,
            "pss_vs_docker": total_mb / docker_mb,
            "containers_up_vs_reference": up_s / REFERENCE_UP_S,
        },
    )


def _initramfs_mb(artefacts: Artefacts) -> float:
    return artefacts.initramfs(Variant.FACTORY, Compression.XZ).stat().st_size / 1e6


def _first_lines(artefacts: Artefacts, scratch: Path) -> tuple[float, float]:
    """Medians, seconds from QEMU's start to the first line of our PID 1 and of a busybox shell, booted in turn."""
    archive = cpio.Archive()
    archive.file("bin/busybox", busybox.program(artefacts.folder), 0o755)
    archive.symlink("bin/sh", "busybox")
    archive.device("dev/console", 5, 1)
    archive.file("usr/bin/pantavisor", b"#!/bin/sh\necho 'busybox: pid1 up'\nexec /bin/busybox sleep 1000\n", 0o755)
    shell = scratch / "busybox.cpio"
    write(archive.chunks(), shell, Compression.ZSTD)
    ours = artefacts.initramfs(Variant.FACTORY)
    seconds: dict[str, list[float]] = {"brickless": [], "busybox": []}
    for number in range(ROUNDS):
        for name, initrd in (("brickless", ours), ("busybox", shell)):
            seconds[name].append(_first_line(artefacts, initrd, name, scratch / f"{name}-{number}.log"))
    return statistics.median(seconds["brickless"]), statistics.median(seconds["busybox"])


def _first_line(artefacts: Artefacts, initrd: Path, name: str, log: Path) -> float:
    line = "console=ttyS0 panic=2 rdinit=/usr/bin/pantavisor root=/dev/ram pv_rev=0"
    console = Console(log)
    with Machine(Boot(artefacts.kernel.image, initrd, line), console) as machine:
        begin_s = time.monotonic()
        machine.start()
        found = console.wait_for(f"^{name}: pid1 up", timeout_s=BOOT_TIMEOUT_S)
    console.close()
    return found.at_s - begin_s


def device(lab: Lab, artefacts: Artefacts, hardware: Hardware | None = None) -> tuple[float, list[Process], float]:
    """Seconds from QEMU's start to three containers, the runtime's processes at idle, its wake-ups a second."""
    folder = lab.state / "device"
    folder.mkdir()
    settings = {
        "PH_CREDS_HOST": SERVICE_ADDRESS,
        "PH_CREDS_PORT": str(HUB_PORT),
        "PH_FACTORY_AUTOTOK": lab.api.join_token("device"),
    }
    board = lab.bsp(Variant.FACTORY)
    storage.build(
        folder / "disk.img", fill=lambda objects: _revision(objects, artefacts, board), size_mb=256, config=settings
    )
    port = free_port()
    twin = EmulatedDevice(
        folder,
        services=[Service(HUB_PORT, lab.hub.tls_port)],
        forwards=[Forward(port, PROBE_PORT)],
        hardware=hardware,
    )
    with twin:
        ups = [twin.wait_for(f"container {name} STARTED", timeout_s=BOOT_TIMEOUT_S) for name in CONTAINERS]
        up_s = max(found.at_s for found in ups) - twin.boots[0].at_s
        lab.api.wait_for_step(lab.api.wait_for_device("device", BOOT_TIMEOUT_S), 0, BOOT_TIMEOUT_S)
        time.sleep(SETTLE_S)  # the interval to be idle in, not a way to wait for something
        before, begin_s = _probe(port), time.monotonic()
        time.sleep(IDLE_S)
        after, end_s = _probe(port), time.monotonic()
    earlier = {one.pid: one.switches for one in before}
    woken = sum(one.switches - earlier.get(one.pid, 0) for one in after)
    return up_s, after, woken / (end_s - begin_s)


def _probe(port: int) -> list[Process]:
    def answer() -> str | None:
        try:
            response = httpx.get(f"http://127.0.0.1:{port}/cgi-bin/probe", timeout=60.0, trust_env=False)
        except httpx.HTTPError:
            return None
        return response.text if response.status_code == 200 and "@process" in response.text else None

    return _processes(wait_until(answer, BOOT_TIMEOUT_S, "the probe answers"))


def _processes(text: str) -> list[Process]:
    """The runtime's own: they have memory (kernel threads have none) and are not in a container's control group.

    The probe sees groups from its own: its processes are in `/`, another container's in `/../lxc.payload.NAME`.
    """
    found = []
    for record in text.split("@process ")[1:]:
        lines = record.splitlines()
        values: dict[str, int] = {}
        for line in lines:
            name, _, rest = line.partition(":")
            if name in {"Pss", "Rss", "voluntary_ctxt_switches"}:
                values[name] = values.get(name, 0) + int(rest.split()[0])
        command = next((line[9:] for line in lines if line.startswith("@command")), "")
        contained = any(line.startswith("@group") and (line.endswith("::/") or "lxc.payload" in line) for line in lines)
        if "Pss" in values and not contained:
            switches = values.get("voluntary_ctxt_switches", 0)
            found.append(Process(int(lines[0]), command, values["Pss"], values["Rss"], switches))
    return found


def _revision(objects: ObjectStore, artefacts: Artefacts, board: Bsp) -> bytes:
    """The factory revision with two more containers: the probe, and one that does nothing."""
    squashfs = busybox.rootfs(
        artefacts.folder / "artefacts" / "bench-probe.squashfs", artefacts.folder, {"www/cgi-bin/probe": PROBE}
    )
    serve = f"/bin/httpd -f -p {PROBE_PORT} -h /www"
    mount = "lxc.mount.entry = /proc host/proc none bind,create=dir"
    extra = busybox.container(objects, "probe", serve, squashfs, lines=[mount])
    extra.update(busybox.container(objects, "idle", "/bin/sleep 1000000000", squashfs))
    return factory.revision(objects, board, artefacts.folder, extra=extra)


if __name__ == "__main__":
    main()
