"""Images on disk: OCI layout folders (read and write), and the archives of `docker save`, skopeo and podman.

Source: OCI image specification 1.1 "image layout"; the `docker save` format (`manifest.json`).
"""

from __future__ import annotations

import json
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from brickless.core.errors import UserError
from brickless.oci import tar
from brickless.oci.image import Image, Layer, resolve
from brickless.oci.limits import DEFAULT, Limits
from brickless.oci.manifest import (
    INDEXES,
    OCI_INDEX,
    Descriptor,
    ManifestError,
    Platform,
    digest_of,
    load,
    parse_config,
    parse_index,
)
from brickless.store import atomic

CHUNK_BYTES = 1 << 20
REF_NAME = "org.opencontainers.image.ref.name"
DOCKER_NAME = "io.containerd.image.name"
MAX_LAYOUT_FILE_BYTES = 4096


class Folder:
    """The files of an OCI layout as a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str, limit_bytes: int) -> bytes | None:
        """A small file, None if it is not there."""
        try:
            handle = _regular(self.root / path)
        except FileNotFoundError:
            return None
        with handle:
            data = handle.read(limit_bytes + 1)
        if len(data) > limit_bytes:
            raise ManifestError(f"{self.root / path} has more than {limit_bytes} bytes")
        return data

    def file(self, path: str) -> Iterator[bytes]:
        """A file in pieces."""
        with _regular(self.root / path) as handle:
            while chunk := handle.read(CHUNK_BYTES):
                yield chunk


class Archive:
    """The files of a seekable tar archive, read where they lie; hard and symbolic links inside it are followed."""

    def __init__(self, handle: IO[bytes], what: str, limits: Limits) -> None:
        self.handle = handle
        self.what = what
        self.entries: dict[str, tar.Entry] = {}
        for entry in tar.read(handle, what=what, limits=limits):
            self.entries[_normal(os.fsdecode(entry.name))] = entry

    def read(self, path: str, limit_bytes: int) -> bytes | None:
        """A small file, None if it is not there."""
        entry = self.find(path)
        if entry is None:
            return None
        if entry.size > limit_bytes:
            raise ManifestError(f"{path} of {self.what} has more than {limit_bytes} bytes")
        return b"".join(self.file(path))

    def find(self, path: str) -> tar.Entry | None:
        """The regular file that a name leads to."""
        path = _normal(path)
        for _ in range(8):
            entry = self.entries.get(path)
            if entry is None or entry.type == tar.FILE:
                return entry
            if entry.type == tar.LINK:
                path = _normal(os.fsdecode(entry.link))
            elif entry.type == tar.SYMLINK:
                path = _normal(posixpath.join(posixpath.dirname(path), os.fsdecode(entry.link)))
            else:
                return None
        return None

    def file(self, path: str) -> Iterator[bytes]:
        """A file in pieces. Raises `ManifestError` if it is not there."""
        entry = self.find(path)
        if entry is None:
            raise ManifestError(f"{self.what} lacks the file {path}")
        for _, size, offset in entry.segments:
            end = offset + size
            place = offset
            while place < end:
                chunk = os.pread(self.handle.fileno(), min(CHUNK_BYTES, end - place), place)
                if not chunk:
                    raise ManifestError(f"{self.what} became shorter while it was read")
                place += len(chunk)
                yield chunk


class LayoutBlobs:
    """`oci.image.Blobs` over the files of a layout."""

    def __init__(self, files: Folder | Archive, name: str) -> None:
        self.files = files
        self.name = name

    def chunks(self, descriptor: Descriptor, what: str) -> Iterator[bytes]:
        """The blob's bytes, unchecked. Raises `ManifestError` if the layout lacks it."""
        try:
            yield from self.files.file(f"blobs/sha256/{descriptor.sha}")
        except FileNotFoundError:
            raise ManifestError(f"{self.name} lacks the blob {descriptor.digest} ({what})") from None


def open_layout(
    files: Folder | Archive,
    name: str,
    *,
    tag: str = "",
    platforms: Sequence[Platform] = (),
    limits: Limits = DEFAULT,
) -> Image:
    """The image of an OCI layout: the one with this tag (`org.opencontainers.image.ref.name`), or the only one.

    Raises `UserError` when the tag or the platform is not there, `HostileInputError` for a broken layout.
    """
    marker = files.read("oci-layout", MAX_LAYOUT_FILE_BYTES)
    if marker is None or not str(load(marker, "oci-layout").get("imageLayoutVersion", "")).startswith("1."):
        raise ManifestError(f"{name} is no OCI layout of version 1 (its file oci-layout is missing or says otherwise)")
    data = files.read("index.json", limits.manifest_bytes)
    if data is None:
        raise ManifestError(f"{name} lacks index.json")
    blobs = LayoutBlobs(files, name)
    if not tag:
        return resolve(name, data, OCI_INDEX, blobs, platforms=platforms, limits=limits)
    tagged = [d for d in parse_index(load(data, "index.json", limits)) if _is_tagged(d, tag)]
    if not tagged:
        raise UserError("image-missing", f"{name} holds no image with the tag {tag!r}")
    if len(tagged) > 1 and any(d.media_type in INDEXES for d in tagged):
        raise ManifestError(f"{name} has the tag {tag!r} several times")
    narrowed = json.dumps({"schemaVersion": 2, "manifests": [_as_json(d) for d in tagged]}).encode()
    return resolve(f"{name}:{tag}", narrowed, OCI_INDEX, blobs, platforms=platforms, limits=limits)


def _is_tagged(descriptor: Descriptor, tag: str) -> bool:
    annotations = descriptor.annotations or {}
    return tag in (annotations.get(REF_NAME), annotations.get(DOCKER_NAME))


def _as_json(descriptor: Descriptor) -> dict[str, object]:
    value: dict[str, object] = {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }
    if descriptor.platform is not None:
        platform = descriptor.platform
        value["platform"] = {"os": platform.os, "architecture": platform.architecture}
        if platform.variant:
            value["platform"] = {**value["platform"], "variant": platform.variant}  # type: ignore[dict-item]  # both are texts: JSON of ours
    if descriptor.annotations:
        value["annotations"] = dict(descriptor.annotations)
    return value


def open_docker_archive(
    archive: Archive, name: str, *, tag: str = "", platforms: Sequence[Platform] = (), limits: Limits = DEFAULT
) -> Image:
    """The image of a `docker save` archive; its digest is the image id, since such archives have no manifest digest."""
    data = archive.read("manifest.json", limits.manifest_bytes)
    listed = load(b'{"images":%s}' % data, "manifest.json", limits)["images"] if data is not None else None
    if not isinstance(listed, list) or not listed:
        raise ManifestError(f"{name} is no archive of `docker save`: it lacks manifest.json")
    images = [entry for entry in listed if isinstance(entry, dict) and (not tag or tag in _tags(entry))]
    if len(images) != 1:
        names = ", ".join(sorted(t for entry in listed if isinstance(entry, dict) for t in _tags(entry)))
        raise UserError("image-missing", f"{name} holds {len(images)} images for {tag or 'no tag'}", context=names)
    config_path, layer_paths = images[0].get("Config"), images[0].get("Layers")
    if not isinstance(config_path, str) or not isinstance(layer_paths, list) or len(layer_paths) > limits.layers:
        raise ManifestError(f"the manifest.json of {name} names no configuration or layers")
    raw = archive.read(config_path, limits.config_bytes)
    if raw is None:
        raise ManifestError(f"{name} lacks its configuration {config_path}")
    config = parse_config(raw, limits)
    if len(config.diff_ids) != len(layer_paths):
        raise ManifestError(f"{name} has {len(layer_paths)} layers, its configuration lists {len(config.diff_ids)}")
    layers = [
        Layer(partial(archive.file, str(path)), None, diff_id, f"layer {number} of {name}")
        for number, (path, diff_id) in enumerate(zip(layer_paths, config.diff_ids, strict=True), 1)
    ]
    image = Image(name, digest_of(raw), config.platform, config.config, layers)
    if platforms and not any(wish.accepts(config.platform) for wish in platforms):
        asked = ", ".join(str(wish) for wish in platforms)
        raise UserError("platform-missing", f"{name} has no image for {asked}, only for {config.platform}")
    return image


def _tags(entry: dict[str, object]) -> list[str]:
    tags = entry.get("RepoTags")
    return [str(tag) for tag in tags] if isinstance(tags, list) else []


def _normal(path: str) -> str:
    return posixpath.normpath("/" + path)[1:]


def _regular(path: Path) -> IO[bytes]:
    """Open a regular file; a pipe or device in its place would make us wait or worse."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ManifestError(f"{path} is no regular file")
    return os.fdopen(descriptor, "rb")


class LayoutWriter:
    """Writes an OCI layout folder: blobs first, `finish` makes them an image."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs/sha256").mkdir(parents=True, exist_ok=True)

    def add(self, data: bytes | Iterable[bytes], media_type: str) -> Descriptor:
        """Store a blob; its descriptor."""
        chunks = [data] if isinstance(data, bytes) else data
        import hashlib

        digest, size = hashlib.sha256(), 0
        temporary = atomic.temporary_path(str(self.root / "blobs/sha256/blob"))
        with open(temporary, "wb") as handle:
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                handle.write(chunk)
        atomic.publish(temporary, str(self.root / "blobs/sha256" / digest.hexdigest()))
        return Descriptor(media_type, f"sha256:{digest.hexdigest()}", size)

    def finish(self, manifests: Sequence[tuple[Descriptor, str]]) -> None:
        """Write `oci-layout` and an index of these manifests with their tags ('' for none)."""
        listed = []
        for descriptor, tag in manifests:
            value = _as_json(descriptor)
            if tag:
                value["annotations"] = {REF_NAME: tag}
            listed.append(value)
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
        atomic.write_file(str(self.root / "index.json"), json.dumps(index, indent=1).encode())
        atomic.write_file(str(self.root / "oci-layout"), b'{"imageLayoutVersion":"1.0.0"}')
