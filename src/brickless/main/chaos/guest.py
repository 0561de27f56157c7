"""A device in QEMU whose hub misbehaves on command, with a door inside through which a test does harm.

The door is a page of its container: what is posted to it is run by a shell that sees the device's own processes. It is
there in tests only.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from brickless.core import canonical
from brickless.core.canonical import JsonValue
from brickless.core.errors import BricklessError
from brickless.image import factory, storage
from brickless.main.artefacts import GROUP_TIMEOUT_S, Artefacts, Variant, write_site
from brickless.main.hubapi import wait_until
from brickless.main.lab import HUB_CONFIG, HUB_PORT, WEB_PORT, free_port
from brickless.store.objects import ObjectStore
from brickless.testkit import busybox
from brickless.testkit.hub import Certificate
from brickless.testkit.hub_simulator import HubSimulator
from brickless.twin.device import EmulatedDevice
from brickless.twin.qemu import SERVICE_ADDRESS, Forward, Service

CONFIG = {"PV_UPDATER_COMMIT_DELAY": "1", "PV_UPDATER_GOALS_TIMEOUT": "30", "PV_REVISION_RETRIES": "3"}
DEVICE_CONFIG = {
    **HUB_CONFIG,
    "PH_UPDATER_INTERVAL": "1",
    "PH_METADATA_DEVMETA_INTERVAL": "5",
    "PH_UPDATER_NETWORK_TIMEOUT": "20",
    "PH_LIBEVENT_HTTP_TIMEOUT": "10",
}
PAGE = "_config/web/www/index.html"
LOAD = "_config/web/www/load.bin"
DISK_MB = 128
BOOT_TIMEOUT_S = 240.0
STEP_TIMEOUT_S = 300.0
DOOR_TIMEOUT_S = 60.0
OK = 200
FINAL = ("DONE", "UPDATED", "ERROR", "WONTGO")
# The container shares the device's process namespace: what is posted can do to its processes what only root can.
_DOOR = b"""#!/bin/sh
echo
busybox head -c "$CONTENT_LENGTH" >/tmp/do
exec sh /tmp/do 2>&1
"""


class Outcome(NamedTuple):
    """How a step ended, and what the device serves since."""

    rev: int
    status: str
    message: str
    logs: str
    page: str


class Guest:
    """As a context manager the hub runs and the device is switched on within the block."""

    def __init__(
        self,
        folder: Path,
        cache: Path,
        *,
        config: Mapping[str, str] | None = None,
        drive: str = "",
        hosts: tuple[str, ...] = (),
    ) -> None:
        """`config` is added to the device's; `drive` replaces QEMU's options for the disk.

        `hosts` are names that the hub's certificate is for; without any it is for the address.
        """
        self.folder = folder
        self.cache = cache
        self.config = {**DEVICE_CONFIG, **(config or {})}
        self.certificate = Certificate(str(folder / "tls"), hosts=hosts or (SERVICE_ADDRESS,))
        self.hub = HubSimulator(tls=context(self.certificate))
        self.hub.auto_claim = True
        self.web_port = free_port()
        self.state: dict[str, JsonValue] = {}
        self.page = "page 0\n"
        self._drive = drive
        self.twin: EmulatedDevice | None = None

    # -- the device ----------------------------------------------------------------------------------------------

    @property
    def device(self) -> EmulatedDevice:
        """The device. Raises `BricklessError` before it is switched on."""
        if self.twin is None:
            raise BricklessError("the guest was not started")
        return self.twin

    def __enter__(self) -> Guest:
        self.hub.start()
        disk = self.folder / "disk.img"
        write_site(self.folder / "site.cpio", Path(self.certificate.ca_file).read_bytes())
        storage.build(disk, fill=self._fill, size_mb=DISK_MB, config=self.config)
        self.twin = EmulatedDevice(
            self.folder,
            services=[Service(HUB_PORT, self.hub.port)],
            forwards=[Forward(self.web_port, WEB_PORT)],
            drive=self._drive,
        )
        self.twin.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.twin is not None:
            self.twin.stop()
        self.hub.stop()

    def _fill(self, objects: ObjectStore) -> bytes:
        artefacts = Artefacts(self.cache, config=CONFIG)
        board = artefacts.board(Variant.FACTORY, self.folder / "site.cpio")
        squashfs = busybox.rootfs(self.folder / "web.squashfs", self.cache, {"www/cgi-bin/do": _DOOR})
        lines = [
            "lxc.namespace.keep = pid",
            "lxc.mount.entry = /volumes/web/data data none bind,create=dir 0 0",
        ]
        extra = busybox.container(objects, "web", "/bin/httpd -f -p 80 -h /www", squashfs, lines=lines)
        run = extra["web/run.json"]
        if not isinstance(run, dict):
            raise TypeError("a container's manifest is a JSON object")
        volumes: JsonValue = {"lxc-overlay": {"persistence": "boot"}, "data": {"persistence": "permanent"}}
        extra["web/run.json"] = {**run, "storage": volumes}
        extra[PAGE] = objects.add([self.page.encode()])
        groups = factory.stock_groups(timeout_s=GROUP_TIMEOUT_S, stable_s=3)
        raw = factory.revision(objects, board, self.cache, groups=groups, extra=extra)
        state = canonical.loads(raw)
        if not isinstance(state, dict):
            raise TypeError("a state is a JSON object")
        self.state = state
        return raw

    # -- what it serves --------------------------------------------------------------------------------------------

    def served(self) -> str | None:
        """Its page now, None when nobody answers."""
        try:
            response = httpx.get(f"http://127.0.0.1:{self.web_port}/", timeout=5.0, trust_env=False)
        except httpx.HTTPError:
            return None
        return response.text if response.status_code == OK else None

    def wait_for_page(self, wanted: str) -> str:
        """Wait until it serves that page."""

        def found() -> str | None:
            page = self.served()
            return page if page == wanted else None

        return wait_until(found, BOOT_TIMEOUT_S, f"the device serves {wanted!r}")

    def wait_until_claimed(self) -> None:
        """Wait until it runs its factory revision and the hub knows of it."""
        self.wait_for_page(self.page)
        self.hub.wait_for(lambda hub: hub.devices and 0 in hub.steps[hub.device.id], timeout_s=BOOT_TIMEOUT_S)

    def do(self, script: str) -> str:
        """Run a script in the device's own process namespace; returns what it said."""
        response = httpx.post(
            f"http://127.0.0.1:{self.web_port}/cgi-bin/do",
            content=script.encode(),
            timeout=DOOR_TIMEOUT_S,
            trust_env=False,
        )
        if response.status_code != OK:
            raise BricklessError(f"the door answered {response.status_code}: {response.text[:300]}")
        return response.text

    # -- updates ---------------------------------------------------------------------------------------------------

    def post(self, *, load: bytes = b"", **changes: JsonValue) -> tuple[int, str]:
        """A new step with the next page; `load` is one more object. Returns its number and the page."""
        page = f"page {int(self.page.split()[1]) + 1}\n"
        state = {**self.state, PAGE: self.hub.add_object(page.encode()), **changes}
        if load:
            state[LOAD] = self.hub.add_object(load)
        rev = self.hub.post(state)
        return rev, page

    def ends(self, rev: int, page: str, *, timeout_s: float = STEP_TIMEOUT_S) -> Outcome:
        """Wait until the step is final and the device serves the old or the new page; remember what runs."""
        progress: dict[str, Any] = self.hub.wait_for_status(rev, *FINAL, timeout_s=timeout_s)
        good = progress["status"] in {"DONE", "UPDATED"}
        wanted = page if good else self.page
        self.page = self.wait_for_page(wanted)
        return Outcome(rev, progress["status"], progress["status-msg"], str(progress.get("logs", "")), self.page)

    def update(self, *, load: bytes = b"") -> Outcome:
        """Post a step and wait for its end."""
        rev, page = self.post(load=load)
        return self.ends(rev, page)


def context(certificate: Certificate) -> ssl.SSLContext:
    """What a server needs to show that certificate."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate.cert_file, certificate.key_file)
    return made
