"""Remount policies and rules for device nodes, before anything is mounted or made."""

from __future__ import annotations

from pathlib import Path

import pytest

from brickless.device.supervise import exposure, nodes
from brickless.linux import libc


def test_the_first_rule_that_matches_the_whole_path_counts() -> None:
    rules = exposure.rules_of({"p": [{"/run": "ro"}, {"/run.*": "noexec"}, {".*": "nosuid"}]}, "p")
    assert [exposure.options_for(path, rules) for path in ("/run", "/run/x", "/a")] == ["ro", "noexec", "nosuid"]
    assert exposure.rules_of({"p": []}, "q") == []
    assert exposure.options_for("/x", []) is None


def test_options_set_and_clear_flags() -> None:
    assert exposure.new_flags(0, "ro,nosuid,remount") == libc.MS_RDONLY | libc.MS_NOSUID
    assert exposure.new_flags(libc.MS_RDONLY | libc.MS_NOEXEC, "rw") == libc.MS_NOEXEC


@pytest.mark.parametrize("rule", [("(", "ro"), ("/a", "mode=7"), ("x" * 2000, "ro")])
def test_rules_that_cannot_be_applied_are_refused(rule: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="remount"):
        exposure.check_rules([rule])


def test_rules_for_nodes() -> None:
    rules = nodes.parse({"rules": ["ttyUSB[0-9]+ 0:20 660", ".* 1:2 0444"]})
    found = nodes.rule_for("ttyUSB0", rules), nodes.rule_for("ttyUSB", rules)
    assert [(rule.uid, rule.gid, rule.mode) for rule in found if rule] == [(0, 20, 0o660), (1, 2, 0o444)]


@pytest.mark.parametrize("value", [{}, {"rules": "x"}, {"rules": ["a b c"]}, {"rules": ["( 0:0 666"]}, {"rules": [7]}])
def test_rules_for_nodes_that_are_none(value: object) -> None:
    with pytest.raises(ValueError, match=r"mdev\.json"):
        nodes.parse(value)  # type: ignore[arg-type]  # hostile on purpose


def test_names_in_mount_entries_are_escaped() -> None:
    (line,) = nodes.mount_entries("/f", ["a b"])
    assert line == "/f/a\\040b dev/a\\040b none bind,create=file,optional 0 0"


def test_links_and_folders_are_no_nodes(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "link").symlink_to("/dev/null")
    (tmp_path / "dev" / "file").write_text("x")
    assert nodes.make(nodes.parse({"rules": [".* 0:0 666"]}), str(tmp_path / "made"), str(tmp_path / "dev")) == []
