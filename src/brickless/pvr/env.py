"""What every command is given: the global settings, and the two ways to speak (stdout is data, stderr is talk)."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterable
from typing import Any

from brickless.core.canonical import JsonInput, JsonValue
from brickless.pvr import colour
from brickless.store import discovery
from brickless.store.jsontext import canonical_text, escaped_text
from brickless.store.repo import Repository

API_BASE = "https://api.pantahub.com"
REPO_BASE = "https://pvr.pantahub.com"


class Env:
    """The global flags of one run (pvr.md 1.3), with their defaults."""

    __slots__ = (
        "access_token",
        "api_base",
        "colour",
        "config_dir",
        "debug",
        "directory",
        "http_proxy",
        "insecure",
        "json",
        "limit_rate",
        "parallel",
        "parent",
        "password",
        "quiet",
        "repo_base",
        "timeout_s",
        "user",
        "verify",
    )

    def __init__(self) -> None:
        self.access_token = ""
        self.api_base = API_BASE
        self.repo_base = REPO_BASE
        #: auto, always or never.
        self.colour = "auto"
        self.config_dir = ""
        self.debug = False
        self.directory = "."
        self.http_proxy = "system"
        self.insecure = False
        self.json = False
        #: Bytes a second that all transfers together may take; 0: as fast as it goes.
        self.limit_rate = 0
        self.parallel = 5
        #: The flags of a group (`pvr sig --key ... add`), for the command behind it.
        self.parent: dict[str, Any] = {}
        self.password = ""
        self.quiet = False
        #: How long a server may be silent.
        self.timeout_s = 60.0
        self.user = ""
        #: Trust anchors (PEM) which must have signed all that is taken over; empty: nothing is demanded.
        self.verify = ""

    @property
    def objects_dir(self) -> str:
        """The pool that all repositories of a user share, unless they say otherwise."""
        return os.path.join(self.config_dir, "objects")

    def repository(self) -> Repository:
        """The repository that the current folder is in. Raises UserError when there is none."""
        return Repository.open(discovery.find(self.directory))

    def paths_here(self, repo: Repository, patterns: Iterable[str]) -> list[str]:
        """Paths and patterns of the command line, meant from the current folder, for one who counts from the root."""
        here = os.path.abspath(self.directory)
        return [*patterns] if here == repo.dir else [os.path.join(here, pattern) for pattern in patterns]

    def out(self, text: str) -> None:
        """A line of data."""
        print(text)

    def say(self, text: str) -> None:
        """A line of talk; silent with --quiet."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """A line that --quiet does not silence."""
        word = colour.paint("WARNING:", colour.YELLOW) if colour.wanted(2, self.colour) else "WARNING:"
        print(f"{word} {text}", file=sys.stderr, flush=True)

    def trace(self, text: str) -> None:
        """A line for --debug."""
        if self.debug:
            print(f"DEBUG: {text}", file=sys.stderr, flush=True)

    def result(self, value: JsonInput, lines: Iterable[str] = ()) -> None:
        """A command's result: one JSON line with --json, else the lines."""
        if self.json:
            from brickless.core.canonical import dumps

            print(dumps(value).decode())
            return
        for line in lines:
            print(line)

    def changes(self, value: JsonInput, lines: Iterable[str]) -> None:
        """A result whose lines begin with a mark (`A path`); in colours on a terminal."""
        shown = colour.wanted(1, self.colour)
        self.result(value, map(colour.marked, lines) if shown else lines)


def default_config_dir() -> str:
    """`$HOME/.pvr`; the home of the user database when HOME is empty (pvr.md 1.3)."""
    home = os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
    return os.path.join(home, ".pvr")


def pretty(value: JsonValue, *, canonical: bool = False) -> str:
    """A state as `json`, `inspect` and their like print it: tabs, or one canonical line."""
    if canonical:
        from brickless.core.canonical import dumps

        return dumps(value).decode()
    return canonical_text(value)


def four_blanks(value: JsonValue) -> str:
    """A server's document as `device get` and its like print it."""
    return escaped_text(value, indent="    ")
