"""FAT file systems that we write: read back by us and by mtools, the same bytes every time, hostile ones refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.core.errors import BricklessError, HostileInputError
from brickless.image import fat

SIZE = 16 << 20
FILES = {
    "boot.scr": b"script",
    "pv.env": b"x" * 512,
    "grub/grubenv": b"#" * 1024,
    "grub/grub.cfg": b"c" * 5000,
    "rescue/kernel.img": bytes(range(256)) * 5000,
    "EMPTY.TXT": b"",
}


def made(tmp_path: Path, name: str = "boot.img") -> Path:
    out = tmp_path / name
    fat.build(out, size_bytes=SIZE, files=FILES, label="BOOT", hidden_sectors=2048)
    return out


def test_what_was_written_is_read(tmp_path: Path) -> None:
    with made(tmp_path).open("rb") as disk:
        system = fat.Fat(disk)
        for path, content in FILES.items():
            assert system.read(path) == content
            assert system.read(path.upper()) == content
        for path in ("nothing", "grub", "grub/nothing", "boot.scr/x", "a-very-long-name.text", ""):
            assert system.read(path) is None


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    assert made(tmp_path, "a").read_bytes() == made(tmp_path, "b").read_bytes()


@pytest.mark.needs("mtools")
def test_others_read_it(tmp_path: Path) -> None:
    image = made(tmp_path)
    for path, content in FILES.items():
        done = subprocess.run(["mtype", "-i", str(image), f"::{path}"], capture_output=True, check=True)
        assert done.stdout == content
    listing = subprocess.run(["mdir", "-/", "-b", "-i", str(image), "::"], capture_output=True, text=True, check=True)
    assert "::/grub/grub.cfg" in listing.stdout.splitlines(), "lower case is kept"


def test_files_lie_in_one_piece_at_whole_clusters(tmp_path: Path) -> None:
    with made(tmp_path).open("rb") as disk:
        for path, content in FILES.items():
            found = fat.Fat(disk).find(path)
            assert found is not None
            assert (
                list(found.clusters) == list(range(found.clusters[0], found.clusters[-1] + 1, fat.CLUSTER))
                if found.clusters
                else not content
            )
            assert all(offset % 4096 in {0, 2048} for offset in found.clusters)


@pytest.mark.parametrize("name", ["much-too-long.txt", "Mixed.txt", "a.long", "a b", "..", "x/../y", "ü"])
def test_names_that_need_more_than_8_3_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BricklessError, match=r"8\.3"):
        fat.build(tmp_path / "x", size_bytes=SIZE, files={name: b""}, label="X", hidden_sectors=0)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BricklessError, match="do not fit"):
        fat.build(tmp_path / "x", size_bytes=SIZE, files={"a": bytes(SIZE)}, label="X", hidden_sectors=0)
    with pytest.raises(BricklessError, match="not FAT16"):
        fat.build(tmp_path / "x", size_bytes=1 << 20, files={}, label="X", hidden_sectors=0)


@given(st.lists(st.tuples(st.integers(0, 200_000), st.binary(min_size=1, max_size=8)), max_size=8))
def test_damage_is_refused_or_read_but_never_without_end(damage: list[tuple[int, bytes]]) -> None:
    from io import BytesIO
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        data = bytearray(made(Path(folder)).read_bytes())
    for offset, content in damage:
        data[offset : offset + len(content)] = content
    try:
        system = fat.Fat(BytesIO(data))
        for path in FILES:
            system.read(path)
    except HostileInputError:
        return
