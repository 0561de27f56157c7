"""docs/how-to/rollouts.md as a new operator reads it: its commands, in its order, in an empty folder."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from brickless.linux.process import run

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "rollouts.md"


@pytest.fixture
def folder() -> Iterator[str]:
    # A short name: the devices' sockets lie far below it, and a socket's path has 107 characters.
    with TemporaryDirectory(prefix="how-to-") as made:
        yield made


def test_the_page_works_from_top_to_bottom(folder: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    commands = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)).replace("12365", str(port))
    # Background jobs end with the script, whatever becomes of it.
    script = f"set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n{commands}\n"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src"), "HOME": folder}
    done = run(
        ["bash", "-c", script],
        purpose="the how-to page",
        timeout_s=540,
        check=False,
        env=environment,
        cwd=folder,
    )
    said = done.stdout.decode()
    assert done.returncode == 0, (said, done.stderr.decode()[-4000:])
    shown = {line.split()[0]: line.split() for line in said.splitlines() if line.startswith(("web-", "device-"))}
    assert "status 3: it was stopped" in said
    assert "status 3: it was rolled back" in said
    assert re.search(r"^web-2-lab +web-2 +settled +5 +5 +0 +0 ", said, re.MULTILINE), said
    assert re.search(r"^web-3-lab +web-3 +stopped +5 +0 +0 +1 ", said, re.MULTILINE), said
    assert re.search(r"^web-2-lab +web-2 +rolled-back +5 +5 +0 +0 ", said, re.MULTILINE), said
    assert re.search(r"^web-2-again +web-2 +settled +5 +5 +0 +0 ", said, re.MULTILINE), said
    assert set(shown) >= {f"device-{number}" for number in range(1, 6)}
