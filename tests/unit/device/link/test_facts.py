"""What the hub is told about a device: the contract's keys, and a request only when it is worth one."""

from __future__ import annotations

import tomllib
from pathlib import Path

from brickless.core import canonical
from brickless.device import VERSION
from brickless.device.link import facts

ROOT = Path(__file__).parents[4]
ABOUT = facts.About("3", claimed=True, online=True, state="idle", address="hub:443", status="READY", flash={"3": 7})


def test_the_version_is_the_package_s() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION


def test_the_keys_of_the_contract(tmp_path: Path) -> None:
    found = facts.facts(ABOUT, str(tmp_path), 5, {"web.temperature": "21"})
    assert {
        "interfaces",
        "pantahub.claimed",
        "pantahub.online",
        "pantahub.state",
        "pantahub.address",
        "pantavisor.arch",
        "pantavisor.version",
        "pantavisor.dtmodel",
        "pantavisor.cpumodel",
        "pantavisor.revision",
        "pantavisor.mode",
        "pantavisor.status",
        "pantavisor.uname",
        "storage",
        "time",
        "sysinfo",
        "web.temperature",
    } <= set(found)
    assert found["pantavisor.revision"] == "3"
    assert found["pantahub.claimed"] == "1"
    storage = found["storage"]
    assert isinstance(storage, dict)
    assert set(storage) == {"total", "free", "reserved", "real_free"}
    assert canonical.loads(canonical.dumps(found)) is not None


def test_a_container_cannot_speak_for_the_runtime(tmp_path: Path) -> None:
    assert facts.facts(ABOUT, str(tmp_path), 5, {"pantahub.claimed": "0"})["pantahub.claimed"] == "1"


def test_keys_of_containers_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x" * 10_000)
    (tmp_path / ".hidden").write_text("x")
    for number in range(300):
        (tmp_path / f"k{number}").write_text("v")
    found = facts.local_keys(str(tmp_path))
    assert len(found["a"]) == 4096
    assert ".hidden" not in found
    assert len(found) <= 200
    assert facts.local_keys(str(tmp_path / "none")) == {}


def test_what_always_changes_is_not_worth_a_request() -> None:
    changes = facts.Changes()
    first: dict[str, canonical.JsonInput] = {"pantavisor.revision": "1", "sysinfo": {"uptime": 1}, "time": 1}
    assert changes.due(first, 0.0)
    changes.sent(first, 0.0)
    assert not changes.due({**first, "sysinfo": {"uptime": 9}, "time": 9}, 100.0)
    assert changes.due({**first, "pantavisor.revision": "2"}, 100.0)
    assert changes.due({**first, "time": 9}, 700.0), "but now and then it is"
