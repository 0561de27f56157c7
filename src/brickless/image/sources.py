"""Debian source packages as input: the newest version that can be had, checked against the signed index.

apt resolves, downloads and verifies in a state of its own, as for binary packages (`image.debian`); nothing is
installed. A version that the index names but the archive does not hold (removed, or not mirrored yet) is passed over
for the next older one, and said in the answer: which source went into a device is never a guess.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cmp_to_key
from pathlib import Path
from typing import NamedTuple

from brickless.core.errors import UserError
from brickless.image import debian
from brickless.linux import process
from brickless.linux.process import ProcessError

UNPACK_TIMEOUT_S = 300.0
VERSION = re.compile(r"^Version: (\S+)$", re.MULTILINE)


class Source(NamedTuple):
    """One source package: its version, the file that describes it, and newer versions that could not be had."""

    name: str
    version: str
    dsc: Path
    passed_over: tuple[str, ...] = ()


def fetch(name: str, cache: Path) -> Source:
    """The newest version of the source package `name` that the archive has. Works offline once it was answered.

    Raises `UserError` for a name that Debian does not have, `ProcessError` when no version can be downloaded.
    """
    if not debian.NAME.fullmatch(name):
        raise UserError("debian-package", f"{name!r} is no name of a Debian source package")
    with debian.locked(cache):
        record = cache / "sets" / f"source-{name}.json"
        found = _recorded(record, cache)
        if found is None:
            found = _ask(name, debian.Apt(cache, debian.SOURCE, recommends=False), cache)
            record.write_text(json.dumps([found.name, found.version, found.dsc.name, list(found.passed_over)]))
        return found


def _recorded(record: Path, cache: Path) -> Source | None:
    try:
        name, version, dsc, passed_over = json.loads(record.read_bytes())
    except (FileNotFoundError, ValueError):
        return None  # never asked, or a record that a crash left half written
    path = _folder(cache, name, version) / dsc
    return Source(name, version, path, tuple(passed_over)) if path.is_file() else None


def _folder(cache: Path, name: str, version: str) -> Path:
    return cache / "sources" / f"{name}_{version.replace(':', '%3a')}"


def _ask(name: str, apt: debian.Apt, cache: Path) -> Source:
    apt.update()
    passed_over: list[str] = []
    for version in _versions(name, apt):
        folder = _folder(cache, name, version)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            # apt compares what it downloads with the hashes of the index, and keeps nothing that differs.
            argv = ["source", "--download-only", "--only-source", f"{name}={version}"]
            apt.run(argv, f"download the source of {name}", debian.DOWNLOAD_TIMEOUT_S, cwd=str(folder))
        except ProcessError:
            passed_over.append(version)
            continue
        (dsc,) = folder.glob("*.dsc")
        return Source(name, version, dsc, tuple(passed_over))
    raise ProcessError(f"no version of the source package {name} can be downloaded: tried {', '.join(passed_over)}")


def _versions(name: str, apt: debian.Apt) -> list[str]:
    """Newest first."""
    found = set(VERSION.findall(apt.show_source(name)))
    if not found:
        raise UserError("debian-package", f"Debian's sources on this machine have no package {name}")
    return sorted(found, key=cmp_to_key(_compare), reverse=True)


def _compare(one: str, other: str) -> int:
    argv = ["dpkg", "--compare-versions", one, "gt", other]
    done = process.run(argv, purpose="compare versions", timeout_s=30, check=False)
    return 1 if done.returncode == 0 else -1


def unpack(source: Source, dest: Path) -> None:
    """Unpack with Debian's patches into the new folder `dest`."""
    tool = process.require("dpkg-source", "dpkg-dev")
    # `--no-check`: apt has verified each file by the signed index; the maintainer's own key may not be here.
    argv = [tool, "--no-check", "--extract", str(source.dsc), str(dest)]
    process.run(argv, purpose=f"unpack the source of {source.name}", timeout_s=UNPACK_TIMEOUT_S)


def names_and_versions(found: Sequence[Source]) -> list[str]:
    """`name version`, sorted: what a build is made of."""
    return sorted(f"{one.name} {one.version}" for one in found)
