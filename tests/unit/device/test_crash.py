"""The record of a crash: one line, whoever's program it was and whatever its name; a core only when asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from brickless.device import crash
from brickless.linux import kmsg


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / crash.FOLDER).mkdir(parents=True)
    monkeypatch.setattr(kmsg.Console.__init__, "__defaults__", ("/dev/null",))
    return tmp_path


def test_the_container_is_named(tmp_path: Path) -> None:
    (tmp_path / "5").mkdir()
    (tmp_path / "5/cgroup").write_text("0::/lxc.payload.web\n")
    assert crash.describe(5, "11", "!usr!bin!app", str(tmp_path)) == (
        "crash: /usr/bin/app (pid 5) of container web: signal 11"
    )
    (tmp_path / "5/cgroup").write_text("0::/\n")
    assert "of the host" in crash.describe(5, "11", "!bin!x", str(tmp_path))
    assert "of the host" in crash.describe(6, "6", "!gone", str(tmp_path))


def test_a_name_cannot_forge_a_line(tmp_path: Path) -> None:
    line = crash.describe(7, "6", "a\nbrickless: reboot\x1b[2J" + "x" * 1000, str(tmp_path))
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(line) < 400


def test_it_is_logged_and_no_core_is_kept(storage: Path) -> None:
    assert crash.main(["--skip", str(os.getpid()), "11", "!bin!my", "app"], str(storage)) == 0
    (found,) = (storage / crash.FOLDER).iterdir()
    assert found.name == "crash.log"
    assert "crash: /bin/my app" in found.read_text()


def test_a_core_is_kept_up_to_its_bound(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crash, "CORE_MAX_BYTES", 100_000)
    source = storage / "image"
    source.write_bytes(b"c" * 150_000)
    with source.open("rb") as stream:
        assert crash.keep_core(stream.fileno(), str(storage / crash.FOLDER)) == 100_000
    core = storage / crash.FOLDER / "core"
    assert core.stat().st_size == 100_000
    assert core.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("arguments", [[], ["--skip"], ["x", "11", "y"], ["5"], ["--keep", "5", "11", "x"]])
def test_other_calls_are_refused(arguments: list[str], storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert crash.main(arguments, str(storage)) == 2
    assert "usage" in capsys.readouterr().err


def test_without_storage_the_console_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = tmp_path / "console"
    console.touch()
    monkeypatch.setattr(kmsg.Console.__init__, "__defaults__", (str(console),))
    assert crash.main(["--skip", "1", "6", "!x"], str(tmp_path / "no")) == 0
    assert console.read_text().startswith("brickless: crash: /x (pid 1)")
