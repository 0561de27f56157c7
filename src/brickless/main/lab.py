"""A hub and emulated devices on this machine, for the demo and for tests: started, joined, cleaned up as one."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import httpx

from brickless.core.errors import BricklessError
from brickless.image.bsp import Bsp
from brickless.main.artefacts import Artefacts, Variant, write_site
from brickless.main.hubapi import Device, HubApi, wait_until
from brickless.main.talk import Talk
from brickless.testkit.hub import Certificate, HubProcess
from brickless.twin.device import EmulatedDevice
from brickless.twin.qemu import SERVICE_ADDRESS, Forward, Hardware, Service

USER, PASSWORD = "user1", "user1"
HUB_PORT = 12366
WEB_PORT = 80
REGISTER_TIMEOUT_S = 120.0
FACTORY_TIMEOUT_S = 120.0
PAGE_TIMEOUT_S = 20.0
# How often a device asks, in seconds: shorter than a product's, so that the story is short.
HUB_CONFIG = {
    "PH_CREDS_HOST": SERVICE_ADDRESS,
    "PH_CREDS_PORT": str(HUB_PORT),
    "PH_UPDATER_INTERVAL": "2",
    "PH_UPDATER_NETWORK_TIMEOUT": "60",
    "PH_METADATA_DEVMETA_INTERVAL": "10",
    "PH_METADATA_USRMETA_INTERVAL": "10",
}


class Served:
    """A device that serves a page, and what the hub knows of it."""

    def __init__(self, name: str, web_port: int) -> None:
        """`web_port` is the loopback port that leads to its port 80."""
        self.name = name
        self.web_port = web_port
        self._known: Device | None = None

    @property
    def known(self) -> Device:
        """Its record at the hub, once it registered."""
        if self._known is None:
            raise BricklessError(f"{self.name} did not register at the hub yet")
        return self._known

    @known.setter
    def known(self, device: Device) -> None:
        self._known = device

    @property
    def page_url(self) -> str:
        """Where its page is."""
        return f"http://127.0.0.1:{self.web_port}/"

    def page(self, path: str = "") -> str | None:
        """Its page now, None when nobody answers."""
        try:
            response = httpx.get(self.page_url + path, timeout=5.0, trust_env=False)
        except httpx.HTTPError:
            return None
        return response.text if response.status_code == 200 else None

    def wait_for_page(self, words: str, timeout_s: float = PAGE_TIMEOUT_S) -> str:
        """Its page, once it has `words` in it."""

        def found() -> str | None:
            page = self.page()
            return page if page is not None and words in page else None

        return wait_until(found, timeout_s, f"{self.page_url} of {self.name} says {words!r}")


class LabDevice(Served):
    """An emulated device."""

    def __init__(self, name: str, twin: EmulatedDevice, web_port: int) -> None:
        """See `Served`."""
        super().__init__(name, web_port)
        self.twin = twin


class Lab:
    """As a context manager: the hub runs inside the block, and with it every device that was added."""

    def __init__(self, state: Path, artefacts: Artefacts, talk: Talk) -> None:
        """`state` is emptied at the start: the lab's hub data, disks and consoles lie there."""
        self.state = state
        self.artefacts = artefacts
        self.talk = talk
        self.devices: list[LabDevice] = []
        self._stack = ExitStack()
        self._hub: HubProcess | None = None
        self._api: HubApi | None = None

    def __enter__(self) -> Lab:
        shutil.rmtree(self.state, ignore_errors=True)
        self.state.mkdir(parents=True)
        try:
            self._start_hub()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start_hub(self) -> None:
        certificate = Certificate(str(self.state / "tls"))
        self._hub = HubProcess(str(self.state / "hub"), tls=certificate).start()
        self._stack.callback(self._hub.kill)
        self._api = HubApi(self._hub.url, USER, PASSWORD)
        self._stack.callback(self._api.close)
        write_site(self.state / "site.cpio", Path(certificate.ca_file).read_bytes())

    @property
    def hub(self) -> HubProcess:
        """The hub's process."""
        if self._hub is None:
            raise BricklessError("the lab was not entered")
        return self._hub

    @property
    def api(self) -> HubApi:
        """The hub, as its user."""
        if self._api is None:
            raise BricklessError("the lab was not entered")
        return self._api

    def bsp(self, variant: Variant) -> Bsp:
        """A board support package whose devices trust this lab's hub."""
        return self.artefacts.board(variant, self.state / "site.cpio")

    def add(
        self,
        name: str,
        *,
        config: Mapping[str, str] | None = None,
        hardware: Hardware | None = None,
        size_mb: int = 512,
        log_writes: bool = False,
        before: Callable[[Path], None] = lambda _: None,
    ) -> LabDevice:
        """Make a device's disk and switch it on; `register` waits for it.

        `before` gets the finished disk before the device does; for `log_writes` see `EmulatedDevice`.
        """
        folder = self.state / name
        folder.mkdir()
        settings = {**HUB_CONFIG, "PH_FACTORY_AUTOTOK": self.api.join_token(name), **(config or {})}
        self.artefacts.disk(folder / "disk.img", self.bsp(Variant.FACTORY), settings, size_mb=size_mb)
        before(folder / "disk.img")
        web_port = free_port()
        twin = EmulatedDevice(
            folder,
            services=[Service(HUB_PORT, self.hub.tls_port)],
            forwards=[Forward(web_port, WEB_PORT)],
            hardware=hardware,
            on_line=lambda line: self.talk.console(name, line),
            log_writes=log_writes,
        )
        self._stack.callback(twin.stop)
        device = LabDevice(name, twin, web_port)
        self.devices.append(device)
        twin.start()
        return device

    def register(self, device: Served) -> Device:
        """Wait until it registered itself (its join token makes it ours), name it, wait for its factory revision."""
        found = self.api.wait_for_device(device.name, REGISTER_TIMEOUT_S)
        device.known = self.api.rename(found, device.name)
        self.api.wait_for_step(device.known, 0, FACTORY_TIMEOUT_S)
        return device.known


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
