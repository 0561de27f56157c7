"""The device of the recordings: a page from its configuration, and a file of its user's on a permanent volume."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from brickless.core.canonical import JsonValue
from brickless.image import factory, storage
from brickless.image.arch import AMD64, Arch
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
# Says more than one piece of a log holds (`device.supervise.logs`): the log is rotated while this goes on.
CHATTER = "cgi-bin/chatter"
LOG = "chatter"
_CHATTER = f"""#!/bin/sh
busybox yes {"chatter-" * 100} | busybox head -n 110 | busybox logger -t {LOG}
echo
echo said
""".encode()


def page(number: int) -> str:
    """What the device serves in one of its versions."""
    return f"page {number}\n"


def factory_state(objects: ObjectStore, board: Bsp, folder: Path, scratch: Path, arch: Arch = AMD64) -> bytes:
    """The factory revision with the container `web`; `folder` is the cache, `scratch` gets its squashfs."""
    busybox.rootfs(scratch, folder, {"bin/keep": _PROGRAM, f"www/{CHATTER}": _CHATTER}, arch)
    lines = [
        "lxc.mount.entry = /volumes/web/data data none bind,create=dir 0 0",
        # So that whoever fetches the page also sees which metadata has arrived.
        "lxc.mount.entry = /run/pantavisor/pv www/pv none bind,ro,create=dir 0 0",
    ]
    entries = busybox.container(objects, "web", "/bin/keep", scratch, lines=lines)
    run = entries["web/run.json"]
    if not isinstance(run, dict):
        raise TypeError("a container's manifest is a JSON object")
    volumes: JsonValue = {"lxc-overlay": {"persistence": "boot"}, "data": {"persistence": "permanent"}}
    entries["web/run.json"] = {**run, "storage": volumes}
    entries[PAGE] = objects.add([page(0).encode()])
    groups = factory.stock_groups(timeout_s=GROUP_TIMEOUT_S, stable_s=STABLE_S)
    return factory.revision(objects, board, folder, groups=groups, extra=entries, arch=arch)


class Scene(Artefacts):
    """Disks whose factory revision has the container `web`."""

    def disk(self, out: Path, board: Bsp, config: Mapping[str, str], *, size_mb: int = 128) -> None:
        """See `Artefacts.disk`."""
        scratch = out.with_name("web.squashfs")
        storage.build(
            out,
            fill=lambda objects: factory_state(objects, board, self.folder, scratch),
            size_mb=size_mb,
            config=config,
        )
