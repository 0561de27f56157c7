"""What users of the field's client expect and do not get (contract pvr.md 8.3), item by item, with its test.

The tests that have no other home are here.
"""

from __future__ import annotations

import ast
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from brickless.pvr.pace import Pace
from brickless.store import discovery, tags
from brickless.store.ignore import Ignore, matches, parse

MANNERS = "contract/test_pvr_manners.py"
PROGRESS = "contract/test_pvr_progress.py"
SQUASHFS = "unit/oci/test_squashfs.py"
DEVICES = "contract/test_pvr_weaknesses_signatures_devices.py"
HUB = "flow/test_pvr_real_hub.py"
TESTS = Path(__file__).parents[2]
HERE = "unit/pvr/test_expected.py"
LIES = "contract/test_pvr_hub_lies.py"
#: Each item of the list in the contract, and the tests that show it.
TABLE: dict[str, list[tuple[str, str]]] = {
    "quiet and verbose levels": [(HERE, "test_quiet_is_silent_and_debug_tells_more")],
    "--json": [("unit/pvr/test_cli.py", "test_every_command_has_help_with_an_example_and_json")],
    "colour, terminals": [
        (HERE, "test_colours_are_for_terminals"),
        ("unit/pvr/test_quick.py", "test_a_known_status_is_coloured_too"),
    ],
    "progress on stderr": [(PROGRESS, "test_long_work_shows_its_progress_and_rate_on_a_terminal")],
    "resumed and retried transfers": [
        (LIES, "test_a_download_goes_on_in_the_next_run"),
        (LIES, "test_passing_errors_are_retried_and_final_ones_are_not"),
    ],
    "timeouts": [(MANNERS, "test_a_silent_server_is_given_up_as_soon_as_one_says")],
    "bandwidth, parallelism": [
        (HERE, "test_a_rate_is_kept_by_all_together"),
        (HERE, "test_bad_rates_are_refused"),
        (MANNERS, "test_transfers_keep_to_the_rate_and_the_number_asked_for"),
    ],
    "--dry-run": [(HERE, "test_a_dry_run_tells_and_changes_nothing"), (MANNERS, "test_a_dry_post_sends_nothing")],
    "fsck, gc": [
        ("unit/pvr/test_past_commands.py", "test_fsck_names_every_fault_and_mends_from_the_tree"),
        ("unit/pvr/test_past_commands.py", "test_gc_keeps_what_any_state_of_any_repository_needs"),
    ],
    "log, history, tag": [
        ("unit/pvr/test_past_commands.py", "test_the_log_is_short_for_people_and_whole_for_machines"),
        (HERE, "test_a_tag_names_a_state_everywhere"),
        (HERE, "test_a_tag_outlives_the_history_and_the_collection"),
    ],
    "remote revisions, a revision in shorthand": [(HUB, "test_old_revisions_are_listed_and_taken")],
    "rm, mv": [(HERE, "test_rm_removes_what_is_committed_only"), (HERE, "test_mv_keeps_what_a_file_is")],
    "an ignore file": [(HERE, "test_ignored_files_are_left_alone"), (HERE, "test_the_rules_of_an_ignore_file")],
    "locking": [("unit/pvr/test_local_commands.py", "test_a_held_lock_is_named")],
    "executable bits": [(HERE, "test_a_lost_executable_bit_is_said")],
    "recursion in add": [("contract/test_pvr_weaknesses.py", "test_09_add_of_a_folder_adds_it_and_says_what_is_lost")],
    "subdirectories": [
        (HERE, "test_commands_work_in_a_subdirectory"),
        (HERE, "test_a_repository_of_somebody_else_is_not_found_above"),
    ],
    "login without questions": [(LIES, "test_user_and_password_need_no_terminal")],
    "logout": [(MANNERS, "test_logout_forgets_one_hub_and_keeps_the_others")],
    "hard-coded hosts": [(DEVICES, "test_06_user_and_device_are_looked_for_where_one_says")],
    "builds without fakeroot, as any user": [(SQUASHFS, "test_everything_is_kept_without_root")],
    "reproducible squashfs and exports": [
        (SQUASHFS, "test_the_same_image_gives_the_same_bytes_anywhere"),
        ("unit/pvr/test_local_commands.py", "test_an_export_is_reproducible_and_starts_with_the_state"),
    ],
    "OCI registries": [("flow/test_pvr_apps.py", "test_an_app_from_a_registry")],
    "hardware keys, passphrases": [
        ("unit/pvr/test_signers.py", "test_a_key_on_a_token_signs"),
        ("unit/pvr/test_sig_commands.py", "test_a_key_with_a_passphrase_signs"),
    ],
    "docker save archives": [("flow/test_pvr_apps.py", "test_the_same_image_is_the_same_object_from_every_source")],
    "errors for machines": [("unit/pvr/test_cli.py", "test_errors_are_json_with_json")],
}


def test_every_expectation_has_a_test_that_exists() -> None:
    for item, tests in TABLE.items():
        assert tests, item
        for name, function in tests:
            tree = ast.parse((TESTS / name).read_text())
            assert function in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}, (item, name, function)


@pytest.fixture
def repo(pvr: Any, tree: Path) -> Path:
    """A repository with an app, raw JSON, and a file beside them, committed."""
    pvr("init")
    (tree / "web/data").mkdir(parents=True)
    (tree / "web/run.json").write_text('{"name":"web"}')
    (tree / "web/data/big.bin").write_bytes(b"big")
    (tree / "raw.json").write_text('{ "as": "it is" }')
    pvr("add", "web")
    pvr("add", "--raw", "raw.json")
    pvr("commit", "-m", "first")
    return tree


def committed(repo: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((repo / ".pvr/json").read_bytes())
    return found


# Levels, colours


def test_quiet_is_silent_and_debug_tells_more(pvr: Any, repo: Path) -> None:
    (repo / "web/run.json").write_text('{"name":"web","n":2}')
    assert "Committing" in pvr("commit").err
    (repo / "web/run.json").write_text('{"name":"web","n":3}')
    assert pvr("--quiet", "commit").err == ""
    assert "Traceback" in pvr("--debug", "get", "nowhere", code=1).err


def test_colours_are_for_terminals(pvr: Any, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repo / "new").write_bytes(b"")
    assert pvr("status").out == "? new\n"
    assert pvr("--color", "always", "status").out == "\x1b[2m? new\x1b[0m\n"
    assert json.loads(pvr("--color", "always", "status", "--json").out)["untracked"] == ["new"]
    (repo / "web/data/big.bin").unlink()
    (repo / "web/run.json").write_text("{}")
    lines = pvr("--color", "always", "commit", "--dry-run").out.splitlines()
    assert lines == ["\x1b[31mD web/data/big.bin\x1b[0m", "\x1b[33mC web/run.json\x1b[0m"]
    monkeypatch.setattr(os, "isatty", lambda _fd: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in pvr("status").out
    assert "\x1b[33mWARNING:\x1b[0m" in pvr("add", "nothing").err
    assert "\x1b[" not in pvr("--color", "never", "status").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in pvr("status").out
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b[" not in pvr("status").out


# Rates


def test_a_rate_is_kept_by_all_together() -> None:
    now_s, waits = 100.0, []

    def wait(seconds: float) -> None:
        nonlocal now_s
        waits.append(seconds)
        now_s += seconds

    pace = Pace(1000, wait, lambda: now_s)
    for _ in range(50):
        pace.took(100)
    # 5000 bytes at 1000 a second, less what may come at once after a pause.
    assert now_s - 100.0 == pytest.approx(5.0 - 0.25)
    now_s += 3600
    pace.took(100)
    assert len(waits) == 48, "an hour without transfers saves up next to nothing"
    Pace(0, wait, lambda: now_s).took(1 << 40)
    assert len(waits) == 48


@pytest.mark.parametrize("text", ["x", "1X", "-1", "0", "1.5M", "K"])
def test_bad_rates_are_refused(text: str, pvr: Any, repo: Path) -> None:
    assert "is no number of bytes" in pvr("--limit-rate", text, "status", code=1).err
    pvr("--limit-rate", "500k", "status")


# Dry runs


def test_a_dry_run_tells_and_changes_nothing(pvr: Any, repo: Path, tmp_path: Path) -> None:
    pvr("export", str(tmp_path / "x.tgz"))
    (repo / "web/run.json").write_text('{"name":"web","n":2}')
    pvr("commit", "-m", "second")
    (repo / "web/run.json").write_text('{"name":"web","n":3}')
    (repo / "new").write_bytes(b"new")
    (repo / "raw.json").unlink()

    def picture() -> dict[str, bytes]:
        ours = {"lock", "stat-cache", "snapshot"}
        return {str(p): p.read_bytes() for p in repo.rglob("*") if p.is_file() and p.name not in ours}

    before = picture()
    objects = sorted(os.listdir(Path(os.environ["HOME"], ".pvr/objects")))
    assert pvr("add", "--dry-run").out == "would add new\nwould add web/data/big.bin\nwould add web/run.json\n"
    assert pvr("commit", "-n").out == "D raw.json\nC web/run.json\n"
    assert pvr("checkout", "-n").out == "A raw.json\nC web/run.json\n"
    assert pvr("undo", "-n").out == "C web/run.json\n"
    assert pvr("revert", "HEAD~1", "-n").out == "C web/run.json\n"
    assert pvr("import", "-n", str(tmp_path / "x.tgz")).out == "C web/run.json\n"
    assert pvr("get", "-n", f"{tmp_path}/x.tgz#-raw.json").out == "D raw.json\nC web/run.json\n"
    assert pvr("merge", "-n", f"{tmp_path}/x.tgz").out == "", "its members are all here"
    assert json.loads(pvr("get", "-n", "--json", f"{tmp_path}/x.tgz").out)["changed"] == ["web/run.json"]
    assert pvr("rm", "-n", "web/data").out == "would remove web/data/big.bin\n"
    assert pvr("mv", "-n", "web/data", "web/more").out == "would rename web/data/big.bin to web/more/big.bin\n"
    assert picture() == before
    assert sorted(os.listdir(Path(os.environ["HOME"], ".pvr/objects"))) == objects
    assert "from a file" in pvr("import", "-n", "-", code=2).err


# Tags


def test_a_tag_names_a_state_everywhere(pvr: Any, repo: Path) -> None:
    pvr("tag", "v1.0", "-m", "as shipped")
    (repo / "web/run.json").write_text('{"name":"web","n":2}')
    pvr("commit", "-m", "second")
    pvr("tag", "v2")
    assert [line.split()[0] for line in pvr("tag").out.splitlines()] == ["v1.0", "v2"]
    assert json.loads(pvr("tag", "--json").out)["v1.0"]["message"] == "as shipped"
    assert json.loads(pvr("diff", "v1.0", "v2").out) == {"web/run.json": {"n": 2}}
    assert "[v2]" in pvr("log").out.splitlines()[0]
    assert "exists" in pvr("tag", "v2", "v1.0", code=3).err
    pvr("tag", "--force", "v2", "v1.0")
    assert json.loads(pvr("diff", "v1.0", "v2").out) == {}
    pvr("revert", "v1.0")
    assert committed(repo)["web/run.json"] == {"name": "web"}
    pvr("tag", "-d", "v2")
    assert "There is no tag" in pvr("tag", "-d", "v2", code=3).err
    assert "v2" in pvr("show", "v2", code=3).err
    for bad in ("HEAD", "abcdef12", "../x", "-x", "a b", "x" * 200):
        assert "cannot be a tag" in pvr("tag", "--", bad, code=3).err
    (repo / ".pvr/history/tags").write_bytes(b"{")
    assert "is damaged" in pvr("tag", code=3).err


def test_a_tag_outlives_the_history_and_the_collection(
    pvr: Any, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brickless.store.history.MAX_ENTRIES", 2)
    pvr("tag", "shipped")
    state = committed(repo)
    for number in range(4):
        (repo / "web/data/big.bin").write_text(str(number))
        pvr("commit")
    assert json.loads(pvr("inspect").out) != state
    pvr("gc", "--delete", "--older-than", "0", str(tmp_path))
    pvr("revert", "shipped", "--checkout")
    assert committed(repo) == state
    assert (repo / "web/data/big.bin").read_bytes() == b"big"
    assert tags.load(str(repo / ".pvr")).keys() == {"shipped"}


# rm, mv


def test_rm_removes_what_is_committed_only(pvr: Any, repo: Path) -> None:
    (repo / "web/data/big.bin").write_bytes(b"changed")
    (repo / "new").write_bytes(b"new")
    assert "would be lost" in pvr("rm", "web", code=3).err
    assert "names no file that is tracked" in pvr("rm", "new", code=3).err
    assert (repo / "web/run.json").exists()
    assert pvr("rm", "raw.json").out == "removed raw.json\n"
    pvr("rm", "--force", "web/data")
    assert sorted(os.listdir(repo / "web")) == ["run.json"], "a folder that became empty goes too"
    pvr("add", "new")
    pvr("rm", "-f", "new")
    assert pvr("status").out == "D raw.json\nD web/data/big.bin\n"
    pvr("commit")
    assert sorted(committed(repo)) == ["#spec", "web/run.json"]
    pvr("undo", "--checkout")
    assert (repo / "web/data/big.bin").read_bytes() == b"big"
    pvr("rm", code=2)


def test_mv_keeps_what_a_file_is(pvr: Any, repo: Path, tmp_path: Path) -> None:
    before = committed(repo)
    pvr("mv", "raw.json", "kept.json")
    pvr("mv", "web", "shop")
    pvr("commit")
    after = committed(repo)
    assert after == {
        "#spec": before["#spec"],
        "kept.json": before["raw.json"],
        "shop/run.json": before["web/run.json"],
        "shop/data/big.bin": before["web/data/big.bin"],
    }
    assert (repo / "kept.json").read_text() == '{ "as": "it is" }'
    (repo / "web").mkdir()
    assert pvr("mv", "kept.json", "web").out == "renamed kept.json to web/kept.json\n"
    for arguments in (
        ("nothing", "x"),
        ("shop", "shop/inner"),
        ("shop/run.json", "web/kept.json"),
        ("shop", "../outside"),
        ("shop", str(tmp_path)),
        ("shop", ".pvr/x"),
        (".pvr/json", "x"),
        ("shop", "bad\x01name"),
    ):
        pvr("mv", *arguments, code=3)
    assert (repo / "shop/run.json").exists()


# Ignored files


def test_ignored_files_are_left_alone(pvr: Any, repo: Path) -> None:
    (repo / ".pvrignore").write_text("*.o\n/build/\n!keep.o\n")
    for name in ("a.o", "web/b.o", "keep.o", "build/x", "web/build"):
        (repo / name).parent.mkdir(exist_ok=True)
        (repo / name).write_bytes(b"x")
    assert pvr("status").out == "? keep.o\n? web/build\n"
    pvr("add", ".")
    pvr("add", "web", "build/x")
    pvr("commit")
    assert sorted(committed(repo)) == [
        "#spec", "build/x", "keep.o", "raw.json", "web/build", "web/data/big.bin", "web/run.json",
    ]  # fmt: skip
    (repo / "build/x").write_bytes(b"what is tracked is never ignored")
    assert pvr("status").out == "C build/x\n"
    (repo / ".pvrignore").write_bytes(b"x\n" * 2000)
    assert "rules" in pvr("status", code=3).err


@pytest.mark.parametrize(
    ("rules", "hidden", "shown"),
    [
        ("*.tmp", ["a.tmp", "x/y/a.tmp"], ["a.tmpx", "tmp"]),
        ("/a", ["a", "a/b"], ["x/a"]),
        ("a/b", ["a/b", "a/b/c"], ["x/a/b", "a"]),
        ("cache/", ["cache/x", "y/cache/x"], ["cache"]),
        ("docs/**/*.html", ["docs/x.html", "docs/a/b/x.html"], ["x.html", "docs.html"]),
        ("**/a/b", ["a/b", "x/y/a/b"], ["a/c"]),
        ("a/**", ["a/b", "a/b/c"], ["b/a"]),
        ("*.o\n!k.o", ["a.o"], ["k.o"]),
        ("x/\n!x/keep", ["x/keep"], ["y/keep"]),
        ("# note\n\n\\#odd\n  ", ["#odd"], ["# note", "note"]),
        ("[ab].c", ["a.c", "d/b.c"], ["c.c"]),
    ],
)
def test_the_rules_of_an_ignore_file(rules: str, hidden: list[str], shown: list[str]) -> None:
    ignore = Ignore(tuple(rule for line in rules.split("\n") if (rule := parse(line))))
    assert [path for path in hidden if not ignore.hides(path)] == []
    assert [path for path in shown if ignore.hides(path)] == []


def test_an_ignore_rule_cannot_take_for_ever() -> None:
    rule = parse("/".join(["**", "*a*a*a*a*a*a*a*a*b"] * 40))
    assert rule is not None
    assert not matches(rule.parts, ("a" * 200,) * 60)


# Executables, subdirectories


def test_a_lost_executable_bit_is_said(pvr: Any, repo: Path) -> None:
    for name in ("one", "two"):
        (repo / name).write_bytes(b"#!/bin/sh\n")
        (repo / name).chmod(0o755)
    ran = pvr("add")
    assert "one and 1 more: a state keeps no permissions" in ran.err
    assert "permissions" not in pvr("add").err, "once is enough"
    pvr("commit")
    (repo / "one").unlink()
    pvr("checkout")
    assert not os.stat(repo / "one").st_mode & stat.S_IXUSR


def test_commands_work_in_a_subdirectory(pvr: Any, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repo / "web/data/more").write_bytes(b"x")
    (repo / "beside").write_bytes(b"x")
    monkeypatch.chdir(repo / "web/data")
    assert pvr("status").out == "? beside\n? web/data/more\n"
    assert pvr("add", ".", "--dry-run").out == "would add web/data/big.bin\nwould add web/data/more\n"
    pvr("add", "more")
    pvr("commit")
    assert "web/data/more" in committed(repo)
    pvr("mv", "more", "../moved")
    pvr("rm", "*.bin")
    assert pvr("status").out == "A web/moved\nD web/data/big.bin\nD web/data/more\n? beside\n"
    pvr("commit")
    pvr("export", "x.tgz")
    assert (repo / "web/data/x.tgz").exists()
    monkeypatch.chdir(repo)
    pvr("-C", "web", "export", "y.tgz")
    assert (repo / "web/y.tgz").exists()
    assert os.getcwd() == str(repo)
    assert "No such file" in pvr("-C", "nowhere", "status", code=2).err


def test_a_repository_of_somebody_else_is_not_found_above(
    pvr: Any, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repo / "deep/er").mkdir(parents=True)
    assert discovery.find(str(repo / "deep/er")) == str(repo)
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(repo).st_uid + 1)
    assert discovery.find(str(repo / "deep/er")) == str(repo / "deep/er")
    assert discovery.find(str(repo)) == str(repo), "who stands in it has named it"
    monkeypatch.undo()
    monkeypatch.chdir(repo)
    # A user's `~/.pvr` is the configuration and no repository.
    (repo.parent / "home/.pvr/objects").mkdir(parents=True, exist_ok=True)
    (repo.parent / "home/work").mkdir()
    assert discovery.find(str(repo.parent / "home/work")) == str(repo.parent / "home/work")
    assert "not a pvr repository" in pvr("-C", str(repo.parent / "home/work"), "status", code=2).err
