"""An image that can be read, wherever it lies, and the two places that every source is made of: blobs and manifests."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, BinaryIO, Protocol, cast

from brickless.oci.compression import decompress
from brickless.oci.limits import DEFAULT, Limits
from brickless.oci.manifest import (
    INDEXES,
    Descriptor,
    ManifestError,
    Platform,
    check_bytes,
    digest_of,
    load,
    media_type_of,
    parse_config,
    parse_index,
    parse_manifest,
    select,
)

MAX_NESTED_INDEXES = 4
# What registries serve to whoever does not ask for a platform.
DEFAULT_PLATFORM = Platform("linux", "amd64")


class Blobs(Protocol):
    """Where the bytes of descriptors lie."""

    def chunks(self, descriptor: Descriptor, what: str) -> Iterator[bytes]:
        """The bytes; checking their size and hash is the caller's (`verified`)."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an image: where its bytes are, and what they unpack to."""

    stored: Callable[[], Iterator[bytes]]
    descriptor: Descriptor | None
    diff_id: str | None
    what: str

    def chunks(self) -> Iterator[bytes]:
        """The uncompressed layer. Raises `HostileInputError`, at the end at the latest, if it was announced otherwise.

        That concerns the layer as it is stored; `oci.flatten` checks what it unpacks to (`diff_id`).
        """
        stored = self.stored()
        if self.descriptor is not None:
            stored = verified(stored, self.descriptor, self.what)
        yield from decompress(stored, what=self.what)
        # A decoder may stop before the end; what follows belongs to the blob and counts for its hash.
        for _ in stored:
            continue

    def open(self) -> BinaryIO:
        """The uncompressed layer as a readable stream."""
        return cast(BinaryIO, io.BufferedReader(ChunkReader(self.chunks())))


@dataclass(frozen=True, slots=True)
class Image:
    """An image: `digest` is its manifest's (of the platform that was chosen), `config` the member of that name."""

    name: str
    digest: str
    platform: Platform
    config: dict[str, object]
    layers: list[Layer] = field(repr=False)
    # From an index: `platform` was chosen. And whether nobody had asked for it.
    from_index: bool = False
    defaulted: bool = False


def verified(chunks: Iterable[bytes], descriptor: Descriptor, what: str) -> Iterator[bytes]:
    """Pass the bytes on; raises `ManifestError` at the end unless they had the announced size and hash."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        size += len(chunk)
        if size > descriptor.size:
            raise ManifestError(f"{what} has more than the {descriptor.size} bytes that were announced")
        digest.update(chunk)
        yield chunk
    if size != descriptor.size:
        raise ManifestError(f"{what} has {size} bytes where {descriptor.size} were announced")
    if f"sha256:{digest.hexdigest()}" != descriptor.digest:
        raise ManifestError(
            f"{what} has the digest sha256:{digest.hexdigest()} where {descriptor.digest} was announced"
        )


def small_blob(blobs: Blobs, descriptor: Descriptor, what: str, limit_bytes: int) -> bytes:
    """A manifest or a configuration, whole and checked. Raises `ManifestError`."""
    if descriptor.size > limit_bytes:
        raise ManifestError(f"{what} has {descriptor.size} bytes; at most {limit_bytes} are read")
    data = b"".join(verified(blobs.chunks(descriptor, what), descriptor, what))
    return check_bytes(data, descriptor.digest, descriptor.size, what)


def resolve(
    name: str,
    data: bytes,
    announced: str,
    blobs: Blobs,
    *,
    platforms: Sequence[Platform] = (),
    limits: Limits = DEFAULT,
) -> Image:
    """From the bytes of a manifest or index to the image for the first fulfilled wish.

    Raises `UserError` when no platform fits, `HostileInputError` for everything that breaks its format.
    """
    chosen: Descriptor | None = None
    defaulted = False
    for _ in range(MAX_NESTED_INDEXES):
        document = load(data, f"the manifest of {name}", limits)
        media_type = media_type_of(document, announced)
        if media_type not in INDEXES:
            image = _image(name, data, document, blobs, limits)
            _check_platform(image, platforms)
            return replace(image, from_index=chosen is not None, defaulted=defaulted)
        candidates = parse_index(document)
        defaulted = not platforms and len(candidates) > 1
        chosen = select(candidates, platforms or (DEFAULT_PLATFORM,) * defaulted, name)
        data = small_blob(blobs, chosen, f"the manifest {chosen.digest} of {name}", limits.manifest_bytes)
        announced = chosen.media_type
    raise ManifestError(f"{name} is an index of indexes, more than {MAX_NESTED_INDEXES} deep")


def _check_platform(image: Image, wanted: Sequence[Platform]) -> None:
    there = image.platform
    if wanted and there.architecture and not any(wish.accepts(there) for wish in wanted):
        select([Descriptor("", image.digest, 0, there)], wanted, image.name)


def _image(name: str, data: bytes, document: dict[str, object], blobs: Blobs, limits: Limits) -> Image:
    manifest = parse_manifest(document, limits)
    raw = small_blob(blobs, manifest.config, f"the configuration of {name}", limits.config_bytes)
    config = parse_config(raw, limits)
    if len(config.diff_ids) != len(manifest.layers):
        listed = len(config.diff_ids)
        raise ManifestError(f"{name} has {len(manifest.layers)} layers, but its configuration lists {listed}")
    layers = []
    for number, (descriptor, diff_id) in enumerate(zip(manifest.layers, config.diff_ids, strict=True), 1):
        what = f"layer {number} of {name}"
        layers.append(Layer(partial(blobs.chunks, descriptor, what), descriptor, diff_id, what))
    return Image(name, digest_of(data), config.platform, config.config, layers)


class ChunkReader(io.RawIOBase):
    """An iterator of bytes as a readable binary stream."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._pending = memoryview(b"")

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what is there, at most one chunk; 0 at the end."""
        while not self._pending:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._pending = memoryview(chunk)
        count = min(len(buffer), len(self._pending))
        buffer[:count] = self._pending[:count]
        self._pending = self._pending[count:]
        return count
