"""Files of an image are hashed where their blocks lie: the same as what debugfs dumps, whole, sparse or damaged."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from brickless.linux import process
from brickless.testkit.crashlab import inspect

BLOCK = 4096
FILES = {
    "empty": b"",
    "small": b"a few bytes",
    "block": b"x" * BLOCK,
    "large": b"".join(bytes([number + 65]) * BLOCK for number in range(20)),
    "sparse": b"head" + bytes(100_000) + b"tail",
}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, content in FILES.items():
        (tree / name).write_bytes(content)
    with (tree / "sparse").open("wb") as stream:
        stream.write(b"head")
        stream.seek(100_004)
        stream.write(b"tail")
    (tree / "folder").mkdir()
    out = tmp_path / "disk.img"
    argv = ["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", str(tree), str(out), "4M"]
    process.run(argv, purpose="making a test's image", timeout_s=60)
    return out


def test_digests_are_those_of_the_contents(image: Path) -> None:
    wanted = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    assert inspect.digests(image, [*FILES, "folder", "missing"]) == wanted
    assert {name: hashlib.sha256(content).hexdigest() for name, content in inspect.contents(image, FILES).items()} == (
        wanted
    )


@pytest.mark.parametrize("at", [0, 20_000, len(FILES["large"]) - 1])
def test_one_changed_byte_is_seen_even_in_a_content_that_is_known(image: Path, at: int) -> None:
    before = inspect.digests(image, ["large"])
    content = bytearray(FILES["large"])
    begin = at - at % BLOCK
    place = image.read_bytes().index(FILES["large"][begin : begin + BLOCK])
    content[at] ^= 1
    with image.open("r+b") as stream:
        stream.seek(place + at % BLOCK)
        stream.write(content[at : at + 1])
    after = inspect.digests(image, ["large"])
    assert after != before
    assert after == {"large": hashlib.sha256(content).hexdigest()}
