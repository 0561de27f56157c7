"""dm-verity: a file whose every block is checked against a tree of hashes when it is read (device.md 1.18).

The hash file is one of `veritysetup format`: a superblock of 512 bytes (its format is documented with cryptsetup), then
the tree. The root hash comes from the signed state; nothing in the hash file is trusted beyond what it makes fit.
"""

from __future__ import annotations

import os
import struct
from contextlib import ExitStack
from typing import NamedTuple

from brickless.linux import dm, loop

MODULES = (*dm.MODULES, "sha256_generic", "dm_verity")
# signature, version, hash_type, uuid, algorithm, data_block_size, hash_block_size, data_blocks, salt_size, salt
SUPERBLOCK = struct.Struct("<8sII16s32sIIQH6x256s168x")
MAGIC = b"verity\0\0"
ALGORITHMS = frozenset({"sha256", "sha512"})
PREFIX = "pv--dmverity--"


class Superblock(NamedTuple):
    """What the hash file says about its tree."""

    hash_type: int
    algorithm: str
    data_block_bytes: int
    hash_block_bytes: int
    data_blocks: int
    salt: str


def parse(data: bytes) -> Superblock:
    """Read a superblock. Raises `ValueError` for one that is none, or asks for what we do not map."""
    if len(data) < SUPERBLOCK.size:
        raise ValueError("the hash file is shorter than a verity superblock")
    fields = SUPERBLOCK.unpack(data[: SUPERBLOCK.size])
    magic, version, hash_type, _, raw, data_block, hash_block, blocks, salt_size, salt = fields
    algorithm = raw.rstrip(b"\0").decode("ascii", "replace")
    if magic != MAGIC or version != 1 or hash_type not in (0, 1):
        raise ValueError("the hash file has no verity superblock of version 1")
    if algorithm not in ALGORITHMS:
        raise ValueError(f"the hash file names the algorithm {algorithm!r}: sha256 and sha512 are taken")
    for size in (data_block, hash_block):
        if size not in (512, 1024, 2048, 4096):
            raise ValueError(f"the hash file has blocks of {size} bytes")
    if salt_size > len(salt):
        raise ValueError(f"the hash file has a salt of {salt_size} bytes")
    return Superblock(hash_type, algorithm, data_block, hash_block, blocks, salt[:salt_size].hex())


def parameters(block: Superblock, data_device: str, hash_device: str, root_hash: str) -> str:
    """The table of the target `verity` (the kernel's admin-guide/device-mapper/verity.rst). The tree is in block 1."""
    words = (
        *(block.hash_type, data_device, hash_device, block.data_block_bytes, block.hash_block_bytes),
        *(block.data_blocks, 1, block.algorithm, root_hash, block.salt or "-"),
    )
    return " ".join(str(word) for word in words)


def name_of(container: str, file: str) -> str:
    """The name of the mapped device (device.md 1.18)."""
    return f"{PREFIX}{container}-{os.path.splitext(os.path.basename(file))[0]}"


def open_device(name: str, data: str, hashes: str, root_hash: str, *, index_base: int = -1) -> str:
    """Map the file `data` and return the node to mount from. Raises `OSError`, `ValueError`.

    Call `release` after mounting: the device then lives as long as the mount, and its loop devices as long as it.
    """
    with open(hashes, "rb") as stream:
        block = parse(stream.read(SUPERBLOCK.size))
    length = block.data_blocks * block.data_block_bytes
    if os.stat(data).st_size < length:
        raise ValueError(f"{data} is shorter than the {length} bytes that its hashes cover")
    if not root_hash or set(root_hash) - set("0123456789abcdef"):
        raise ValueError("the root hash is no lower-case hex")
    with ExitStack() as stack:
        devices = [stack.enter_context(loop.attach(path, index_base=index_base)) for path in (data, hashes)]
        text = parameters(block, devices[0], devices[1], root_hash)
        return dm.create(name, "verity", length // dm.SECTOR_BYTES, text, read_only=True)


def release(name: str) -> None:
    """Have the device go with its last user."""
    dm.remove(name, deferred=True)
