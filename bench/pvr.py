"""`pvr` beside git: start-up, `status` and `commit` on 10,000 files and 2 GB; and `app add` beside umoci + mksquashfs.

Both look at the same bytes in the same run. The peer is given its best: git's index is fresh, no untracked cache is
needed since nothing is untracked, and the best of several rounds counts for both. `--small` uses a tenth of the data.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from bench import app_add
from bench.report import report
from brickless.linux import process

FILES = 10_000
TREE_BYTES = 2 << 30
ROUNDS = 7
ROUNDS_IN_TURN = 30
PVR = str(Path(sys.executable).with_name("pvr"))


def make_tree(folder: Path, total_bytes: int) -> None:
    """Files like those of a repository of apps: most are small, a few hold most of the bytes, some are JSON."""
    small_bytes = total_bytes // 4 // FILES
    large = FILES // 100
    large_bytes = (total_bytes - small_bytes * FILES) // large
    for number in range(FILES):
        path = folder / f"part{number % 50}" / f"dir{number // 50 % 20}" / f"file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 100 == 1:
            path.with_suffix(".json").write_text(f'{{"number":{number}}}')
            continue
        size = large_bytes if number % 100 == 0 else small_bytes
        # Random enough that no file is like another, cheap enough that the disk is what we wait for.
        seed = os.urandom(4096)
        path.write_bytes((seed * (size // 4096 + 1))[:size])


def timed(argv: list[str], cwd: Path, env: dict[str, str], rounds: int = 1) -> float:
    """The best wall time of some runs, in seconds."""
    best_s = float("inf")
    for _ in range(rounds):
        start_s = time.perf_counter()
        process.run(argv, purpose="benchmark", timeout_s=1800, cwd=str(cwd), env=env)
        best_s = min(best_s, time.perf_counter() - start_s)
    return best_s


def in_turn(
    ours: list[str], theirs: list[str], cwd: Path, env: dict[str, str]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The best wall time and the best processor time, in seconds, of each of two programs that run in turn.

    Whatever else the machine does falls upon both. Processor time tells them apart even where others want the cores.
    """
    taken: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
    for _ in range(ROUNDS_IN_TURN):
        for argv, found in zip((ours, theirs), taken, strict=True):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            wall_s = timed(argv, cwd, env)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            found.append((wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    mine, peer = ((min(w for w, _ in found), min(c for _, c in found)) for found in taken)
    return mine, peer


def measure_tree(total_bytes: int) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Figures of pvr and of git on the same tree."""
    with tempfile.TemporaryDirectory(prefix="brickless-bench-") as name:
        tree = Path(name, "tree")
        tree.mkdir()
        make_tree(tree, total_bytes)
        env = {"HOME": name, "PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1"}
        figures: dict[str, float | None] = {"startup_ms": timed([PVR, "--version"], tree, env, ROUNDS) * 1000}
        # `.git` and `.pvr` lie outside each other's view: each repository has its own copy of nothing but its metadata.
        git = [
            "git",
            f"--git-dir={name}/git",
            f"--work-tree={tree}",
            "-c",
            "gc.auto=0",
            "-c",
            "maintenance.auto=false",
            "-c",
            "user.name=b",
            "-c",
            "user.email=b@b",
        ]
        timed([*git, "init", "-q"], tree, env)
        git_add_s = timed([*git, "add", "."], tree, env)
        git_commit_s = timed([*git, "commit", "-q", "-m", "x"], tree, env)
        timed([*git, "status"], tree, env)
        timed([PVR, "init"], tree, env)
        figures["add_s"] = timed([PVR, "add"], tree, env)
        figures["commit_s"] = timed([PVR, "--quiet", "commit"], tree, env)
        timed([PVR, "status"], tree, env)
        mine, peer = in_turn([PVR, "status"], [*git, "status", "--porcelain"], tree, env)
        figures["status_warm_s"], figures["status_cpu_s"] = mine
    peers = {"git_add_s": git_add_s, "git_commit_s": git_commit_s}
    peers["git_status_warm_s"], peers["git_status_cpu_s"] = peer
    return figures, dict(peers)


def main() -> None:
    """Measure and report."""
    figures, peers = measure_tree(TREE_BYTES // (10 if "--small" in sys.argv else 1))
    image_figures, image_peers, image_ratios = app_add.measure()
    ratios: dict[str, float | None] = {
        "status_vs_git": (figures["status_warm_s"] or 0) / (peers["git_status_warm_s"] or 1),
        "status_cpu_vs_git": (figures["status_cpu_s"] or 0) / (peers["git_status_cpu_s"] or 1),
        "add_commit_vs_git": ((figures["add_s"] or 0) + (figures["commit_s"] or 0))
        / ((peers["git_add_s"] or 0) + (peers["git_commit_s"] or 1)),
    }
    report("pvr", figures | image_figures, peers | image_peers, ratios | image_ratios)


if __name__ == "__main__":
    main()
