"""squashfs out of a stream: the same bytes every time, everything kept, nothing left behind on failure."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brickless.core.errors import HostileInputError, UserError
from brickless.linux import process
from brickless.linux.process import ProcessError
from brickless.oci import squashfs
from brickless.oci.flatten import Flattener
from brickless.oci.squashfs import Options, Stream, compressor, parse_options
from brickless.testkit.archives import Bytes, file, folder, hardlink, symlink, tar_of

CAPABILITY = bytes([1, 0, 0, 2, 0, 4, 0, 0, *([0] * 12)])
LAYER = tar_of(
    ("./", folder(mode=0o750)),
    (
        "bin/ping",
        file(b"elf" * 50_000, mode=0o4755, pax_headers={"SCHILY.xattr.security.capability": CAPABILITY.decode()}),
    ),
    ("bin/hard", hardlink("bin/ping")),
    ("etc/shadow", file(b"secret", uid=0, gid=42, mode=0o640, mtime=1_600_000_000)),
    ("home/u", folder(uid=1000, gid=1000, mode=0o700)),
    ("dev/null", {"type": b"3", "devmajor": 1, "devminor": 3, "mode": 0o666}),
    ("fifo", {"type": b"6", "mode": 0o600}),
    ("link", symlink("/etc/shadow")),
    ("odd \udcff\n name", file(b"bytes")),
    ("hole", file(bytes(3_000_000))),
)


def build(dest: Path, options: Options = squashfs.DEFAULT, **kwargs: Any) -> str:
    with Flattener() as flattener:
        flattener.add(Bytes(LAYER))
        flattener.finish_root()
        flattener.exclude(options.excluded)
        return squashfs.build(flattener.squashfs_stream(**kwargs), dest, options=options)


def listing(path: Path) -> str:
    return process.run(["unsquashfs", "-lln", str(path)], purpose="list", timeout_s=60).stdout.decode(
        "utf-8", "surrogateescape"
    )


def info(path: Path) -> str:
    return process.run(["unsquashfs", "-s", str(path)], purpose="inspect", timeout_s=60).stdout.decode()


def test_everything_is_kept_without_root(tmp_path: Path) -> None:
    sha = build(tmp_path / "root.squashfs")
    assert sha == hashlib.sha256((tmp_path / "root.squashfs").read_bytes()).hexdigest()
    text = listing(tmp_path / "root.squashfs")
    lines = {line.split("squashfs-root", 1)[1]: line for line in text.splitlines() if "squashfs-root" in line}
    assert lines[""].startswith("drwxr-x--- 0/0")
    assert lines["/bin/ping"].startswith("-rwsr-xr-x 0/0")
    assert lines["/etc/shadow"].startswith("-rw-r----- 0/42")
    assert "2020-09-13" in lines["/etc/shadow"]
    assert lines["/home/u"].startswith("drwx------ 1000/1000")
    assert lines["/dev/null"].split()[:4] == ["crw-rw-rw-", "0/0", "1,", "3"]
    assert lines["/fifo"].startswith("prw-------")
    assert "/link -> /etc/shadow" in lines
    assert lines["/tmp"].startswith("drwxrwxrwt")
    assert lines["/proc"].startswith("drwxr-xr-x")
    assert "/odd \udcff\n name" in text
    assert (tmp_path / "root.squashfs").stat().st_size < 30_000
    assert (tmp_path / "root.squashfs").stat().st_mode & 0o777 == 0o644
    shown = info(tmp_path / "root.squashfs")
    assert "Compression zstd" in shown
    assert "compression-level 12" in shown
    assert "not exportable" in shown
    assert "Number of xattr ids 1" in shown


def test_the_same_image_gives_the_same_bytes_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(tmp_path / "a")
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    monkeypatch.setenv("LC_ALL", "tr_TR.UTF-8")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    other = tmp_path / "elsewhere"
    other.mkdir()
    monkeypatch.chdir(other)
    umask = os.umask(0o077)
    try:
        assert build(Path("b")) == first
    finally:
        os.umask(umask)


def test_where_the_kernel_forbids_user_namespaces_fakeroot_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(argv: list[str], **kwargs: Any) -> process.Completed:
        return real(["false"] if argv[-1] == "true" else argv, **kwargs)

    real = process.run
    first = build(tmp_path / "a")
    monkeypatch.setattr(os, "getegid", lambda: 1)  # not root: as anyone else
    assert build(tmp_path / "b") == first
    monkeypatch.setattr(squashfs.process, "run", run)
    monkeypatch.setattr(squashfs.process, "require", lambda tool, package: f"missing {package}")
    assert squashfs._as_root() == ["missing fakeroot", "--"]


def test_a_latest_time_caps_all_times(tmp_path: Path) -> None:
    build(tmp_path / "a", epoch_s=86400)
    assert "2020" not in listing(tmp_path / "a")
    assert "1970-01-02 00:00 squashfs-root/etc/shadow" in listing(tmp_path / "a")


def test_times_in_the_future_are_refused_not_made_random(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="from the future"):
        squashfs.build(Stream([], latest_s=(1 << 32) - 1), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["gzip", "xz", "lz4", "lzo"])
def test_other_compressors(tmp_path: Path, name: str) -> None:
    build(tmp_path / "a", compressor(name))
    assert f"Compression {name}" in info(tmp_path / "a")


def test_format_options_as_the_yocto_layer_gives_them(tmp_path: Path) -> None:
    options = parse_options("-comp xz -b 256K -e bin/ping home ")
    assert options.excluded == ("bin/ping", "home")
    build(tmp_path / "a", options)
    assert "Compression xz" in info(tmp_path / "a")
    assert "Block size 262144" in info(tmp_path / "a")
    text = listing(tmp_path / "a")
    assert "/bin/ping" not in text
    assert "/home" not in text
    assert "/bin/hard" in text  # the file lives on under its other name
    assert parse_options(" ") == squashfs.DEFAULT
    assert parse_options("-all-root -noappend").arguments[-1] == "-all-root"


@pytest.mark.parametrize("text", ["-p x d 755 0 0", "-pf file", "-sort f", "x", "-b", "-comp", "'", "-root-becomes a"])
def test_format_options_that_make_no_sense_or_reach_outside_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="format option"):
        parse_options(text)


def test_a_failing_stream_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield LAYER[:2000]
        raise HostileInputError("layer 2 is damaged")

    with pytest.raises(HostileInputError, match="layer 2"):
        squashfs.build(Stream(chunks()), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_stream_that_mksquashfs_does_not_take_whole_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProcessError):
        squashfs.build(Stream([b"this is no tar archive" * 100]), tmp_path / "x")
    with pytest.raises(ProcessError):
        build(tmp_path / "a", Options(("-comp", "zstd", "-Xcompression-level", "99")))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_takes_no_file_is_an_error_that_says_so() -> None:
    with pytest.raises(ProcessError, match=r"write root\.squashfs failed(.|\n)*Could not create destination"):
        squashfs.build(Stream([LAYER]), "/proc/root.squashfs")


def test_a_layer_that_unpacks_to_something_else_is_refused() -> None:
    with Flattener() as flattener, pytest.raises(HostileInputError, match="but the image's configuration says"):
        flattener.add(Bytes(LAYER, diff_id="sha256:" + "0" * 64))


def test_attributes_that_squashfs_cannot_hold_are_named(tmp_path: Path) -> None:
    headers = {"SCHILY.xattr.system.posix_acl_access": "x", "SCHILY.xattr.trusted.overlay.redirect": "/etc"}
    notes: list[str] = []
    with Flattener(report=notes.append) as flattener:
        flattener.add(Bytes(tar_of(("f", file(b"", pax_headers=headers)))))
        squashfs.build(flattener.squashfs_stream(), tmp_path / "x")
    assert len(notes) == 2
    assert any("posix_acl" in note for note in notes)
    assert any("overlay" in note for note in notes)
