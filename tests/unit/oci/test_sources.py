"""Layouts and archives on disk: good ones from every tool's shape, and lies about sizes, digests and paths."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from brickless.core.errors import BricklessError, HostileInputError, UserError
from brickless.oci import compression
from brickless.oci.flatten import Flattener
from brickless.oci.layout import LayoutWriter
from brickless.oci.manifest import (
    DOCKER_MANIFEST,
    OCI_INDEX,
    ManifestError,
    Platform,
    media_type_of,
    parse_config,
    parse_index,
    parse_manifest,
    select,
)
from brickless.oci.sources import open_image
from brickless.testkit.archives import file, tar_of
from brickless.testkit.debian_image import GZIP, PLAIN, ZSTD, compress, write_image

LAYERS = [
    (tar_of(("a", file(b"lower")), ("b", file(b"gone"))), GZIP),
    (tar_of(("a", file(b"upper"))), ZSTD),
    (tar_of((".wh.b", file())), PLAIN),
]
ARM = Platform("linux", "arm", "v7")
AMD = Platform("linux", "amd64")


def layout(folder: Path, *platforms: Platform, tags: bool = False) -> Path:
    writer = LayoutWriter(folder)
    images = [
        (write_image(writer, LAYERS, {"Cmd": [str(p)]}, platform=p), f"t{n}" if tags else "")
        for n, p in enumerate(platforms or (AMD,))
    ]
    writer.finish(images)
    return folder


def flat(source: str, folder: Path, **kwargs: Any) -> tuple[list[bytes], dict[str, Any], str]:
    with open_image(source, cache=folder / "cache", **kwargs) as image, Flattener() as flattener:
        flattener.add_all(image.layers)
        names = [path for path, _ in flattener.tree.walk()]
        assert flattener.read_file("a") == b"upper"
        return names, image.config, image.digest


def packed(folder: Path, compressor: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(folder, arcname=".")
    return compress(buffer.getvalue(), compressor)[0]


def test_a_layout_with_layers_of_every_compression(tmp_path: Path) -> None:
    names, config, digest = flat(f"oci:{layout(tmp_path / 'l')}", tmp_path)
    assert names == [b"", b"a"]
    assert config == {"Cmd": ["linux/amd64"]}
    assert digest.startswith("sha256:")


def test_tags_and_platforms_choose(tmp_path: Path) -> None:
    folder = layout(tmp_path / "l", AMD, ARM, tags=True)
    assert flat(f"oci:{folder}:t1", tmp_path)[1] == {"Cmd": ["linux/arm/v7"]}
    assert flat(f"oci:{folder}", tmp_path, platforms=[ARM])[1] == {"Cmd": ["linux/arm/v7"]}
    # The order of the wishes counts, not that of the index.
    wishes = [Platform.parse("linux/arm"), AMD]
    assert flat(f"oci:{folder}", tmp_path, platforms=wishes)[1] == {"Cmd": ["linux/arm/v7"]}
    with open_image(f"oci:{folder}", cache=tmp_path / "c") as image:
        assert image.defaulted
        assert image.platform == AMD
    with pytest.raises(UserError, match=r"no image for linux/riscv64, only for linux/amd64, linux/arm/v7"):
        flat(f"oci:{folder}", tmp_path, platforms=[Platform.parse("linux/riscv64")])
    with pytest.raises(UserError, match="no image with the tag"):
        flat(f"oci:{folder}:none", tmp_path)
    single = layout(tmp_path / "s", ARM)
    with pytest.raises(UserError, match=r"no image for linux/amd64, only for linux/arm/v7"):
        flat(f"oci:{single}", tmp_path, platforms=[AMD])


@pytest.mark.parametrize("compressor", ["", GZIP, ZSTD], ids=["plain", "gzip", "zstd"])
def test_archives_from_files_and_from_stdin(tmp_path: Path, compressor: str) -> None:
    folder = layout(tmp_path / "l")
    archive = tmp_path / "image.tar"
    archive.write_bytes(packed(folder, compressor))
    expected = flat(f"oci:{folder}", tmp_path)
    assert flat(f"oci-archive:{archive}", tmp_path) == expected
    with archive.open("rb") as stdin:
        assert flat("-", tmp_path, stdin=stdin) == expected


def docker_save(folder: Path, **changes: Any) -> bytes:
    """An archive as `docker save` made them before it wrote layouts: layers beside a manifest.json, some as links."""
    raw = [data for data, _ in LAYERS]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["x"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(d).hexdigest()}" for d in raw]},
    }
    listed = {"Config": "c.json", "RepoTags": ["web:1"], "Layers": ["0/layer.tar", "1/layer.tar", "2/layer.tar"]}
    listed |= changes
    members = [("c.json", file(json.dumps(config).encode())), ("manifest.json", file(json.dumps([listed]).encode()))]
    members += [("0/layer.tar", file(raw[0])), ("1/layer.tar", {"type": b"2", "linkname": "../x/layer.tar"})]
    members += [("x/layer.tar", file(raw[1])), ("2/layer.tar", file(raw[2]))]
    return tar_of(*members)


def test_docker_save(tmp_path: Path) -> None:
    archive = tmp_path / "web.tar"
    archive.write_bytes(docker_save(tmp_path))
    names, config, digest = flat(f"docker-archive:{archive}", tmp_path)
    assert (names, config) == ([b"", b"a"], {"Cmd": ["x"]})
    assert digest.startswith("sha256:")
    assert flat(f"docker-archive:{archive}:web:1", tmp_path)[2] == digest
    with pytest.raises(UserError, match="holds 0 images for web:2"):
        flat(f"docker-archive:{archive}:web:2", tmp_path)
    for changes, message in (
        ({"Layers": ["0/layer.tar"]}, "has 1 layers"),
        ({"Layers": ["0/layer.tar", "2/layer.tar", "1/layer.tar"]}, "unpacks to"),
        ({"Layers": ["0/layer.tar", "../../etc/passwd", "1/layer.tar"]}, "lacks the file"),
        ({"Config": "none"}, "lacks its configuration"),
        ({"Layers": None}, "names no configuration or layers"),
    ):
        archive.write_bytes(docker_save(tmp_path, **changes))
        with pytest.raises(HostileInputError, match=message):
            flat(f"docker-archive:{archive}", tmp_path)


def blob_of(folder: Path, needle: bytes) -> Path:
    return next(p for p in (folder / "blobs/sha256").iterdir() if needle in p.read_bytes())


def damage_digest(folder: Path) -> None:
    layer = max((folder / "blobs/sha256").iterdir(), key=lambda p: b"ustar" in p.read_bytes())
    data = bytearray(layer.read_bytes())
    data[600] ^= 1
    layer.write_bytes(data)


def rewrite(folder: Path, change: Any) -> None:
    """Change the manifest and keep the index honest about it."""
    path = blob_of(folder, b'"layers"')
    document = json.loads(path.read_bytes())
    change(document)
    writer = LayoutWriter(folder)
    writer.finish([(writer.add(json.dumps(document).encode(), document["mediaType"]), "")])


DAMAGE: dict[str, tuple[Any, str]] = {
    "a flipped bit in a layer": (damage_digest, "has the digest"),
    "a layer that is cut off": (
        lambda f: (p := blob_of(f, b"ustar")).write_bytes(p.read_bytes()[:-512]),
        "bytes where",
    ),
    "a layer with more bytes": (lambda f: (p := blob_of(f, b"ustar")).write_bytes(p.read_bytes() + b"x"), "more than"),
    "a missing layer": (lambda f: blob_of(f, b"ustar").unlink(), "lacks the blob"),
    "a missing configuration": (lambda f: blob_of(f, b"diff_ids").unlink(), "lacks the blob"),
    "a size that lies": (lambda f: rewrite(f, lambda m: m["layers"][0].update(size=5)), "more than the 5 bytes"),
    "a digest that lies": (
        lambda f: rewrite(f, lambda m: m["layers"][0].update(digest=m["layers"][1]["digest"])),
        "more than|bytes where|unpacks to",
    ),
    "a digest that is a path": (
        lambda f: rewrite(f, lambda m: m["layers"][0].update(digest="sha256:../../../etc/passwd")),
        "no SHA-256 digest",
    ),
    "a negative size": (lambda f: rewrite(f, lambda m: m["layers"][0].update(size=-1)), "no size"),
    "a boolean size": (lambda f: rewrite(f, lambda m: m["layers"][0].update(size=True)), "no size"),
    "a gigantic layer": (lambda f: rewrite(f, lambda m: m["layers"][0].update(size=1 << 60)), "at most"),
    "a gigantic configuration": (lambda f: rewrite(f, lambda m: m["config"].update(size=1 << 40)), "at most"),
    "swapped layers": (lambda f: rewrite(f, lambda m: m["layers"].reverse()), "unpacks to"),
    "one layer less": (lambda f: rewrite(f, lambda m: m["layers"].pop()), "its configuration lists 3"),
    "layers elsewhere": (
        lambda f: rewrite(
            f, lambda m: m["layers"][0].update(mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
        ),
        "outside the registry",
    ),
    "layers that are no list": (lambda f: rewrite(f, lambda m: m.update(layers="x")), "no list"),
    "index and manifest in one": (lambda f: rewrite(f, lambda m: m.update(manifests=[])), "both an index and"),
    "an index that is a loop": (
        lambda f: (f / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": []})),
        "holds no image",
    ),
    "an index that is no JSON": (lambda f: (f / "index.json").write_text("{"), "no valid JSON"),
    "no index": (lambda f: (f / "index.json").unlink(), "lacks index.json"),
    "no marker": (lambda f: (f / "oci-layout").unlink(), "no OCI layout"),
    "a future version": (lambda f: (f / "oci-layout").write_text('{"imageLayoutVersion":"2.0"}'), "no OCI layout"),
    "an index that is too large": (lambda f: (f / "index.json").write_bytes(b" " * (5 << 20)), "has more than"),
}


@pytest.mark.parametrize("name", list(DAMAGE))
def test_lies_and_damage_are_refused(tmp_path: Path, name: str) -> None:
    folder = layout(tmp_path / "l")
    change, message = DAMAGE[name]
    change(folder)
    with pytest.raises(BricklessError, match=message):
        flat(f"oci:{folder}", tmp_path)


def test_what_is_not_there_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    for source in ("oci:/none", f"oci-archive:{tmp_path}/none", f"docker-archive:{tmp_path}", "-"):
        with pytest.raises(UserError):
            flat(source, tmp_path)
    (tmp_path / "text").write_text("no archive at all" * 100)
    with pytest.raises(HostileInputError):
        flat(f"oci-archive:{tmp_path}/text", tmp_path)


def test_attestations_are_no_platforms_and_old_formats_are_named() -> None:
    sha = "sha256:" + "0" * 64
    entries = [
        {"mediaType": DOCKER_MANIFEST, "digest": sha, "size": 1, "platform": {"os": "linux", "architecture": "amd64"}},
        {
            "mediaType": DOCKER_MANIFEST,
            "digest": sha,
            "size": 1,
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        },
    ]
    assert len(parse_index({"manifests": entries})) == 1
    with pytest.raises(ManifestError, match="old format"):
        media_type_of({"schemaVersion": 1, "fsLayers": []})
    assert media_type_of({"manifests": []}, "text/plain") == OCI_INDEX


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda s: (
            st.lists(s)
            | st.dictionaries(
                st.sampled_from(
                    ["config", "layers", "manifests", "digest", "size", "platform", "rootfs", "diff_ids", "os"]
                ),
                s,
            )
        ),
    )
)
def test_no_document_makes_the_parsers_crash(document: Any) -> None:
    for parse in (parse_manifest, parse_index, media_type_of):
        try:
            parse(document if isinstance(document, dict) else {"layers": document, "manifests": document})
        except (HostileInputError, UserError) as error:
            assert str(error)  # noqa: PT017 - refusing is one of two allowed outcomes
    try:
        parse_config(json.dumps(document).encode())
    except HostileInputError as error:
        assert str(error)  # noqa: PT017 any of two outcomes is right


def test_platforms() -> None:
    assert Platform.parse("linux/arm/v6").accepts(Platform("linux", "arm", "v6"))
    assert not Platform.parse("linux/arm/v6").accepts(Platform("linux", "arm", "v7"))
    assert Platform.parse("linux/arm64/v8").accepts(Platform("linux", "arm64"))
    assert not Platform.parse("linux/amd64").accepts(Platform("windows", "amd64"))
    for text in ("linux", "linux/", "/amd64", "a/b/c/d", ""):
        with pytest.raises(UserError, match="is no platform"):
            Platform.parse(text)
    with pytest.raises(UserError, match="holds no image"):
        select([], [], "x")


DATA = b"a layer " * 100_000


@pytest.mark.parametrize(
    "stored",
    [
        gzip.compress(DATA),
        gzip.compress(DATA[:5]) + gzip.compress(DATA[5:]),
        gzip.compress(DATA) + bytes(1000),
        zstandard.ZstdCompressor().compress(DATA),
        b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstandard.ZstdCompressor().compress(DATA),
        zstandard.ZstdCompressor().compress(DATA[:9]) + zstandard.ZstdCompressor().compress(DATA[9:]),
        DATA,
    ],
    ids=["gzip", "two members", "padded gzip", "zstd", "zstd behind a skippable frame", "two frames", "plain"],
)
@pytest.mark.parametrize("size", [3, 1000, 1 << 20])
def test_decompression_in_pieces(stored: bytes, size: int) -> None:
    pieces = (stored[n : n + size] for n in range(0, len(stored), size))
    assert b"".join(compression.decompress(pieces, what="x")) == DATA


@pytest.mark.parametrize("data", [gzip.compress(DATA)[:-3], gzip.compress(DATA)[:500], gzip.compress(DATA) + b"junk"])
def test_damaged_gzip_is_refused(data: bytes) -> None:
    with pytest.raises(HostileInputError, match="x is"):
        list(compression.decompress([data], what="x"))


def test_a_bomb_comes_in_bounded_pieces() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    assert max(len(piece) for piece in compression.decompress([bomb], what="x")) <= 1 << 20
    bomb = zstandard.ZstdCompressor().compress(bytes(64 << 20))
    assert max(len(piece) for piece in compression.decompress([bomb], what="x")) <= 1 << 20
