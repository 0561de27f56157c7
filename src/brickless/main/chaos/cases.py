"""What is recorded: one life of a device, from its first boot over updates that work and updates that do not.

Each case is the stretch of writes between two moments at which the device had reported that it is done. Nothing in
between is left out: where one case ends the next one begins.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from brickless.core.errors import BricklessError
from brickless.main.artefacts import Variant
from brickless.main.chaos.record import Case, Recording
from brickless.main.chaos.rigs import NAME, BoardRig, EmulatorRig, Rig, copy_logs, recorded
from brickless.main.chaos.scene import DATA, DATA_TEXT, PAGE, Scene, page
from brickless.main.developer import Developer
from brickless.main.hubapi import wait_until
from brickless.main.lab import USER, Lab, Served
from brickless.main.talk import Talk

STEP_TIMEOUT_S = 400.0
BOOT_TIMEOUT_S = 300.0
CONFIG = {"PV_UPDATER_COMMIT_DELAY": "1", "PV_UPDATER_GOALS_TIMEOUT": "30"}
META_KEY = "chaos.word"
GC_KEY = "PV_STORAGE_GC_THRESHOLD"
SUCCESS = frozenset({"DONE", "UPDATED"})


class Recorder:
    """Plays the device's life and cuts the record into cases."""

    def __init__(self, lab: Lab, rig: Rig, folder: Path) -> None:
        """`folder` gets the recording."""
        self._lab = lab
        self._rig = rig
        self._recording = Recording(folder)
        self._developer = Developer(lab.state / "desk", lab.api, lab.talk)
        self._cases: list[Case] = []
        self._rev = 0
        self._page = page(0)
        self._meta: tuple[bytes | None, ...] = (None,)
        self._device: Served | None = None

    @property
    def device(self) -> Served:
        """The device that is recorded."""
        if self._device is None:
            raise BricklessError("the recorded device was not switched on yet")
        return self._device

    def play(self) -> Recording:
        """All of it. Raises `BricklessError` when the device does not do what the case needs."""
        self.first_boot()
        repository = self._developer.clone(NAME, USER)
        self.metadata()
        self.update("app-update", repository, lambda: self._write_page(repository))
        self.update("bsp-update", repository, lambda: self._rig.bsp(Variant.UPDATED).write(repository))
        self.fail("app-rollback", repository, lambda: self._break_app(repository))
        self._mend_app(repository)
        self.fail("bsp-rollback", repository, lambda: self._rig.bsp(Variant.PANICS).write(repository))
        self._rig.bsp(Variant.UPDATED).write(repository)
        self.update("app-update-again", repository, lambda: self._write_page(repository))
        self.collect_garbage()
        self._rig.kill()
        return self._finish()

    # -- cases ---------------------------------------------------------------------------------------------------

    def first_boot(self) -> None:
        """The first boot of a new device: it registers itself and is claimed by its join token."""
        self._device = self._rig.start(self._keep_base)
        self._lab.register(self._device)
        self._device.wait_for_page(self._page, BOOT_TIMEOUT_S)
        text = DATA_TEXT.encode()
        self._cut("first-boot-and-claim", (0,), {DATA: (None, b"", text)}, (self._page,), identity=False)

    def metadata(self) -> None:
        """User metadata is set at the hub and reaches the device."""
        api, known = self._lab.api, self.device.known
        before = self._meta
        api.call("PUT", f"/devices/{known.id}/user-meta", {META_KEY: "one"})
        address = f"pv/user-meta/{META_KEY}"
        wait_until(lambda: self.device.page(address), STEP_TIMEOUT_S, f"{NAME} has the metadata {META_KEY}")
        self._meta = (b"one",)
        self._cut("metadata", (self._rev,), {f"cache/usrmeta/{META_KEY}": (*before, b"one")}, (self._page,))

    def update(self, name: str, repository: Path, change: Callable[[], None]) -> None:
        """An update that is tried and committed."""
        before = self._page
        change()
        rev = self._post(repository, name)
        step = self._lab.api.wait_for_step(self.device.known, rev, STEP_TIMEOUT_S)
        if step.status not in SUCCESS:
            raise BricklessError(f"{name}: revision {rev} is {step.status}: {step.message}")
        self.device.wait_for_page(self._page, BOOT_TIMEOUT_S)
        old, self._rev = self._rev, rev
        self._cut(name, (old, rev), {}, (before, self._page))

    def fail(self, name: str, repository: Path, change: Callable[[], None]) -> None:
        """An update that is tried and rolled back."""
        change()
        rev = self._post(repository, name)
        step = self._lab.api.wait_for_step(self.device.known, rev, STEP_TIMEOUT_S)
        if step.status != "ERROR":
            raise BricklessError(f"{name}: revision {rev} is {step.status}, not ERROR: {step.message}")
        self.device.wait_for_page(self._page, BOOT_TIMEOUT_S)
        self._cut(name, (self._rev, rev), {}, (self._page,))

    def collect_garbage(self) -> None:
        """What no revision needs any more is removed: a threshold set at the hub makes the device do it now."""
        mark = self._rig.mark()
        api, known = self._lab.api, self.device.known
        api.call("PUT", f"/devices/{known.id}/user-meta", {META_KEY: "one", GC_KEY: "1"})
        self._rig.wait_for(r"collected garbage at the threshold: [1-9]", STEP_TIMEOUT_S, mark)
        self._cut("garbage-collection", (self._rev,), {}, (self._page,))

    # -- changes -------------------------------------------------------------------------------------------------

    def _write_page(self, repository: Path) -> None:
        self._page = page(len(self._cases))
        (repository / PAGE).write_text(self._page)

    def _break_app(self, repository: Path) -> None:
        config = repository / "web/lxc.container.conf"
        config.write_text(config.read_text().replace("/bin/keep", "/bin/nothing-there"))

    def _mend_app(self, repository: Path) -> None:
        config = repository / "web/lxc.container.conf"
        config.write_text(config.read_text().replace("/bin/nothing-there", "/bin/keep"))

    def _post(self, repository: Path, message: str) -> int:
        self._developer.commit(repository, message)
        return self._developer.post(repository, message)

    # -- the record ----------------------------------------------------------------------------------------------

    def _keep_base(self, disk: Path) -> None:
        self._recording.folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(disk, self._recording.base)

    def _cut(
        self,
        name: str,
        revisions: tuple[int, ...],
        kept: dict[str, tuple[bytes | None, ...]],
        pages: tuple[str, ...],
        *,
        identity: bool = True,
    ) -> None:
        end = recorded(self._rig)
        begin = self._cases[-1].end if self._cases else 0
        always: dict[str, tuple[bytes | None, ...]] = {DATA: (DATA_TEXT.encode(),)}
        if self._meta != (None,):
            always[f"cache/usrmeta/{META_KEY}"] = self._meta
        named = tuple(str(rev) for rev in dict.fromkeys(revisions))
        self._cases.append(Case(name, begin, end, named, {**always, **kept}, pages, identity))
        self._lab.talk.say(f"recorded {name}: writes and flushes {begin} to {end}")

    def _finish(self) -> Recording:
        copy_logs(self._rig, self._recording.folder)
        self._recording.keep(self._rig.view, self._cases)
        return self._recording


def record(state: Path, artefacts: Scene, talk: Talk, folder: Path, view: str) -> Recording:
    """Record a device's life into `folder`; `state` is emptied, it holds the hub and the device meanwhile."""
    with Lab(state, artefacts, talk) as lab:
        if view == EmulatorRig.view:
            return Recorder(lab, EmulatorRig(lab), folder).play()
        rig = BoardRig(lab, artefacts, view)
        try:
            return Recorder(lab, rig, folder).play()
        finally:
            rig.stop()
