"""What is recorded: one life of a device, from its first boot over updates that work and updates that do not.

Each case is the stretch of writes between two moments at which the device had reported that it is done. Nothing in
between is left out: where one case ends the next one begins.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from brickless.core.errors import BricklessError
from brickless.main.artefacts import Variant
from brickless.main.chaos.record import Case, Recording
from brickless.main.chaos.rigs import NAME, BoardRig, EmulatorRig, Rig, copy_logs, recorded
from brickless.main.chaos.scene import CHATTER, DATA, DATA_TEXT, LOG, PAGE, Scene, page
from brickless.main.developer import Developer
from brickless.main.hubapi import Device, wait_until
from brickless.main.lab import USER, Lab, Served
from brickless.main.talk import Talk
from brickless.testkit.crashlab import inspect
from brickless.testkit.crashlab.views import VIEWS
from brickless.twin.disk import copy_sparse

STEP_TIMEOUT_S = 400.0
BOOT_TIMEOUT_S = 300.0
CONFIG = {"PV_UPDATER_COMMIT_DELAY": "3", "PV_UPDATER_GOALS_TIMEOUT": "30"}
ROTATIONS = 3
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
        self.begin()
        repository = self._developer.clone(NAME, USER)
        self.metadata()
        self.rotate_a_log()
        self.update("app-update", "commit", repository, lambda: self._write_page(repository))
        self.update("bsp-update", "bsp-commit", repository, lambda: self._rig.bsp(Variant.UPDATED).write(repository))
        self.fail("app-rollback", repository, lambda: self._break_app(repository))
        self._mend_app(repository)
        self.fail("bsp-rollback", repository, lambda: self._rig.bsp(Variant.PANICS).write(repository))
        self._rig.bsp(Variant.UPDATED).write(repository)
        self.update("app-update-again", "commit-again", repository, lambda: self._write_page(repository))
        self.collect_garbage()
        self._rig.kill()
        self._check_rotation()
        return self._finish()

    # -- cases ---------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The first boot of a new device whose storage has room to grow into, up to its claim by its owner."""
        self.first_boot()
        self.claim()

    def first_boot(self) -> None:
        """The storage grows, the factory revision starts, the device registers itself."""
        self._device = self._rig.start(self._keep_base)
        self._rig.wait_for("the storage grew by [1-9]", BOOT_TIMEOUT_S, 0)
        kept: dict[str, tuple[bytes | None, ...]] = {DATA: (None, b"", DATA_TEXT.encode())}
        self._cut("storage-growth", (0,), kept, (self._page,), identity=False)
        self._device.wait_for_page(self._page, BOOT_TIMEOUT_S)
        self._said("challenge", BOOT_TIMEOUT_S)
        self._cut("first-boot", (0,), kept, (self._page,), identity=False)

    def claim(self) -> None:
        """Somebody who knows the challenge becomes the owner; the device learns it and moves its credentials."""
        api, device = self._lab.api, self.device
        identity, challenge = self._said("device-id", BOOT_TIMEOUT_S), self._said("challenge", BOOT_TIMEOUT_S)
        api.call("PUT", f"/devices/{identity}?challenge={challenge}", {})
        device.known = api.rename(Device(identity, NAME), NAME)
        # The hint is taken back once the credentials are in their place.
        wait_until(
            lambda: True if device.page("pv/challenge") == "" else None, STEP_TIMEOUT_S, f"{NAME} knows its owner"
        )
        api.wait_for_step(device.known, 0, STEP_TIMEOUT_S)
        self._cut("claim", (0,), {}, (self._page,))

    def _said(self, hint: str, timeout_s: float) -> str:
        """What the device says about itself in a hint file, once it does."""
        return wait_until(
            lambda: (self.device.page(f"pv/{hint}") or "").strip() or None, timeout_s, f"{NAME} tells its {hint}"
        )

    def metadata(self) -> None:
        """User metadata is set at the hub and reaches the device."""
        api, known = self._lab.api, self.device.known
        before = self._meta
        api.call("PUT", f"/devices/{known.id}/user-meta", {META_KEY: "one"})
        address = f"pv/user-meta/{META_KEY}"
        wait_until(lambda: self.device.page(address), STEP_TIMEOUT_S, f"{NAME} has the metadata {META_KEY}")
        self._meta = (b"one",)
        self._cut("metadata", (self._rev,), {f"cache/usrmeta/{META_KEY}": (*before, b"one")}, (self._page,))

    def rotate_a_log(self) -> None:
        """A container says more than a piece of its log holds, again and again; see `_check_rotation`."""
        for _ in range(ROTATIONS):
            wait_until(lambda: self.device.page(CHATTER), STEP_TIMEOUT_S, f"{NAME} fills its log")
        self._cut("log-rotation", (self._rev,), {}, (self._page,))

    def update(self, name: str, commit: str, repository: Path, change: Callable[[], None]) -> None:
        """An update that is tried (the case `name`) and, from the moment that it runs well, committed (`commit`)."""
        before, mark = self._page, self._rig.mark()
        change()
        rev = self._post(repository, name)
        self._rig.wait_for(f"revision {rev} TESTING", STEP_TIMEOUT_S, mark)
        old, self._rev = self._rev, rev
        self._cut(name, (old, rev), {}, (before, self._page))
        step = self._lab.api.wait_for_step(self.device.known, rev, STEP_TIMEOUT_S)
        if step.status not in SUCCESS:
            raise BricklessError(f"{name}: revision {rev} is {step.status}: {step.message}")
        self.device.wait_for_page(self._page, BOOT_TIMEOUT_S)
        self._cut(commit, (old, rev), {}, (before, self._page))

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
        copy_sparse(disk, self._recording.base)

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

    def _check_rotation(self) -> None:
        """The log of the chatter has an old piece: what is counted as rotation was one."""
        storage = VIEWS[self._rig.view].storage(self._rig.disk, self._rig.disk.with_suffix(".storage"))
        fault = inspect.recover(storage)
        folder = "logs/0/web"
        names = inspect.folders(storage, [folder])[folder]
        if fault or not any(name.startswith(LOG) and name.endswith(".1") for name in names):
            raise BricklessError(f"no log was rotated: {folder} has {', '.join(names) or 'nothing'}. {fault}")


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
