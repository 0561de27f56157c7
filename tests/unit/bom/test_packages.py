"""Which packages an image has: by the lists of real package managers, and nothing more from hostile ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from brickless.bom import packages
from brickless.core.errors import HostileInputError
from brickless.linux.process import ProcessError
from brickless.oci import squashfs
from brickless.oci.flatten import Flattener
from brickless.testkit.archives import Bytes, file, symlink, tar_of

STATUS = (
    "Package: libc6\nStatus: install ok installed\nVersion: 2.36-9+deb12u9\nDescription: C\n Version: not this\n\n"
    "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n"
    "Package: half\nStatus: install ok unpacked\nVersion: 2\n"
)
APK = "C:Q1abc=\nP:musl\nV:1.2.4-r2\nA:x86_64\n\nP:busybox\nV:1.36.1-r5\n"


def image(where: Path, *members: tuple[str, dict[str, Any]]) -> Path:
    with Flattener() as flattener:
        flattener.add(Bytes(tar_of(*members)))
        squashfs.build(flattener.squashfs_stream(), where)
    return where


def test_the_lists_of_package_managers(tmp_path: Path) -> None:
    debian = image(tmp_path / "debian", ("var/lib/dpkg/status", file(STATUS.encode())), ("x", file(b"x")))
    assert packages.installed(debian) == {"libc6": "2.36-9+deb12u9"}
    small = image(
        tmp_path / "small",
        ("var/lib/dpkg/status.d/tzdata", file(b"Package: tzdata\nVersion: 2024a")),
        ("var/lib/dpkg/status.d/tzdata.md5sums", file(b"Package: no\nVersion: no\n")),
        ("var/lib/dpkg/status.d/netbase", file(b"Package: netbase\nVersion: 6.4\n")),
    )
    assert packages.installed(small) == {"netbase": "6.4"} | {"tzdata": "2024a"}
    alpine = image(
        tmp_path / "alpine",
        ("lib/apk/db/installed", file(APK.encode())),
        ("usr/lib/python3.12/site-packages/Flask_Login-0.6.3.dist-info/METADATA", file(b"")),
    )
    assert packages.installed(alpine) == {"musl": "1.2.4-r2", "busybox": "1.36.1-r5", "python:flask-login": "0.6.3"}


def test_an_image_without_lists_has_none_and_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    empty = image(tmp_path / "empty", ("x", file(b"x")), ("var/lib/dpkg/status.d/l", symlink("/etc/passwd")))
    assert packages.installed(empty) == {}
    (tmp_path / "damaged").write_bytes(empty.read_bytes()[:100])
    with pytest.raises(ProcessError):
        packages.installed(tmp_path / "damaged")


def test_what_is_read_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_MAX_BYTES", 10_000)
    large = image(tmp_path / "large", ("var/lib/dpkg/status", file(b"Package: a\n" * 10_000)))
    with pytest.raises(HostileInputError, match="more than 10000 bytes"):
        packages.installed(large)
