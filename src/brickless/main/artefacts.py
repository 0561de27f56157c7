"""What emulated devices boot: kernel, modules, initramfs variants, disks; made once and kept in the cache."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from brickless.image import bsp, cpio, factory, runtime, storage
from brickless.image.compress import Compression, write
from brickless.image.initramfs import Addition

BUILD_ID = "etc/brickless/build-id"
CERTIFICATE = "etc/pantavisor/certs/hub.pem"
DISK_MB = 512
# Short waits, so that people see the whole story; a product's are longer (see docs/reference/configuration.md).
RUNTIME_CONFIG = {"PV_UPDATER_COMMIT_DELAY": "4", "PV_UPDATER_GOALS_TIMEOUT": "60"}
GROUP_TIMEOUT_S, STABLE_S = 15, 5
# Panics as a broken runtime does: the kernel finds its PID 1 gone.
PANIC = b"""#!/usr/bin/python3.11 -ISB
print("this runtime is broken on purpose", flush=True)
raise SystemExit(1)
"""


class Variant(StrEnum):
    """The runtimes of the story."""

    FACTORY = "factory"
    UPDATED = "updated"
    PANICS = "panics"


class Artefacts:
    """Everything below one cache folder; a second use finds it made."""

    def __init__(self, folder: Path, *, config: Mapping[str, str] | None = None, own: bool = False) -> None:
        """`config` is added to the runtime's own configuration; `own` asks for the interpreter that we build."""
        self.folder = folder
        self.own = own
        self.config = {**RUNTIME_CONFIG, **(config or {})}

    @cached_property
    def kernel(self) -> bsp.Kernel:
        """Debian's cloud kernel."""
        return bsp.kernel(self.folder)

    @cached_property
    def modules(self) -> Path:
        """The archive of its modules."""
        return bsp.modules_archive(self.folder, self.kernel)

    def initramfs(self, variant: Variant, compression: Compression = Compression.ZSTD) -> Path:
        """The runtime's archive."""
        files = {BUILD_ID: Addition(f"{variant}\n".encode())}
        if variant is Variant.PANICS:
            files["usr/bin/pantavisor"] = Addition(PANIC, 0o755)
        return runtime.archive(self.folder, config=self.config, files=files, compression=compression, own=self.own)

    def board(self, variant: Variant, site: Path) -> bsp.Bsp:
        """A board support package; `site` is the archive with what belongs to this installation (see `write_site`)."""
        addons = (("modules.cpio.zst", self.modules), ("site.cpio", site))
        return bsp.Bsp(self.kernel.image, self.initramfs(variant), addons)

    def disk(self, out: Path, board: bsp.Bsp, config: Mapping[str, str], *, size_mb: int = DISK_MB) -> None:
        """A device's disk with the factory revision; `config` says where the hub is."""
        groups = factory.stock_groups(timeout_s=GROUP_TIMEOUT_S, stable_s=STABLE_S)
        storage.build(
            out,
            fill=lambda objects: factory.revision(objects, board, self.folder, groups=groups),
            size_mb=size_mb,
            config=config,
        )


def write_site(out: Path, certificate: bytes) -> None:
    """The archive with the certificate that devices of this installation trust."""
    archive = cpio.Archive()
    # Its folders are those of the initramfs; the kernel unpacks both into one tree.
    archive.file(CERTIFICATE, certificate)
    write(archive.chunks(), out, Compression.NONE)
