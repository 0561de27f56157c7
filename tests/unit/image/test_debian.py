"""Debian packages as input: which sources take part, what is asked, what is trusted of the cache (no network here)."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from brickless.core.errors import UserError
from brickless.image import debian
from brickless.linux import process

DEB822 = """Types: deb
# http://archive.example/archive/debian/20250520T000000Z
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://deb.example.org/node_20.x
Suites: nodistro
Components: main
Signed-By: /usr/share/keyrings/other.gpg

Types: deb-src
URIs: http://mirror.example/debian
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: http://mirror.example/debian
Suites: sid
Components: main
"""
ONE_LINE = """deb http://mirror.example.org/debian bookworm main contrib # ours
deb [arch=amd64 signed-by=/usr/share/keyrings/x.gpg] https://packages.example.org/apt sdk main
deb https://packages.example.org/apt cloud-sdk main
deb-src http://mirror.example.org/debian bookworm main
"""


def test_only_debians_own_sources_take_part(tmp_path: Path) -> None:
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (folder / "debian.sources").write_text(DEB822)
    (folder / "x.list").write_text(ONE_LINE)
    (folder / "x.list.bak").write_text(ONE_LINE)
    key = "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg"
    assert debian.debian_sources(tmp_path) == [
        f"Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n{key}",
        f"Types: deb\nURIs: http://mirror.example.org/debian\nSuites: bookworm\nComponents: main contrib\n{key}",
    ]


@pytest.mark.parametrize("name", ["", "-y", "--config-file=x", "../x", "Nginx", "a b", "x=1 2"])
def test_bad_package_names_never_reach_apt(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="no name of a Debian package"):
        debian.fetch([name], tmp_path)


def test_bad_architectures_and_empty_questions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not one of amd64"):
        debian.fetch(["nginx"], tmp_path, arch="../amd64")
    with pytest.raises(UserError, match="no package is named"):
        debian.fetch([], tmp_path)


def record(cache: Path, name: str, content: bytes, sha256: str) -> Path:
    path = cache / "archives" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    (cache / "sets").mkdir()
    listed = {"packages": [{"file": name, "sha256": sha256}]}
    answer = cache / "sets" / "answer.json"
    answer.write_text(json.dumps(listed))
    return answer


def test_a_cached_answer_is_used_only_while_its_files_have_their_hashes(tmp_path: Path) -> None:
    content = b"a package"
    answer = record(tmp_path, "hello_1%3a2.10-3_amd64.deb", content, hashlib.sha256(content).hexdigest())
    found = debian._recorded(answer, tmp_path / "archives")
    assert found is not None
    assert [(debian.name_of(path), debian.version_of(path)) for path in found] == [("hello", "1:2.10-3")]
    found[0].write_bytes(b"A package")
    assert debian._recorded(answer, tmp_path / "archives") is None
    found[0].unlink()
    assert debian._recorded(answer, tmp_path / "archives") is None
    answer.write_text('{"packages": [')
    assert debian._recorded(answer, tmp_path / "archives") is None


def make_deb(folder: Path) -> Path:
    tree = folder / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: hello\nVersion: 1.0\nArchitecture: all\nMaintainer: T <t@example.org>\nDescription: x\n"
    )
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/hello").write_text("#!/bin/sh\n")
    deb = folder / "hello_1.0_all.deb"
    process.run(["dpkg-deb", "-b", str(tree), str(deb)], purpose="build a package", timeout_s=60)
    return deb


def test_members_and_extract_read_a_real_package(tmp_path: Path) -> None:
    deb = make_deb(tmp_path)
    with debian.members(deb) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        assert "./usr/bin/hello" in [member.name for member in tar]
    debian.extract([deb], tmp_path / "out")
    assert (tmp_path / "out/usr/bin/hello").read_text() == "#!/bin/sh\n"


def test_a_damaged_package_is_an_error(tmp_path: Path) -> None:
    deb = make_deb(tmp_path)
    deb.write_bytes(deb.read_bytes()[:-200])
    with pytest.raises(process.ProcessError, match=r"read the package hello_1\.0_all\.deb failed"):  # noqa: SIM117 one line would be too long
        with debian.members(deb) as stream:
            stream.read()
