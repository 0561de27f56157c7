"""Manifests, indexes and configurations: checked values out of a registry's or an archive's bytes. No I/O.

Source: OCI image specification 1.1; Docker image manifest version 2, schema 2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from brickless.core import canonical
from brickless.core.errors import HostileInputError, JsonError, UserError
from brickless.oci.limits import DEFAULT, Limits
from brickless.oci.reference import DIGEST

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEXES = (OCI_INDEX, DOCKER_LIST)
CONFIGS = (OCI_CONFIG, DOCKER_CONFIG)
FOREIGN_LAYER = ("nondistributable", "foreign")
# What a device's machine is called here, if a manifest leaves the variant away (containerd's normalisation).
DEFAULT_VARIANTS = {"arm": "v7", "arm64": "v8"}


class ManifestError(HostileInputError):
    """A manifest, index or configuration breaks a rule of its format."""


@dataclass(frozen=True, slots=True)
class Platform:
    """`os/architecture[/variant]`."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read `linux/arm/v7`. Raises `UserError`."""
        parts = text.split("/")
        if not 2 <= len(parts) <= 3 or not all(parts):
            hint = "A platform looks like linux/amd64 or linux/arm/v7."
            raise UserError("platform", f"{text!r} is no platform", hint=hint)
        return cls(*parts)

    def __str__(self) -> str:
        """The usual spelling."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def accepts(self, other: Platform) -> bool:
        """Whether an image for `other` is what this wish asks for; a wish without a variant takes any of them."""
        if (self.os, self.architecture) != (other.os, other.architecture):
            return False
        return not self.variant or self.variant == (other.variant or DEFAULT_VARIANTS.get(other.architecture, ""))


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A pointer to bytes: what they are, how many, and their hash."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] | None = None

    @property
    def sha(self) -> str:
        """The hash without its algorithm's name."""
        return self.digest.removeprefix("sha256:")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image: its configuration and its layers, lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """What an image says of itself. `config` is the member of that name (Entrypoint, Cmd, Env, …), as it came."""

    platform: Platform
    diff_ids: tuple[str, ...]
    config: dict[str, object]


def digest_of(data: bytes) -> str:
    """`sha256:` and the hash of these bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def check_bytes(data: bytes, digest: str, size: int | None, what: str) -> bytes:
    """The bytes, if they have this size and hash. Raises `ManifestError`."""
    if size is not None and len(data) != size:
        raise ManifestError(f"{what} has {len(data)} bytes where {size} were announced")
    if digest_of(data) != digest:
        raise ManifestError(f"{what} has the digest {digest_of(data)} where {digest} was announced")
    return data


def load(data: bytes, what: str, limits: Limits = DEFAULT) -> dict[str, object]:
    """A JSON object. Raises `ManifestError`."""
    try:
        value = canonical.loads(data, max_bytes=limits.config_bytes)
    except JsonError as error:
        raise ManifestError(f"{what} is no valid JSON: {error}") from error
    return _object(value, what)


def media_type_of(document: Mapping[str, object], announced: str = "") -> str:
    """What a document is: as it says, as it was announced, or as its members tell; the three may not disagree."""
    stated = document.get("mediaType", announced) or announced
    media_type = str(stated).partition(";")[0].strip()
    is_index, is_manifest = "manifests" in document, "layers" in document
    if is_index and is_manifest:
        # CVE-2021-41190: one document that is two, for two readers.
        raise ManifestError("a document is both an index and a manifest")
    if document.get("schemaVersion") == 1:
        raise ManifestError("the image is in Docker's old format (schema 1), which has no safe digests; push it again")
    if media_type not in MANIFESTS + INDEXES:
        media_type = OCI_INDEX if is_index else OCI_MANIFEST
    if (media_type in INDEXES) != is_index:
        raise ManifestError(f"a document that claims to be {media_type} is something else")
    return media_type


def parse_manifest(document: Mapping[str, object], limits: Limits = DEFAULT) -> Manifest:
    """An image manifest of either kind. Raises `ManifestError`."""
    config = parse_descriptor(document.get("config"), "the manifest's config")
    if config.size > limits.config_bytes:
        raise ManifestError(
            f"the image's configuration has {config.size} bytes; at most {limits.config_bytes} are read"
        )
    listed = document.get("layers")
    if not isinstance(listed, list) or len(listed) > limits.layers:
        raise ManifestError(f"the manifest has no list of at most {limits.layers} layers")
    layers = tuple(parse_descriptor(layer, f"layer {n}") for n, layer in enumerate(listed, 1))
    for number, layer in enumerate(layers, 1):
        if any(word in layer.media_type for word in FOREIGN_LAYER):
            raise ManifestError(
                f"layer {number} lies outside the registry ({layer.media_type}); such images are refused"
            )
        if layer.size > limits.layer_bytes:
            raise ManifestError(f"layer {number} has {layer.size} bytes; at most {limits.layer_bytes} are fetched")
    return Manifest(config, layers)


def parse_descriptor(value: object, what: str) -> Descriptor:
    """A descriptor with its hash and size. Raises `ManifestError`."""
    fields = _object(value, what)
    digest, size = fields.get("digest"), fields.get("size")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise ManifestError(f"{what} has no SHA-256 digest but {digest!r}")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ManifestError(f"{what} has no size but {size!r}")
    annotations = fields.get("annotations")
    kept = {str(k): str(v) for k, v in annotations.items()} if isinstance(annotations, dict) else None
    named = fields.get("platform")
    platform = _platform(named) if isinstance(named, dict) else None
    return Descriptor(str(fields.get("mediaType", "")), digest, size, platform, kept)


def parse_index(document: Mapping[str, object]) -> list[Descriptor]:
    """The images of an index; attestations and other companions that no machine runs are left out."""
    listed = document.get("manifests")
    if not isinstance(listed, list) or len(listed) > 1000:
        raise ManifestError("the index has no list of at most 1000 manifests")
    found = [parse_descriptor(entry, f"manifest {n} of the index") for n, entry in enumerate(listed, 1)]
    return [d for d in found if not (d.annotations or {}).get("vnd.docker.reference.type")]


def select(candidates: Sequence[Descriptor], wanted: Sequence[Platform], what: str) -> Descriptor:
    """The manifest for the first wish that any of them fulfils, in the order of the wishes.

    Without a wish there must be only one choice. Raises `UserError` that lists what there is: never another platform
    in silence.
    """
    for wish in wanted:
        for candidate in candidates:
            if candidate.platform is not None and wish.accepts(candidate.platform):
                return candidate
    if not candidates:
        raise UserError("image-empty", f"{what} holds no image")
    if len(candidates) == 1 and (not wanted or candidates[0].platform is None):
        return candidates[0]
    there = (
        ", ".join(sorted({str(c.platform) for c in candidates if c.platform is not None})) or "images of no platform"
    )
    if wanted:
        asked = ", ".join(str(wish) for wish in wanted)
        raise UserError("platform-missing", f"{what} has no image for {asked}, only for {there}")
    hint = "Choose one with --platform, or list them in _hostconfig/pvr/docker.json."
    raise UserError("platform-ambiguous", f"{what} holds images for several platforms: {there}", hint=hint)


def parse_config(data: bytes, limits: Limits = DEFAULT) -> Config:
    """An image's configuration. Raises `ManifestError`."""
    document = load(data, "the image's configuration", limits)
    rootfs = document.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or not all(isinstance(d, str) and DIGEST.fullmatch(d) for d in diff_ids):
        raise ManifestError("the image's configuration does not list its layers' digests (rootfs.diff_ids)")
    inner = document.get("config")
    if inner is not None and not isinstance(inner, dict):
        raise ManifestError("the image's configuration has a `config` that is no object")
    return Config(_platform(document), tuple(cast(list[str], diff_ids)), cast(dict[str, object], inner or {}))


def _platform(fields: Mapping[str, object]) -> Platform:
    return Platform(*(str(fields.get(key, "") or "") for key in ("os", "architecture", "variant")))


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ManifestError(f"{what} is no JSON object")
    return cast(dict[str, object], value)
