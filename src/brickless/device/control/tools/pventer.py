"""`pventer -c CONTAINER [COMMAND...]`: a command, or a shell, inside a container (device.md 6.3).

LXC's own lxc-attach enters all the container's namespaces, its control group and its limits; this finds the container
and hands over to it. Exit status: the command's; 1 when the container does not run, 2 for wrong usage.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from brickless.device.control.tools import client
from brickless.linux import process

USAGE = "usage: pventer -c CONTAINER [COMMAND [ARGUMENT...]]\n"
LXC_PATH = "/var/lib/lxc"
SHELL = "/bin/sh"


def command(argv: Sequence[str]) -> tuple[str, list[str]] | None:
    """The container and the command line; None when that makes no sense."""
    words = list(argv)
    if len(words) < 2 or words[0] not in ("-c", "--container") or words[1].startswith("-") or "/" in words[1]:
        return None
    rest = words[2:]
    if rest[:1] == ["--"]:
        rest = rest[1:]
    return words[1], rest or [SHELL]


def environment(words: Sequence[str]) -> dict[str, str]:
    """What the command finds in its environment, as from the reference's."""
    given = {"SSH_ORIGINAL_COMMAND": " ".join(words), "SSH_ORIGINAL_USER": "root"}
    return {**given, "TERM": os.environ.get("TERM", "linux"), "PATH": process.SEARCH_PATH}


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns only when it fails."""
    found = command(sys.argv[1:] if argv is None else argv)
    if found is None:
        sys.stderr.write(USAGE)
        return 2
    container, words = found
    attach = process.find("lxc-attach")
    if attach is None:
        client.complain("pventer", "lxc-attach is not on this device")
        return 1
    variables = [f"--set-var={name}={value}" for name, value in environment(words).items()]
    line = [attach, "-P", LXC_PATH, "-n", container, "--clear-env", *variables, "--", *words]
    try:
        os.execv(attach, line)  # noqa: S606 the point of this program
    except OSError as error:
        client.complain("pventer", f"{attach}: {error.strerror}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
