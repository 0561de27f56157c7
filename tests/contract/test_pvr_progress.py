"""Long work shows on a terminal how far it is, and how fast; in a pipe it is silent; Ctrl-C in it loses nothing."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brickless.pvr import progress
from brickless.testkit.device_endpoint import DeviceEndpoint

STATE = b'{"#spec":"pantavisor-service-system@1"}'
RATE = "MiB/s"


class Terminal(io.StringIO):
    """Standard error that says it is a terminal."""

    def isatty(self) -> bool:
        return True

    def take(self) -> str:
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


@pytest.fixture
def repo(run_pvr: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed repository with an object, which is the current folder."""
    (tmp_path / "tree/web").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "tree")
    run_pvr("init")
    Path("web/root.squashfs").write_bytes(bytes(3 << 20))
    run_pvr("add")
    run_pvr("commit")
    return tmp_path / "tree"


@pytest.fixture
def device() -> Iterator[DeviceEndpoint]:
    with DeviceEndpoint({"#spec": "pantavisor-service-system@1"}, {}) as device:
        yield device


def _walk(run_pvr: Any, repo: Path, device: DeviceEndpoint) -> Iterator[tuple[str, str]]:
    """Run every command whose work may be long; yields each when it ran, with the word its progress begins with."""
    for name in ("f", "g"):
        (repo.parent / name).mkdir()
        run_pvr("-C", f"../{name}", "init", "--objects", f"../objects-{name}")
    (repo.parent / "rootfs").mkdir()
    (repo.parent / "rootfs/x").write_bytes(bytes(1 << 20))
    steps: list[tuple[str, list[str]]] = [
        ("Hashing", ["status"]),
        ("Hashing", ["add"]),
        ("Storing", ["commit"]),
        ("Squashing", ["app", "add", "os", "--type", "rootfs", "--from", "../rootfs"]),
        ("Squashing", ["app", "update", "os"]),
        ("Exporting", ["export", "../x.tgz"]),
        ("Uploading", ["post", device.url]),
        ("Checking", ["fsck"]),
        ("Looking through", ["gc", ".."]),
        ("Downloading", ["--config-dir", "../one", "clone", device.url, "../a"]),
        ("Writing", ["--config-dir", "../two", "clone", device.url, "../b"]),
        ("Copying", ["--config-dir", "../three", "clone", ".", "../c"]),
        ("Reading", ["--config-dir", "../four", "clone", "../x.tgz", "../d"]),
        ("Importing", ["-C", "../g", "import", "../x.tgz"]),
        ("Writing", ["checkout"]),
        ("Copying", ["--config-dir", "../five", "deploy", "../e", "."]),
        ("Copying", ["put", "../f"]),
    ]
    for word, args in steps:
        if args[0] in {"status", "add"}:
            (repo / "web/root.squashfs").write_bytes(bytes(2 << 20) + args[0].encode())
        if args[0] == "checkout":
            (repo / "web/root.squashfs").unlink()
        run_pvr(*args)
        yield f"{word} ", " ".join(args)


def test_long_work_shows_its_progress_and_rate_on_a_terminal(
    run_pvr: Any, repo: Path, device: DeviceEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The shortest work counts as long.
    monkeypatch.setattr(progress, "FIRST_S", 0.0)
    monkeypatch.setattr(progress, "REDRAW_S", 0.0)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for word, command in _walk(run_pvr, repo, device):
        text = terminal.take()
        assert word in text, (command, text)
        assert "/s" in text, (command, text)


def test_nothing_is_drawn_in_a_pipe(
    run_pvr: Any, repo: Path, device: DeviceEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "FIRST_S", 0.0)
    drawn: list[str] = []
    monkeypatch.setattr(progress.Meter, "_draw", lambda meter: drawn.append(meter.line()))
    for _ in _walk(run_pvr, repo, device):
        continue
    assert drawn == []


class Typed:
    """`pvr` on a real terminal, whose standard input is a pipe that we hold."""

    def __init__(self, repo: Path, *args: str) -> None:
        self.screen, end = pty.openpty()
        code = "import sys; from brickless.pvr.main import run; sys.exit(run(sys.argv[1:]))"
        argv = [sys.executable, "-c", code, *args]
        self.process = subprocess.Popen(argv, cwd=repo, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=end)
        os.close(end)
        self.seen = ""

    def look(self) -> str:
        """What has appeared by now."""
        while select.select([self.screen], [], [], 0.02)[0]:
            try:
                data = os.read(self.screen, 4096)
            except OSError:
                break  # the program has closed its end
            if not data:
                break
            self.seen += data.decode()
        return self.seen

    def feed_until(self, text: str, piece: bytes, pieces: int) -> int:
        """Write pieces, as many as it takes until `text` is on the screen; how many."""
        assert self.process.stdin is not None
        for count in range(pieces):
            if text in self.look():
                return count
            self.process.stdin.write(piece)
            self.process.stdin.flush()
        raise AssertionError(self.seen)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        os.close(self.screen)


PIECE, PIECES = bytes(64 << 10), 4000


@pytest.fixture
def importing(repo: Path) -> Iterator[Typed]:
    """An import from standard input whose object's bytes come as slowly as we like."""
    typed = Typed(repo, "import", "-")
    try:
        assert typed.process.stdin is not None
        for name, data, size in (("json", STATE, len(STATE)), ("objects/" + "0" * 64, b"", len(PIECE) * PIECES)):
            header = tarfile.TarInfo(name)
            header.size = size
            typed.process.stdin.write(header.tobuf() + data.ljust(-(-len(data) // 512) * 512, b"\0"))
        yield typed
    finally:
        typed.close()


def test_a_real_terminal_sees_the_rate_and_ctrl_c_loses_nothing(importing: Typed, repo: Path, run_pvr: Any) -> None:
    before = (repo / ".pvr/json").read_bytes()
    pool = Path(os.environ["HOME"], ".pvr/objects")
    objects = sorted(os.listdir(pool))
    importing.feed_until(RATE, PIECE, PIECES)
    assert "Importing " in importing.seen
    importing.process.send_signal(signal.SIGINT)
    assert importing.process.wait(60) == 130
    assert "Nothing was lost" in importing.look()
    assert (repo / ".pvr/json").read_bytes() == before
    assert sorted(os.listdir(pool)) == objects
    assert run_pvr("status").out == ""
