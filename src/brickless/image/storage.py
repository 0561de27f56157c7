"""A device's storage partition as an ext4 image with its factory revision (device.md 2.2), without root, reproducible.

Hard links between `objects/` and `trails/` are kept: an image with two copies of every file would not be what the
runtime later makes. Owners, times, UUID and hash seed are fixed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from brickless.core import bootenv, canonical
from brickless.core.progress import Message, Progress, Status
from brickless.core.state import parse_state
from brickless.linux import process
from brickless.store import atomic
from brickless.store.objects import ObjectStore
from brickless.store.trails import Storage

# Seconds since 1970: 2024-01-01. Any fixed time does; zero looks like a fault to people and to e2fsck.
TIME_S = 1704067200
UUID = "b51c4e55-0000-4000-8000-000000000001"
HASH_SEED = "b51c4e55-0000-4000-8000-000000000002"
LABEL = "root"
MOUNT_POINT = "/storage"
MKFS_TIMEOUT_S = 300.0
MIB = 1 << 20
# Without checksums of metadata a superblock or a commit record of the journal that a power cut tore inside of its 4096
# bytes is still usable: what matters is in its first sector. With them the kernel refuses to mount (ADR 0110).
# The others are what U-Boot 2023 and GRUB 2.06 cannot read, whatever this machine's mke2fs takes as the default.
FEATURES = "^metadata_csum,^metadata_csum_seed,^orphan_file"


def build(
    out: Path,
    *,
    fill: Callable[[ObjectStore], bytes],
    size_mb: int,
    config: Mapping[str, str] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Write the image `out`.

    `fill` adds the objects of the factory revision and returns its state; `config` becomes `config/pantahub.config`;
    `files` are more files of the partition (path -> content).
    Raises `StateError` for a bad state, `process.ProcessError` when it does not fit into `size_mb`.
    """
    process.require("mke2fs", "e2fsprogs")
    with tempfile.TemporaryDirectory(prefix="brickless-storage-", dir=out.parent) as scratch:
        tree = Path(scratch) / "tree"
        populate(tree, fill, config or {})
        for path, content in sorted((files or {}).items()):
            atomic.write_file(str(tree / path), content)
        write_image(tree, out, size_mb)


def populate(tree: Path, fill: Callable[[ObjectStore], bytes], config: Mapping[str, str]) -> None:
    """Make the storage layout with revision 0, committed, in the folder `tree`."""
    tree.mkdir(parents=True)
    storage = Storage(str(tree))
    storage.prepare()
    state = parse_state(fill(storage.objects), require_bsp=True)
    storage.install("0", state)
    # As the device sees it, not as we staged it.
    atomic.write_file(str(tree / "trails/0/.pvr/config"), canonical.dumps({"ObjectsDir": f"{MOUNT_POINT}/objects"}))
    storage.write_progress("0", Progress.of(Status.DONE, Message.FACTORY).to_json())
    storage.mark_done("0")
    storage.set_current("0")
    environment = bootenv.render({"pv_rev": "0", "pv_try": ""})
    atomic.write_file(str(tree / "boot/uboot.txt"), environment.ljust(bootenv.SIZE_BYTES, b"\0"))
    text = "".join(f"{key}={config[key]}\n" for key in sorted(config))
    atomic.write_file(str(tree / "config/pantahub.config"), text.encode(), mode=0o600)


def write_image(tree: Path, out: Path, size_mb: int) -> None:
    """Write the folder `tree` as an ext4 image. Raises `process.ProcessError` when it does not fit."""
    _make_file_system(tree, out, size_mb)
    _normalise(tree, out)


def _make_file_system(tree: Path, out: Path, size_mb: int) -> None:
    out.unlink(missing_ok=True)
    with out.open("wb") as stream:
        stream.truncate(size_mb * MIB)
    extended = f"hash_seed={HASH_SEED},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "1", "-L", LABEL, "-U", UUID, "-O", FEATURES]
    process.run(
        [*argv, "-E", extended, "-d", str(tree), str(out)],
        purpose=f"making a storage image of {size_mb} MB",
        timeout_s=MKFS_TIMEOUT_S,
        env=_clock(),
    )


def _clock() -> dict[str, str]:
    return {"E2FSPROGS_FAKE_TIME": str(TIME_S)}


def _normalise(tree: Path, out: Path) -> None:
    """Owners and times of every inode: mke2fs copies those of the files that we staged."""
    commands: list[str] = []
    seen: set[int] = set()
    for folder, folders, files in os.walk(tree):
        for name in [".", *sorted(folders), *sorted(files)]:
            path = os.path.normpath(os.path.join(folder, name))
            inode = os.lstat(path).st_ino
            if inode in seen:
                continue
            seen.add(inode)
            inside = "/" + os.path.relpath(path, tree) if path != str(tree) else "/"
            commands += [f'sif "{inside}" {field} @{TIME_S:#x}' for field in ("atime", "ctime", "mtime")]
            commands += [f'sif "{inside}" {field} 0' for field in ("uid", "gid")]
    with tempfile.NamedTemporaryFile("w", suffix=".debugfs") as script:
        script.write("".join(f"{command}\n" for command in commands))
        script.flush()
        done = process.run(
            ["debugfs", "-w", "-f", script.name, str(out)],
            purpose="fixing the owners and times of a storage image",
            timeout_s=MKFS_TIMEOUT_S,
            env=_clock(),
        )
    faults = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if not line.startswith("debugfs ")]
    if faults:
        raise process.ProcessError(f"debugfs could not fix an inode of {out}: {faults[0]} ({len(faults)} in all)")
