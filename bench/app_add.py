"""`pvr app add` of a large image against `umoci unpack` and `mksquashfs`: time, and peak memory of everything we start.

`measure()` is also a part of the benchmark `pvr`. Both sides read the same OCI layout (gzip layers, about 200 MB
files from Debian packages), write squashfs with the same compressor, and run as root, which umoci needs to keep owners.
Rounds alternate, and the best of each side counts: the machine may be busy with other things.
`python -m bench.app_add --large` measures the memory alone, with an image of 2 GB and 60,000 files.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench.report import report
from brickless.image import debian
from brickless.linux import process
from brickless.oci.app import Build, add_app
from brickless.oci.flatten import Flattener
from brickless.oci.layout import LayoutWriter
from brickless.testkit.archives import file, tar_of
from brickless.testkit.debian_image import GZIP, PLAIN, DebLayer, write_image

CACHE = Path(__file__).parents[1] / ".cache"
# About 200 MB of what images hold: libraries, an interpreter with thousands of small files, a few large programs.
PACKAGES = ("python3-numpy", "git", "openssh-server")
LAYERS = 4
ROUNDS = 3
MIB = 1 << 20


class Taken(NamedTuple):
    """How long something took: by the clock, and of the processors. The latter hardly depends on what else runs."""

    wall_s: float
    cpu_s: float


def large_layout(folder: Path) -> tuple[Path, float]:
    """An OCI layout of a real file system of about 200 MB in four gzip layers, and its unpacked size in MB."""
    debs = debian.fetch(PACKAGES, CACHE / "debian")
    layers, size = [], 0
    for part in range(LAYERS):
        with Flattener(keep_folder_links=True) as flattener:
            for deb in debs[part::LAYERS]:
                flattener.add(DebLayer(deb))
            data = b"".join(flattener.tar_chunks())
        size += len(data)
        layers.append((data, GZIP))
    writer = LayoutWriter(folder)
    writer.finish([(write_image(writer, layers, {"Cmd": ["/bin/true"]}), "latest")])
    return folder, size / MIB


def huge_layout(folder: Path) -> tuple[Path, float]:
    """An OCI layout of 2 GB in two layers: large files, and 60,000 small ones; and its unpacked size in MB."""
    noise = os.urandom(8 * MIB)
    members = [(f"large/{n}", file(noise[n * 4096 :] + noise[: n * 4096])) for n in range(240)]
    small = [(f"small/{n % 200}/{n}", file(noise[n : n + 1024])) for n in range(60_000)]
    writer = LayoutWriter(folder)
    layers = [(tar_of(*members), PLAIN), (tar_of(*small), GZIP)]
    writer.finish([(write_image(writer, layers, {"Cmd": ["/bin/true"]}), "latest")])
    return folder, sum(len(data) for data, _ in layers) / MIB


def large() -> None:
    """Report the peak memory of adding a huge image."""
    with tempfile.TemporaryDirectory(prefix="brickless-bench-") as name:
        layout, size_mb = huge_layout(Path(name, "image"))
        report("app-add-large", {"app_add_peak_mb": _peak(Path(name), layout), "app_add_image_mb": size_mb})


def measure() -> tuple[dict[str, float | None], dict[str, float | None], dict[str, float | None]]:
    """Figures, peers and ratios; the peer's are None where umoci is not installed or we are not root."""
    with tempfile.TemporaryDirectory(prefix="brickless-bench-") as name:
        folder = Path(name)
        layout, size_mb = large_layout(folder / "image")
        with_peer = process.find("umoci") is not None and os.geteuid() == 0
        rounds = [(_ours(folder, layout), _umoci(folder, layout) if with_peer else None) for _ in range(ROUNDS)]
        ours = _best([mine for mine, _ in rounds])
        theirs = _best([peer for _, peer in rounds if peer is not None]) if with_peer else None
        peak_mb = _peak(folder, layout)
    figures: dict[str, float | None] = {"app_add_s": ours.wall_s, "app_add_cpu_s": ours.cpu_s}
    figures |= {"app_add_peak_mb": peak_mb, "app_add_image_mb": size_mb}
    if theirs is None:
        return figures, {}, {"app_add_vs_umoci": None}
    peers: dict[str, float | None] = {"umoci_mksquashfs_s": theirs.wall_s, "umoci_mksquashfs_cpu_s": theirs.cpu_s}
    ratios: dict[str, float | None] = {"app_add_vs_umoci": ours.wall_s / theirs.wall_s}
    return figures, peers, ratios | {"app_add_cpu_vs_umoci": ours.cpu_s / theirs.cpu_s}


def _best(taken: list[Taken]) -> Taken:
    return Taken(min(one.wall_s for one in taken), min(one.cpu_s for one in taken))


def _cpu_s() -> float:
    """The processor time of this process and of all children that it has waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _ours(folder: Path, layout: Path) -> Taken:
    repo = folder / "repo"
    repo.mkdir()
    start_s, start_cpu_s = time.monotonic(), _cpu_s()
    add_app(repo, "app", f"oci:{layout}", build=Build(cache=folder / "cache"))
    taken = Taken(time.monotonic() - start_s, _cpu_s() - start_cpu_s)
    shutil.rmtree(repo)
    return taken


def _umoci(folder: Path, layout: Path) -> Taken:
    bundle, dest = folder / "bundle", folder / "umoci.squashfs"
    start_s, start_cpu_s = time.monotonic(), _cpu_s()
    process.run(["umoci", "unpack", "--image", f"{layout}:latest", str(bundle)], purpose="unpack", timeout_s=600)
    options = ["-comp", "zstd", "-Xcompression-level", "12", "-no-progress", "-quiet"]
    process.run(["mksquashfs", str(bundle / "rootfs"), str(dest), *options], purpose="squash", timeout_s=600)
    taken = Taken(time.monotonic() - start_s, _cpu_s() - start_cpu_s)
    shutil.rmtree(bundle)
    dest.unlink()
    return taken


def _peak(folder: Path, layout: Path) -> float:
    """Peak resident memory in MB: of a fresh Python process that adds the app, plus that of mksquashfs under it."""
    repo = folder / "peak"
    repo.mkdir()
    done = process.run(
        [sys.executable, "-m", "bench.app_add", "--one", str(repo), str(layout)],
        purpose="measure the memory of app add",
        timeout_s=600,
        cwd=str(Path(__file__).parents[1]),
    )
    return float(done.stdout.split()[-1])


def _one(repo: str, layout: str) -> None:
    add_app(Path(repo), "app", f"oci:{layout}", build=Build(cache=Path(repo) / "cache"))
    # The high-water mark of the process itself: `ru_maxrss` would begin with its parent's.
    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print((int(own.split()[1]) + children) / 1024)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _one(*sys.argv[2:])
    elif sys.argv[1:2] == ["--large"]:
        large()
    else:
        report("app-add", *measure())
