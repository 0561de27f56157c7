"""Bounds on what images may ask of us. Each has a reason; a caller with a larger machine may raise them."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """What one image may cost. Sizes in bytes."""

    # A manifest or index; registries themselves refuse more than 4 MiB.
    manifest_bytes: int = 4 * MIB
    # A config blob: environment, history and labels.
    config_bytes: int = 8 * MIB
    # Layers of one image; overlayfs itself stops at 500.
    layers: int = 500
    # One compressed layer.
    layer_bytes: int = 64 * GIB
    # All layers, uncompressed, as spooled to disk; and the tree, sparse files counted at full length.
    unpacked_bytes: int = 64 * GIB
    # Files, links and folders, in memory at about 500 bytes each.
    entries: int = 2_000_000
    # One extended tar header (Go's archive/tar has the same bound).
    extended_header_bytes: int = MIB
    # Fragments of one sparse file.
    sparse_fragments: int = 1 << 18


DEFAULT = Limits()
