"""The processors that images are made for: what Debian calls them, and where their libraries lie."""

from __future__ import annotations

from typing import NamedTuple


class Arch(NamedTuple):
    """One processor: Debian's name, the folder of its libraries, and where its dynamic loader must be."""

    debian: str
    triplet: str
    loader: str

    @property
    def libraries(self) -> str:
        """The folder of the libraries, as a path inside an archive."""
        return f"usr/lib/{self.triplet}"

    @property
    def library_folders(self) -> tuple[str, ...]:
        """Where Debian's dynamic loader looks without a cache file, in its order."""
        return (f"lib/{self.triplet}", f"usr/lib/{self.triplet}", "lib", "usr/lib", "lib64")


AMD64 = Arch("amd64", "x86_64-linux-gnu", "/lib64/ld-linux-x86-64.so.2")
ARM64 = Arch("arm64", "aarch64-linux-gnu", "/lib/ld-linux-aarch64.so.1")
