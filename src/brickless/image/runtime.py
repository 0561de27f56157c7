"""The runtime's initramfs as an artefact: made once for each set of sources, packages, settings and processor."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import brickless
from brickless.image import cache, closure, initramfs
from brickless.image.arch import AMD64, Arch
from brickless.image.compress import Compression
from brickless.image.initramfs import Addition


@lru_cache(maxsize=1)
def _stack() -> str:
    """A hash over the device stack and what packs it: a change of our sources makes new archives."""
    package = Path(brickless.__file__).parent
    paths = [one.path for one in closure.device_modules(package)]
    packers = sorted(Path(initramfs.__file__).parent.rglob("*.py"))
    return cache.digest([*paths, *packers], package)


def archive(
    folder: Path,
    *,
    arch: Arch = AMD64,
    config: Mapping[str, str],
    files: Mapping[str, Addition],
    compression: Compression = Compression.ZSTD,
    own: bool = False,
) -> Path:
    """The archive below the cache `folder`; `config`, `files` and `own` as for `initramfs.build`."""
    added = {path: (str(one.content), one.mode) for path, one in files.items()}
    packages = initramfs.parts(folder, arch, own=own).made_of
    key = cache.key(_stack(), arch.debian, compression, dict(config), added, packages)
    return cache.artefact(
        folder / "artefacts",
        f"initramfs-{key}.cpio.{compression}",
        lambda out: initramfs.build(
            out, cache=folder, config=config, files=files, compression=compression, arch=arch, own=own
        ),
    )
