"""Device nodes for a container by the rules of its `mdev.json` (device.md 1.15).

    {"rules": ["ttyUSB.* 0:20 660", "video[0-9]+ 0:44 660", ".* 0:0 666"]}

The nodes of the host that a rule names are made once more, with the rule's owner and mode, in a folder of their own;
LXC binds them into the container's /dev before its init runs. The first rule that matches a name counts.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from typing import NamedTuple

from brickless.core.canonical import JsonValue

_RULE = re.compile(r"(\S{1,256})\s+([0-9]{1,9}):([0-9]{1,9})\s+([0-7]{3,4})")
MAX_RULES = 256
MAX_NODES = 512
# LXC makes these itself, each for its container.
OWN = frozenset({"console", "ptmx", "pts", "shm", "mqueue", "fd", "stdin", "stdout", "stderr", "core", "log"})
LXC_MAKES = frozenset({"null", "zero", "full", "urandom", "random", "tty"})


class Rule(NamedTuple):
    """Names that match get this owner and mode."""

    pattern: re.Pattern[str]
    uid: int
    gid: int
    mode: int


def parse(value: JsonValue) -> list[Rule]:
    """Read `mdev.json`. Raises `ValueError` that quotes the rule that is none."""
    given = value.get("rules") if isinstance(value, Mapping) else None
    if not isinstance(given, list) or len(given) > MAX_RULES:
        raise ValueError(f"mdev.json: `rules` is no list of at most {MAX_RULES}")
    rules = []
    for text in given:
        match = _RULE.fullmatch(text) if isinstance(text, str) else None
        try:
            pattern = re.compile(match[1]) if match else None
        except re.error:
            pattern = None
        if match is None or pattern is None:
            raise ValueError(f"mdev.json: {str(text)[:80]!r} is no rule `<regex> <uid>:<gid> <mode>`")
        rules.append(Rule(pattern, int(match[2]), int(match[3]), int(match[4], 8)))
    return rules


def rule_for(name: str, rules: list[Rule]) -> Rule | None:
    """The first rule that matches the whole name."""
    return next((rule for rule in rules if rule.pattern.fullmatch(name)), None)


def make(rules: list[Rule], folder: str, dev: str = "/dev") -> list[str]:
    """Make the nodes in `folder`, which is emptied first; returns their names below /dev. Raises `OSError`."""
    from brickless.store import atomic

    atomic.remove_tree(folder)
    os.makedirs(folder, mode=0o755)
    made: list[str] = []
    for name, info in _host_nodes(dev):
        rule = rule_for(name, rules)
        if rule is None or len(made) >= MAX_NODES:
            continue
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.mknod(path, stat.S_IFMT(info.st_mode) | rule.mode, info.st_rdev)
        os.chmod(path, rule.mode)
        os.chown(path, rule.uid, rule.gid)
        made.append(name)
    return made


def _host_nodes(dev: str) -> list[tuple[str, os.stat_result]]:
    found = []
    for folder, folders, files in os.walk(dev):
        folders[:] = [name for name in folders if not (folder == dev and name in OWN)]
        for name in files:
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, dev)
            info = os.lstat(path)
            is_node = stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)
            if is_node and relative not in OWN and relative not in LXC_MAKES:
                found.append((relative, info))
    return sorted(found)


def mount_entries(folder: str, names: list[str]) -> list[str]:
    """LXC's lines that bind them."""
    return [f"{folder}/{_escape(name)} dev/{_escape(name)} none bind,create=file,optional 0 0" for name in names]


def _escape(name: str) -> str:
    r"""A blank is `\040` in a line of a mount table."""
    return name.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011")
