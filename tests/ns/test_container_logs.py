"""What real containers say: syslog, files and the host's view of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from brickless.device.supervise.logserver import Options
from brickless.testkit.real_device import RealDevice

pytestmark = pytest.mark.needs("root", "lxc")
SCRIPT = """echo "at the console"
/bin/busybox logger -t demo "by syslog"
echo "in a file" >/tmp/app.log
/bin/busybox ln -s /etc/hostname /tmp/escape.log
while :; do sleep 1; done
"""


def test_syslog_files_and_a_link_that_leads_nowhere_else(tmp_path: Path) -> None:
    with RealDevice(tmp_path) as device:
        device.log_options = Options(dmesg=False)
        wanted = [{"file": "/tmp/app.log", "name": "app"}, {"file": "/tmp/escape.log", "name": "escape"}]
        part = device.container("web", SCRIPT, files={"etc/hostname": "the container's own\n"}, logs=wanted)
        device.install("0", part)
        device.boot()
        device.run("web")
        folder = tmp_path / "storage" / "logs" / "0" / device.name("web")

        def said(source: str, text: str) -> bool:
            path = folder / source
            return path.exists() and text in path.read_text()

        device.until(lambda: said("demo", "[demo]: by syslog"), "the line that came by /dev/log")
        device.until(lambda: said("app", "in a file"), "the line of the file")
        device.until(lambda: said("escape", "the container's own"), "the link, followed inside the container")
        assert "at the console" in device.console("web")
        seen = sorted(path.name for path in device.inside("web", "/pantavisor").iterdir())
        assert [name for name in seen if not name.startswith(".")] == [
            "device-meta",
            "logs",
            "pv-ctrl-log",
            "user-meta",
        ]
        assert (device.inside("web", "/pantavisor/logs") / "demo").exists(), "its own logs, inside"


def test_a_container_that_wants_no_dev_log_has_none(tmp_path: Path) -> None:
    with RealDevice(tmp_path) as device:
        device.log_options = Options(dmesg=False)
        device.install("0", device.container("web", "while :; do sleep 1; done", **{"dev-log": False}))
        device.boot()
        device.run("web")
        assert not device.inside("web", "/dev/log").exists()
