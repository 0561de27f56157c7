"""dm-crypt: a block device whose content is encrypted with a key that we hold (admin-guide/device-mapper/dm-crypt.rst).

AES-XTS with 512 bits of key, sectors numbered in the plain way: what `cryptsetup --type plain` calls aes-xts-plain64.
There is no header: whoever has the file without the key cannot even tell that it is a disk.
"""

from __future__ import annotations

from brickless.linux import dm

CIPHER = "aes-xts-plain64"
KEY_BYTES = 64
MODULES = (*dm.MODULES, "aes_generic", "ecb", "xts", "dm_crypt")
PREFIX = "pv--crypt--"


def parameters(key: bytes, device: str) -> str:
    """The table of the target `crypt`. Raises `ValueError` for a key of another length."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"the key has {len(key)} bytes, not {KEY_BYTES}")
    return f"{CIPHER} {key.hex()} 0 {device} 0 1 allow_discards"


def open_device(name: str, device: str, key: bytes) -> str:
    """Map `device` and return the node of the plain text. Raises `OSError`. See `dm.remove` for its end."""
    return dm.create(
        f"{PREFIX}{name}", "crypt", dm.size_sectors(device), parameters(key, device), read_only=False, secret=True
    )


def release(name: str) -> None:
    """Have the device go with its last user."""
    dm.remove(f"{PREFIX}{name}", deferred=True)
