"""What is done to a container from outside once its init runs: exported paths, remount policies (device.md 1.9, 1.11).

Both enter the container's mount namespace in a child, and resolve its paths there, under its own root: a link that a
container made leads nowhere but into itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from brickless.core.canonical import JsonValue
from brickless.linux import libc, mount

FLAGS = {
    "ro": libc.MS_RDONLY,
    "nosuid": libc.MS_NOSUID,
    "nodev": libc.MS_NODEV,
    "noexec": libc.MS_NOEXEC,
    "noatime": libc.MS_NOATIME,
    "relatime": libc.MS_RELATIME,
}
CLEARED = {"rw": libc.MS_RDONLY, "suid": libc.MS_NOSUID, "dev": libc.MS_NODEV, "exec": libc.MS_NOEXEC}
MAX_REGEX = 1024
Rules = list[tuple[str, str]]


def export(pid: int, paths: tuple[str, ...], root: str) -> None:
    """Show paths of the container below the folder `root` of the host. Call it in a child: it changes its namespaces.

    Each is a detached copy of the mount, made inside and attached outside (open_tree(2), move_mount(2); kernel 5.2).
    """
    mount.unmount_beneath(root)
    targets = []
    for path in paths:
        os.makedirs(root + path, exist_ok=True)
        targets.append(os.open(root + path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    outside = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    inside = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    libc.setns(inside, libc.CLONE_NEWNS)
    copies = []
    for path in paths:
        os.makedirs(path, exist_ok=True)
        copies.append(libc.open_tree(path))
    libc.setns(home, libc.CLONE_NEWNS)
    os.fchdir(outside)
    os.chroot(".")
    for copy, fd in zip(copies, targets, strict=True):
        libc.move_mount(copy, f"/proc/self/fd/{fd}")


def rules_of(policies: Mapping[str, JsonValue], name: str) -> Rules:
    """The rules of a remount policy: (regex, options)."""
    found: Rules = []
    policy = policies.get(name)
    for rule in policy if isinstance(policy, list) else []:
        if isinstance(rule, dict):
            found += [(str(regex), str(options)) for regex, options in rule.items()]
    return found


def check_rules(rules: Rules) -> None:
    """Raise `ValueError` for a rule that cannot be applied: a regex that is none, an option nobody knows."""
    for regex, options in rules:
        if len(regex) > MAX_REGEX:
            raise ValueError(f"a remount rule's regular expression is longer than {MAX_REGEX} characters")
        try:
            re.compile(regex)
        except re.error as error:
            raise ValueError(f"the remount rule {regex!r} is no regular expression: {error}") from error
        new_flags(0, options)


def options_for(path: str, rules: Rules) -> str | None:
    """The options of the first rule whose regular expression matches the whole path, None for no rule."""
    for regex, options in rules:
        if re.fullmatch(regex, path):
            return options
    return None


def new_flags(flags: int, options: str) -> int:
    """The flags of a mount after a remount with these options."""
    for word in filter(None, options.split(",")):
        if word in FLAGS:
            flags |= FLAGS[word]
        elif word in CLEARED:
            flags &= ~CLEARED[word]
        elif word != "remount":
            raise ValueError(f"the remount option {word!r} is none of {', '.join([*FLAGS, *CLEARED])}")
    return flags


def remount(pid: int, rules: Rules) -> list[str]:
    """Remount what the rules name in the container; returns the paths. Call it in a child."""
    # Read before we enter: inside, /proc belongs to another PID namespace and does not know us.
    there = mount.table(f"/proc/{pid}/mounts")
    libc.setns(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC), libc.CLONE_NEWNS)
    done = []
    for entry in there:
        options = options_for(entry.target, rules)
        if options is None:
            continue
        flags = new_flags(_flags_of(entry.options), options)
        libc.mount("none", entry.target, "", libc.MS_BIND | libc.MS_REMOUNT | flags, "")
        done.append(entry.target)
    return done


def _flags_of(options: str) -> int:
    flags = 0
    for word in options.split(","):
        flags |= FLAGS.get(word, 0)
    return flags
