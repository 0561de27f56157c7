"""A storage partition laid out by hand, word for word as device.md section 2 has it, without any code of the runtime.

What another runtime's image builder leaves: a factory revision that never ran, U-Boot's variables with `pv_rev` alone,
the hub's address. No markers, no `current`, no folders that a runtime makes by itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from brickless.core import canonical
from brickless.store.objects import ObjectStore, is_sha

VARIABLES = b"pv_rev=0\0\0"


def lay_out(root: Path, fill: Callable[[ObjectStore], bytes], config: Mapping[str, str]) -> None:
    """Make the partition in the folder `root`; `fill` adds the objects and returns the state."""
    objects, trail = root / "objects", root / "trails/0"
    objects.mkdir(parents=True)
    raw = fill(ObjectStore(str(objects)))
    state = json.loads(raw)
    for path, value in state.items():
        if path == "#spec":
            continue
        target = trail / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, str) and is_sha(value):
            os.link(objects / value, target)
        else:
            target.write_bytes(canonical.dumps(canonical.loads(json.dumps(value).encode())))
    bsp = state.get("bsp/run.json", {})
    links = {"pv-kernel.img": bsp.get("linux"), "pv-initrd.img": bsp.get("initrd"), "pv-fdt.dtb": bsp.get("fdt")}
    links |= {f"pv-initrd.img.{number}": addon for number, addon in enumerate(bsp.get("addons", ()))}
    (trail / ".pv").mkdir()
    for name, source in links.items():
        if source:
            os.link(trail / "bsp" / source, trail / ".pv" / name)
    _write(trail / ".pvr/json", raw)
    _write(trail / ".pvr/config", b'{"ObjectsDir":"/storage/objects"}')
    _write(root / "boot/uboot.txt", VARIABLES)
    _write(root / "config/pantahub.config", "".join(f"{key}={config[key]}\n" for key in sorted(config)).encode())


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
