"""The tar reader against archives of other programs and against hostile bytes; the writer against another reader."""

from __future__ import annotations

import io
import stat
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core.errors import HostileInputError
from brickless.linux import process
from brickless.oci import tar
from brickless.oci.limits import Limits
from brickless.oci.tar import TarError
from brickless.testkit.archives import file, folder, hardlink, symlink, tar_of


def read(data: bytes, limits: Limits | None = None) -> list[tar.Entry]:
    return list(tar.read(io.BytesIO(data), limits=limits or Limits()))


def content(data: bytes, entry: tar.Entry) -> bytes:
    out = bytearray(entry.size)
    for logical, size, offset in entry.segments:
        out[logical : logical + size] = data[offset : offset + size]
    return bytes(out)


FEATURES = [
    ("plain", file(b"hello", mode=0o4755, uid=5, gid=6, mtime=1234567890)),
    ("d", folder(mode=0o1777)),
    ("s", symlink("../x")),
    ("h", hardlink("plain")),
    ("dev", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3, "mode": 0o666}),
    ("blk", {"type": tarfile.BLKTYPE, "devmajor": 8, "devminor": 1}),
    ("pipe", {"type": tarfile.FIFOTYPE}),
    ("n" * 80 + "/" + "m" * 90 + "/" + "o" * 90, file(b"long")),
    ("l", symlink("t" * 300)),
    ("\udcff\udcfe", file(b"not UTF-8")),
    ("big-ids", file(b"", uid=4_000_000_000, gid=3_000_000_000)),
]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_every_kind_of_entry_is_read(form: int) -> None:
    data = tar_of(*FEATURES, form=form)
    entries = {entry.name.rstrip(b"/"): entry for entry in read(data)}
    plain = entries[b"plain"]
    assert (plain.mode, plain.uid, plain.gid, plain.mtime_s) == (0o4755, 5, 6, 1234567890)
    assert content(data, plain) == b"hello"
    assert entries[b"d"].type == tar.FOLDER
    assert entries[b"d"].mode == 0o1777
    assert entries[b"s"].link == b"../x"
    assert (entries[b"h"].type, entries[b"h"].link, entries[b"h"].size) == (tar.LINK, b"plain", 0)
    assert (entries[b"dev"].major, entries[b"dev"].minor) == (1, 3)
    assert stat.S_ISBLK(entries[b"blk"].st_mode())
    assert entries[b"pipe"].type == tar.FIFO
    assert content(data, entries[b"n" * 80 + b"/" + b"m" * 90 + b"/" + b"o" * 90]) == b"long"
    assert entries[b"l"].link == b"t" * 300
    assert b"\xff\xfe" in entries
    assert (entries[b"big-ids"].uid, entries[b"big-ids"].gid) == (4_000_000_000, 3_000_000_000)


def test_extended_attributes_keep_every_byte() -> None:
    capability = bytes([1, 0, 0, 2, 0, 0x20, 0, 0, *([0] * 12)])
    headers = {
        "SCHILY.xattr.security.capability": capability.decode("latin1"),
        "SCHILY.xattr.user.x": "a=b\nc",
        "LIBARCHIVE.xattr.user.y": "aGk",
    }
    (entry,) = read(tar_of(("f", file(b"", pax_headers=headers))))
    assert entry.xattrs == {b"security.capability": capability, b"user.x": b"a=b\nc", b"user.y": b"hi"}


@pytest.mark.parametrize("version", ["gnu", "0.0", "0.1", "1.0"])
def test_sparse_files_of_gnu_tar(tmp_path: Path, version: str) -> None:
    place = tmp_path / "sparse"
    with place.open("wb") as handle:
        for n in range(40):
            handle.seek(n * 65536)
            handle.write(bytes([n + 1]) * 4096)
        handle.truncate(41 * 65536)
    kind = ["--format=gnu"] if version == "gnu" else ["--format=posix", f"--sparse-version={version}"]
    archive = tmp_path / "a.tar"
    argv = ["tar", "-cSf", str(archive), *kind, "-C", str(tmp_path), "sparse"]
    process.run(argv, purpose="archive", timeout_s=60)
    data = archive.read_bytes()
    (entry,) = read(data)
    assert entry.name == b"sparse"
    assert content(data, entry) == place.read_bytes()
    assert len(data) < 400_000


HEADER = tar_of(("f", file(b"x" * 600)))


def corrupt(offset: int, new: bytes, *, fix: bool = True) -> bytes:
    data = bytearray(HEADER)
    data[offset : offset + len(new)] = new
    if fix:
        data[148:156] = b" " * 8
        data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


def pax(records: bytes) -> bytes:
    body = records + bytes(-len(records) % 512)
    entry = tar.Entry(b"x", b"x", size=len(records))
    return tar.header(entry) + body + HEADER


BAD = {
    "cut off in a header": HEADER[:300],
    "cut off in the content": HEADER[:700],
    "checksum": corrupt(0, b"g", fix=False),
    "a size that is no number": corrupt(124, b"12x45678901\0"),
    "a size with an eight": corrupt(124, b"00000000008\0"),
    "a negative size": corrupt(124, b"\xff" * 12),
    "a huge size": corrupt(124, b"\x80" + b"\x7f" * 11),
    "an unknown type": corrupt(156, b"Z"),
    "a multi-volume archive": corrupt(156, b"M"),
    "a link that leads nowhere": corrupt(156, b"2"),
    "a negative uid": corrupt(108, b"\xff" * 8),
    "a lone zero block": HEADER[:1536] + bytes(512) + HEADER,
    "pax without a length": pax(b"path=x\n"),
    "pax with a short length": pax(b"5 path=x\n"),
    "pax with a long length": pax(b"99 path=x\n"),
    "pax without an end of line": pax(b"10 path=xy"),
    "pax with a NUL in the name": pax(b"12 path=a\0b\n"),
    "pax with a size that is no number": pax(b"11 size=-1\n"),
    "pax with a negative uid": pax(b"10 uid=-1\n"),
    "a sparse map with an offset but no length": pax(b"24 GNU.sparse.map=5,9,1\n"),
    "a sparse map without a size": pax(b"22 GNU.sparse.map=5,9\n"),
    "an extended header of a gigabyte": tar.header(tar.Entry(b"x", b"x", size=1 << 30)),
    "a long name of a gigabyte": tar.header(tar.Entry(b"x", b"L", size=1 << 30)),
    "an extended header without an entry": tar.header(tar.Entry(b"x", b"x", size=10))
    + b"10 path=x\n".ljust(512, b"\0"),
    "a global header with a path": tar.header(tar.Entry(b"x", b"g", size=10))
    + b"10 path=x\n".ljust(512, b"\0")
    + HEADER,
    "endless extended headers": (tar.header(tar.Entry(b"x", b"x", size=10)) + b"10 path=x\n".ljust(512, b"\0")) * 40
    + HEADER,
    "text": b"this is no archive at all, but long enough to be one. " * 20,
}


@pytest.mark.parametrize("name", list(BAD))
def test_hostile_archives_are_refused(name: str) -> None:
    with pytest.raises(TarError):
        read(BAD[name])


def test_entries_are_bounded() -> None:
    data = tar_of(*((f"f{n}", file()) for n in range(12)))
    assert len(read(data, Limits(entries=12))) == 12
    with pytest.raises(TarError, match="more than 11 entries"):
        read(data, Limits(entries=11))


def test_a_comment_for_all_and_a_missing_end_are_fine() -> None:
    comment = tar.header(tar.Entry(b"x", b"g", size=14)) + b"14 comment=hi\n".ljust(512, b"\0")
    assert len(read(comment + HEADER[:1536])) == 1


@given(st.binary(max_size=2000), st.integers(0, 1500), st.integers(0, 255))
def test_no_bytes_make_the_reader_crash(noise: bytes, place: int, value: int) -> None:
    mutated = bytearray(FUZZ_BASE)
    mutated[place % len(mutated)] = value
    for data in (noise, bytes(mutated), HEADER[:512] + noise, FUZZ_BASE[:1024] + noise):
        try:
            for entry in tar.read(io.BytesIO(data)):
                assert entry.size >= 0
        except HostileInputError as error:
            assert str(error)  # noqa: PT017 - refusing is one of two allowed outcomes


FUZZ_BASE = tar_of(("a" * 150, file(b"x" * 10, pax_headers={"SCHILY.xattr.user.a": "b"})), ("l", symlink("y" * 120)))

NAMES = st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name and not name.endswith(b"/"))


@given(
    NAMES,
    st.integers(0, 0o7777),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, (1 << 40)),
    st.dictionaries(st.sampled_from([b"user.a", b"security.capability"]), st.binary(min_size=1, max_size=200)),
)
def test_what_the_writer_writes_the_reader_reads(
    name: bytes, mode: int, uid: int, mtime_s: int, xattrs: dict[bytes, bytes]
) -> None:
    entry = tar.Entry(name, tar.SYMLINK, mode=mode, link=name)
    entry.uid = entry.gid = uid
    entry.mtime_s, entry.xattrs = mtime_s, xattrs or None
    (found,) = read(tar.header(entry) + tar.END)
    for field in ("name", "type", "mode", "uid", "gid", "mtime_s", "link", "xattrs"):
        assert getattr(found, field) == getattr(entry, field)


def test_another_reader_reads_what_the_writer_writes() -> None:
    entry = tar.Entry(b"n" * 150, tar.FILE, mode=0o640, size=5)
    entry.uid, entry.mtime_s, entry.xattrs = 1 << 31, 1 << 33, {b"user.x": b"1"}
    data = tar.header(entry) + b"hello" + tar.padding(5) + tar.END
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        (info,) = archive.getmembers()
        assert (info.name, info.mode, info.uid, info.mtime) == ("n" * 150, 0o640, 1 << 31, 1 << 33)
        assert info.pax_headers["SCHILY.xattr.user.x"] == "1"
        extracted = archive.extractfile(info)
        assert extracted is not None
        assert extracted.read() == b"hello"
