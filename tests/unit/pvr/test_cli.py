"""The command line's grammar, exit codes and start-up (pvr.md 1)."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from brickless.pvr.cli import Command, Group
from brickless.pvr.root import COMMANDS, root


def all_commands() -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []

    def visit(prefix: str, group: Group) -> None:
        for name, entry in group.registry.items():
            command = importlib.import_module(entry.module).command
            found.append((f"{prefix}{name}", command))
            if isinstance(command, Group):
                visit(f"{prefix}{name} ", command)

    assert isinstance(root, Group)
    visit("", root)
    return found


@pytest.mark.parametrize(("name", "command"), all_commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_has_help_with_an_example_and_json(name: str, command: click.Command, pvr: Any) -> None:
    ran = pvr(*name.split(), "--help")
    assert "Example:" in ran.out
    assert "pvr" in ran.out.partition("Example:")[2] or name == "self-upgrade"
    assert len(ran.out.splitlines()) > 6
    if isinstance(command, Command):
        assert "--json" in ran.out
    assert pvr(*name.split(), "-h").out == ran.out


@pytest.mark.parametrize(
    ("line", "usage"),
    [
        ("i", "init"), ("a", "add"), ("j", "json"), ("d", "diff"), ("s", "status"), ("ci", "commit"), ("p", "put"),
        ("po", "post"), ("g", "get"), ("m", "merge"), ("ri", "remoteinfo"), ("r", "checkout"), ("co", "checkout"),
        ("reset", "checkout"), ("c", "clone"), ("fcp", "fastcopy"), ("com", "completion"), ("dma", "dm-apply"),
        ("dmc", "dm-convert"), ("reg", "register"), ("lo", "login"), ("wai", "whoami"), ("cl", "claim"),
        ("putobjects", "put-objects"), ("dev cr", "device create"), ("dev se", "device set"),
        ("dev log", "device logs"),
        ("app aa", "app add"), ("app ao", "app add"), ("app ai", "app install"), ("app au", "app update"),
        ("app r", "app rm"), ("app i", "app info"), ("app l", "app ls"), ("sig a", "sig add"), ("sig up", "sig update"),
    ],
)  # fmt: skip
def test_short_names(line: str, usage: str, pvr: Any) -> None:
    assert pvr(*line.split(), "--help").out.startswith(f"Usage: pvr {usage} ")


@pytest.mark.parametrize("name", ["ps", "logs", "scan"])
def test_names_of_old_still_work_and_say_what_is_new(name: str, pvr: Any) -> None:
    ran = pvr(name, "--help")
    assert f"`pvr device {name}`" in ran.err
    assert ran.out.startswith(f"Usage: pvr {name} ") or ran.out.startswith("Usage: pvr device ")
    assert pvr("--quiet", name, "--help").err == ""
    assert f"\n  {name} " not in pvr("--help").out


def test_the_table_has_no_name_twice() -> None:
    names = [alias for name, entry in COMMANDS.items() for alias in (name, *entry.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "args",
    [
        ["commit", "-m", "text"],
        ["commit", "--message", "text"],
        ["commit", "-message", "text"],
        ["commit", "-message=text"],
        ["commit", "--message=text"],
        ["ci", "-m=text"],
        ["commit", "-m", "text", "-checkpoint=false"],
        ["commit", "-m", "text", "--checkpoint=0"],
    ],
    ids=" ".join,
)
def test_one_dash_or_two_equals_or_blank(args: list[str], pvr: Any, tree: Path) -> None:
    pvr("init")
    pvr(*args)
    assert (tree / ".pvr" / "commitmsg").read_text() == "text"
    assert not (tree / "checkpoint.json").exists()


def test_flags_go_before_or_after_arguments(pvr: Any, tree: Path) -> None:
    pvr("init")
    (tree / "a.json").write_text("{}")
    pvr("add", "a.json", "-raw")
    assert json.loads((tree / ".pvr/new").read_text())["a.json"]["ForceObject"] is True
    pvr("add", "--raw=f", "a.json")
    assert json.loads((tree / ".pvr/new").read_text())["a.json"]["ForceObject"] is False


def test_a_double_dash_ends_flags(pvr: Any, tree: Path) -> None:
    pvr("init")
    (tree / "-raw").write_text("x")
    assert pvr("add", "--json", "--", "-raw").json()["added"] == ["-raw"]


def test_wrong_flags_are_usage_on_stdout_and_an_error_on_stderr(pvr: Any, tree: Path) -> None:
    ran = pvr("status", "--nonsense", code=1)
    assert ran.out.startswith("Incorrect Usage: ")
    assert "Usage: pvr status" in ran.out
    assert ran.err.startswith("ERROR: ")
    assert "invalid boolean" in pvr("commit", "-checkpoint=perhaps", code=1).err


def test_an_unknown_command_is_exit_3_with_a_guess(pvr: Any) -> None:
    ran = pvr("statsu", code=3)
    assert ran.err.startswith("No help topic for 'statsu'\n")
    assert "`status`" in ran.err
    assert "No help topic" in pvr("xyzzy", code=3).err


def test_global_flags_count_only_before_the_command(pvr: Any, tree: Path, tmp_path: Path) -> None:
    pvr("-config-dir", str(tmp_path / "cfg"), "init")
    assert json.loads((tree / ".pvr/config").read_text())["ObjectsDir"] == str(tmp_path / "cfg" / "objects")
    pvr("status", "-config-dir", "x", code=1)


def test_environment_then_flag(pvr: Any, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVR_OBJECTS_DIR", str(tmp_path / "env"))
    pvr("init")
    assert json.loads((tree / ".pvr/config").read_text())["ObjectsDir"] == str(tmp_path / "env")
    (tree / "other").mkdir()
    pvr("-C", "other", "init", "-o", str(tmp_path / "flag"))
    assert json.loads((tree / "other/.pvr/config").read_text())["ObjectsDir"] == str(tmp_path / "flag")
    monkeypatch.setenv("PVR_DEBUG", "maybe")
    assert "maybe" in pvr("status", code=1).err


def test_chdir_works_elsewhere(pvr: Any, tree: Path) -> None:
    (tree / "below").mkdir()
    pvr("-C", "below", "init")
    assert (tree / "below" / ".pvr" / "json").exists()


@pytest.mark.parametrize(
    "command", ["status", "json", "diff", "commit", "add", "checkout", "get", "post", "log", "fsck", "undo"]
)
def test_outside_a_repository_every_command_says_so(command: str, pvr: Any, tree: Path) -> None:
    ran = pvr(command, code=2)
    assert "is not a pvr repository" in ran.err
    assert "pvr init" in ran.err
    assert os.listdir(tree) == []


def test_errors_are_json_with_json(pvr: Any, tree: Path) -> None:
    ran = pvr("status", "--json", code=2)
    assert ran.out == ""
    error = json.loads(ran.err)["error"]
    assert error["id"] == "not-a-repository"
    assert error["exit"] == 2


def test_wrong_flags_are_json_with_json(pvr: Any, tree: Path) -> None:
    for args in (("init", "--json", "--nonsense"), ("mv", "--json"), ("--parallel", "x", "status", "--json")):
        ran = pvr(*args, code=1)
        assert ran.out == ""
        assert json.loads(ran.err)["error"]["id"] == "usage"
    assert "Incorrect Usage" in pvr("mv", "--", "--json", code=1).out


def test_versions(pvr: Any) -> None:
    texts = {pvr(flag).out for flag in ("--version", "-version", "-v")}
    assert len(texts) == 1
    assert texts.pop().startswith("pvr version 0.")
    assert pvr("-d", "--version").out.startswith("pvr version")
    assert pvr("version").out.splitlines()[1].startswith("  python version: ")


def python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)


def test_starting_imports_nothing_heavy() -> None:
    code = (
        "import sys; from brickless.pvr.main import run; "
        "run(sys.argv[1:]); "
        "print(sorted(set(sys.modules) & {'httpx','rich','cryptography','ssl','asyncio','dataclasses','zstandard'}))"
    )
    for args in (["--version"], ["--help"]):
        assert python(code, *args).stdout.splitlines()[-1] == "[]"


def test_the_version_needs_few_modules() -> None:
    """What costs time at a start is imports; `make bench B=pvr` measures the time itself."""
    code = "import sys; from brickless.pvr.main import run; run(['--version']); print(len(sys.modules))"
    assert int(python(code).stdout.splitlines()[-1]) < 200


def test_fakeroot_becomes_the_program_that_was_named(tmp_path: Path) -> None:
    """`FAKEROOT_CMD` as build systems set it; here one that shows what it was given."""
    tool = tmp_path / "my-fakeroot"
    tool.write_text('#!/bin/sh\nprintf "%s|" "$@"\nexit 7\n')
    tool.chmod(0o755)
    program = Path(sys.executable).with_name("pvr")
    environment = {**os.environ, "FAKEROOT_CMD": str(tool)}
    command = [program, "fakeroot", "--", "tar", "-x", "a b"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (7, "tar|-x|a b|")
    missing = {**os.environ, "FAKEROOT_CMD": "no-such-program"}
    ran = subprocess.run(command, env=missing, capture_output=True, text=True, check=False)
    assert ran.returncode == 3
    assert "no-such-program" in ran.stderr
    assert subprocess.run([program, "fakeroot"], capture_output=True, check=False).returncode == 2
