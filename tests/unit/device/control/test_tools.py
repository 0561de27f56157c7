"""The tools' own parts: transactions as values, packages as bytes, command lines."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core import signature
from brickless.core.errors import HostileInputError
from brickless.device.control.tools import pvcontrol, pventer, tarball, transaction
from brickless.device.control.tools.client import Reply

SHA = "a" * 64


def signed(*include: str, exclude: tuple[str, ...] = ()) -> dict[str, Any]:
    header = {"alg": "RS256", "typ": "PVS", "pvs": {"include": list(include), "exclude": list(exclude)}}
    protected = signature.encode_base64url(json.dumps(header).encode())
    return {"#spec": "pvs@2", "protected": protected, "signature": signature.encode_base64url(b"x")}


BASE: dict[str, Any] = {
    "#spec": "pantavisor-service-system@1",
    "device.json": {},
    "web/run.json": {"name": "web"},
    "web/old": SHA,
    "_config/web/a": SHA,
    "db/run.json": {"name": "db"},
    "shared/lib": SHA,
    "extra/web-only": SHA,
    "_sigs/web.json": signed("web/**", "shared/**", "extra/**"),
    "_sigs/db.json": signed("db/**", "shared/**"),
}


def test_a_package_takes_the_place_of_its_parts() -> None:
    package = {"#spec": "pantavisor-service-system@1", "web/run.json": {"name": "web", "v": 2}}
    merged = transaction.add(BASE, package)
    assert merged["web/run.json"] == {"name": "web", "v": 2}
    assert "web/old" not in merged
    assert merged["db/run.json"] == BASE["db/run.json"]
    assert merged["_config/web/a"] == SHA, "the owner's configuration stays"
    assert merged["extra/web-only"] == SHA, "its signature was not replaced"


def test_configuration_alone_leaves_the_part_alone() -> None:
    """A guest has shown it: a package with nothing but configuration took its container away."""
    merged = transaction.add(BASE, {"_config/web/b": SHA})
    assert merged["web/run.json"] == BASE["web/run.json"]
    assert "_config/web/a" not in merged, "configuration is replaced whole, too"
    assert merged["_config/web/b"] == SHA


def test_what_only_the_old_signature_covered_goes_with_it() -> None:
    package = {"web/run.json": {"name": "web", "v": 2}, "_sigs/web.json": signed("web/**")}
    merged = transaction.add(BASE, package)
    assert "extra/web-only" not in merged
    assert merged["shared/lib"] == SHA, "another signature covers it, too"


def test_a_part_is_removed_with_what_belongs_to_it() -> None:
    left = transaction.remove(BASE, "web")
    assert sorted(left) == ["#spec", "_sigs/db.json", "db/run.json", "device.json", "shared/lib"]
    with pytest.raises(HostileInputError, match="no part 'nosuch'"):
        transaction.remove(BASE, "nosuch")


def test_the_result_is_canonical() -> None:
    text = transaction.text({"b": SHA, "a": SHA})
    assert text == b'{"#spec":"pantavisor-service-system@1","a":"%b","b":"%b"}' % (SHA.encode(), SHA.encode())
    assert transaction.read(text)["a"] == SHA


@pytest.mark.parametrize("data", [b"[]", b"{", b'{"/abs":1}', b'{"a/../b":1}', b'{".pvr/json":1}'])
def test_states_that_are_none(data: bytes) -> None:
    with pytest.raises(HostileInputError):
        transaction.read(data)


def archive(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE, layout: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=layout) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.type = len(data) if kind == tarfile.REGTYPE else 0, kind
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def read(data: bytes) -> list[tuple[str, bytes]]:
    return [(member.sha, member.read()) for member in tarball.members(io.BytesIO(data))]


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress, bz2.compress], ids=["plain", "gzip", "bzip2"])
@pytest.mark.parametrize("layout", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_packages(pack: Any, layout: int) -> None:
    data = archive((f"./objects/{SHA}", b"x" * 1000), (".pvr/config", b"{}"), ("json", b"{}"), layout=layout)
    assert read(pack(data)) == [(SHA, b"x" * 1000), ("", b"{}")]


def test_a_bare_state_is_a_package() -> None:
    assert read(b'{"#spec":1}') == [("", b'{"#spec":1}')]


def test_members_may_be_passed_over() -> None:
    data = archive((f"objects/{SHA}", b"x" * 1000), ("json", b"{}"))
    assert [member.sha for member in tarball.members(io.BytesIO(data))] == [SHA, ""]


@pytest.mark.parametrize(
    "data",
    [
        archive(("../../etc/passwd", b"x")),
        archive(("objects/short", b"x")),
        archive((f"objects/{SHA}", b""), kind=tarfile.SYMTYPE),
        archive(("json", b""), kind=tarfile.LNKTYPE),
        archive(("json", b"x" * 2000))[:900],
        b"\x1f\x8b" + b"x" * 600,
        gzip.compress(archive(("json", b"{}")))[:-20],
        b"x" * 1024,
        b"short",
    ],
    ids=["path", "name", "symlink", "hard-link", "cut", "gzip", "gzip-cut", "no-tar", "short"],
)
def test_what_is_no_package(data: bytes) -> None:
    if data.startswith(b"\x1f\x8b") and len(data) < 200:
        assert len(read(data)) <= 1, "what came whole is whole; the hash of an object decides"
        return
    with pytest.raises(HostileInputError):
        read(data)


@given(st.binary(max_size=2000), st.integers(0, 2))
def test_any_bytes(data: bytes, where: int) -> None:
    good = archive(("json", b"{}"))
    mixed = [data, good[:300] + data, gzip.compress(data)][where]
    try:
        read(mixed)
    except HostileInputError:
        return


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (200, "", 0),
        (204, "", 0),
        (503, "An update is ongoing", 75),
        (507, "Not enough disk space available", 48),
        (422, "Object has bad checksum", 60),
        (400, "State verification has failed", 70),
        (404, "Resource does not exist", 255),
    ],
)
def test_exit_codes(status: int, error: str, code: int) -> None:
    body = json.dumps({"Error": error}).encode() if error else b""
    assert pvcontrol.exit_code(Reply(status, body, {})) == code


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["-c", "web"], ("web", ["/bin/sh"])),
        (["-c", "web", "ls", "-l"], ("web", ["ls", "-l"])),
        (["-c", "web", "--", "ls"], ("web", ["ls"])),
        (["web"], None),
        ([], None),
        (["-c", "../x"], None),
        (["-c", "-n"], None),
    ],
)
def test_pventer_reads_its_command_line(argv: list[str], expected: object) -> None:
    assert pventer.command(argv) == expected


def test_pventer_without_lxc_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(pventer.process, "find", lambda _name: None)
    assert pventer.main(["-c", "web"]) == 1
    assert "lxc-attach" in capsys.readouterr().err
    assert pventer.main([]) == 2


def test_a_deployed_folder_is_old_or_new(tmp_path: Path) -> None:
    from brickless.core.state import parse_state
    from brickless.device.update.deploy import deploy

    target = tmp_path / "trails" / "0"
    target.mkdir(parents=True)
    (target / "mark").write_text("old")
    state = parse_state(b'{"#spec":"pantavisor-service-system@1","x/y":"%b"}' % SHA.encode())
    with pytest.raises(FileNotFoundError):
        deploy(str(target), str(tmp_path / "objects"), state)
    assert (target / "mark").read_text() == "old"
    assert sorted(path.name for path in target.parent.iterdir()) == ["0"]
