"""The device of the recordings: a page from its configuration, and a file of its user's on a permanent volume."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from brickless.core.canonical import JsonValue
from brickless.image import factory, storage
from brickless.image.bsp import Bsp
from brickless.main.artefacts import GROUP_TIMEOUT_S, STABLE_S, Artefacts
from brickless.store.objects import ObjectStore
from brickless.testkit import busybox

PAGE = "_config/web/www/index.html"
DATA = "disks/perm/web/data/canary"
DATA_TEXT = "what a user keeps\n"
# The page is served from the moment on that the user's file is on the disk.
_PROGRAM = f"""#!/bin/sh
set -eu
if ! [ -s /data/canary ]; then
    echo "{DATA_TEXT.strip()}" >/data/canary.new
    busybox sync
    busybox mv /data/canary.new /data/canary
    busybox sync
fi
exec /bin/httpd -f -p 80 -h /www
""".encode()


def page(number: int) -> str:
    """What the device serves in one of its versions."""
    return f"page {number}\n"


class Scene(Artefacts):
    """Disks whose factory revision has the container `web`."""

    def disk(self, out: Path, board: Bsp, config: Mapping[str, str], *, size_mb: int = 128) -> None:
        """See `Artefacts.disk`."""

        def fill(objects: ObjectStore) -> bytes:
            groups = factory.stock_groups(timeout_s=GROUP_TIMEOUT_S, stable_s=STABLE_S)
            extra = self._web(objects, out.with_name("web.squashfs"))
            return factory.revision(objects, board, self.folder, groups=groups, extra=extra)

        storage.build(out, fill=fill, size_mb=size_mb, config=config)

    def _web(self, objects: ObjectStore, squashfs: Path) -> dict[str, JsonValue]:
        busybox.rootfs(squashfs, self.folder, {"bin/keep": _PROGRAM})
        lines = [
            "lxc.mount.entry = /volumes/web/data data none bind,create=dir 0 0",
            # So that whoever fetches the page also sees which metadata has arrived.
            "lxc.mount.entry = /run/pantavisor/pv www/pv none bind,ro,create=dir 0 0",
        ]
        entries = busybox.container(objects, "web", "/bin/keep", squashfs, lines=lines)
        run = entries["web/run.json"]
        if not isinstance(run, dict):
            raise TypeError("a container's manifest is a JSON object")
        volumes: JsonValue = {"lxc-overlay": {"persistence": "boot"}, "data": {"persistence": "permanent"}}
        entries["web/run.json"] = {**run, "storage": volumes}
        entries[PAGE] = objects.add([page(0).encode()])
        return entries
