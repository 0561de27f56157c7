"""The story that `brickless up` tells: an image becomes a container, a broken one comes back, the BSP too.

Each chapter does its part on real devices and checks what it claims; a claim that does not hold is a `StoryError`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from brickless.core.errors import BricklessError
from brickless.main.artefacts import Variant
from brickless.main.developer import Developer
from brickless.main.hubapi import Step
from brickless.main.lab import Lab, LabDevice
from brickless.main.talk import Talk
from brickless.testkit.debian_image import nginx_image
from brickless.testkit.registry import Registry

UPDATE_TIMEOUT_S = 120.0
REBOOT_TIMEOUT_S = 180.0
SUCCESS = frozenset({"DONE", "UPDATED"})


class StoryError(BricklessError):
    """Something did not go as the story claims."""


class Story:
    """The chapters, in order; `done` collects one line for each."""

    def __init__(self, lab: Lab, registry: Registry, talk: Talk) -> None:
        """The lab's devices are registered already."""
        self.lab = lab
        self.registry = registry
        self.talk = talk
        self.developer = Developer(lab.state / "developer", lab.api, talk)
        self.done: list[str] = []
        self._repository: Path | None = None

    @property
    def repository(self) -> Path:
        """The working copy of the first device."""
        if self._repository is None:
            raise StoryError("the device was not cloned yet")
        return self._repository

    def tell(self, device: LabDevice) -> None:
        """All of it, on one device."""
        self.build_images()
        self.clone(device)
        self.add_app(device)
        self.update_app(device)
        self.break_app(device)
        self.update_bsp(device)
        self.break_bsp(device)

    def build_images(self) -> None:
        """Three versions of a web server as images in a real registry."""
        self.talk.step("images of nginx from Debian packages, pushed to a registry")
        cache = self.lab.artefacts.folder
        for version in (1, 2, 3):
            layout = self.lab.state / f"web-{version}"
            nginx_image(layout, page(version), cache / "debian", broken=version == 3)
            self.talk.say(f"pushed {self.registry.push(layout, f'web:{version}')}")
            shutil.rmtree(layout)

    def clone(self, device: LabDevice) -> None:
        """A working copy of the device."""
        self.talk.step(f"a working copy of {device.name}")
        self._repository = self.developer.clone(device.name, self.lab.api.nick)

    def add_app(self, device: LabDevice) -> None:
        """The image becomes a container."""
        self.talk.step("web:1 becomes a container of the device, without a reboot")
        boots = len(device.twin.boots)
        self.developer.pvr("app", "add", "web", "--from", self._image(1), cwd=self.repository)
        self._expect_done(device, self._post("add web:1"), UPDATE_TIMEOUT_S)
        device.wait_for_page(page(1))
        self._expect(len(device.twin.boots) == boots, f"{device.name} rebooted for a new container")
        self._note(f"web:1 runs, {device.page_url} says {page(1)!r}")

    def update_app(self, device: LabDevice) -> None:
        """The next version."""
        self.talk.step("web:2: the page changes")
        self._update_app(2)
        self._expect_done(device, self._post("web:2"), UPDATE_TIMEOUT_S)
        device.wait_for_page(page(2))
        self._note(f"web:2 runs, {device.page_url} says {page(2)!r}")

    def break_app(self, device: LabDevice) -> None:
        """A version whose process ends at once comes back by itself."""
        self.talk.step("web:3 is broken: its process ends at once")
        self._update_app(3)
        step = self._expect_error(device, self._post("web:3 (broken)"), UPDATE_TIMEOUT_S)
        device.wait_for_page(page(2))
        self._note(f"web:3 failed, the hub says: {step.message}; {device.page_url} says {page(2)!r} again")
        # The working copy goes on from what runs.
        self._update_app(2)

    def update_bsp(self, device: LabDevice) -> None:
        """Another initramfs: a reboot, a trial, a commit."""
        self.talk.step("another initramfs: reboots, is tried once, is committed")
        boots = len(device.twin.boots)
        self.lab.bsp(Variant.UPDATED).write(self.repository)
        rev = self._post("BSP: runtime 'updated'")
        self._expect_done(device, rev, REBOOT_TIMEOUT_S)
        records = device.twin.boots[boots:]
        self._expect([(one.rev, one.attempt) for one in records] == [(str(rev), 1)], f"boots were {records}")
        device.wait_for_page(page(2))
        self._note(f"the new runtime of revision {rev} was tried and committed, in one reboot")

    def break_bsp(self, device: LabDevice) -> None:
        """A runtime that panics comes back with no help from outside."""
        self.talk.step("a runtime that panics")
        boots = len(device.twin.boots)
        self.lab.bsp(Variant.PANICS).write(self.repository)
        rev = self._post("BSP: a runtime that panics")
        step = self._expect_error(device, rev, REBOOT_TIMEOUT_S)
        records = device.twin.boots[boots:]
        self._expect(
            [one.rev for one in records] == [str(rev), str(rev - 1)] and records[1].fell_back, f"boots were {records}"
        )
        device.wait_for_page(page(2))
        self._note(f"revision {rev} panicked, the device came back by itself; the hub says: {step.message}")
        # The working copy is left as what runs, for whoever tries more.
        self.lab.bsp(Variant.UPDATED).write(self.repository)
        self.developer.commit(self.repository, "what the device runs")

    # -- steps ---------------------------------------------------------------------------------------------------

    def _image(self, version: int) -> str:
        return f"{self.registry.address}/web:{version}"

    def _update_app(self, version: int) -> None:
        self.developer.pvr("app", "update", "web", "--from", self._image(version), cwd=self.repository)

    def _post(self, message: str) -> int:
        self.developer.commit(self.repository, message)
        rev = self.developer.post(self.repository, message)
        self.talk.say(f"revision {rev} is posted: {message}")
        return rev

    def _expect_done(self, device: LabDevice, rev: int, timeout_s: float) -> Step:
        step = self._final(device, rev, timeout_s)
        self._expect(step.status in SUCCESS, f"revision {rev} is {step.status}: {step.message} {step.logs}")
        return step

    def _expect_error(self, device: LabDevice, rev: int, timeout_s: float) -> Step:
        step = self._final(device, rev, timeout_s)
        self._expect(step.status == "ERROR", f"revision {rev} is {step.status}, not ERROR: {step.message}")
        self._expect(bool(step.message), f"revision {rev} failed without a reason")
        return step

    def _final(self, device: LabDevice, rev: int, timeout_s: float) -> Step:
        step = self.lab.api.wait_for_step(device.known, rev, timeout_s)
        self.talk.say(f"the hub: revision {rev} is {step.status}: {step.message}")
        return step

    def _expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise StoryError(otherwise)

    def _note(self, text: str) -> None:
        self.talk.say(text)
        self.done.append(text)


def page(version: int) -> str:
    """What a version of the web server serves."""
    return f"web {version}"
