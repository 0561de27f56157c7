"""`brickless up` and `brickless demo`: a hub, emulated devices, and the whole story on the first of them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from brickless.main.artefacts import Artefacts, Variant
from brickless.main.lab import PASSWORD, USER, Lab
from brickless.main.story import Story
from brickless.main.talk import Talk
from brickless.store.lock import lock
from brickless.testkit.registry import Registry

NAMES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class Interrupted(Exception):  # noqa: N818 - what happened is no error
    """The user, or the system, asked us to end."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block SIGINT and SIGTERM raise `Interrupted`, so that everything that runs is cleaned up."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(signal.Signals(number).name)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(state: Path, cache: Path, talk: Talk, *, devices: int, stay: bool) -> None:
    """Tell the story on the first of so many devices (ten at most); with `stay`, keep all running until interrupted.

    Raises what went wrong.
    """
    artefacts = Artefacts(cache)
    talk.step("what the devices boot (made once, kept in " + str(cache) + ")")
    prepare(artefacts, talk)
    state.parent.mkdir(parents=True, exist_ok=True)
    # The lab empties its state first: a second `up` would pull the disks from under the first one's devices.
    with lock(f"{state}.lock", timeout_s=0), Lab(state, artefacts, talk) as lab, Registry() as registry:
        talk.step(f"the hub runs: {lab.hub.url} (user {USER}, password {PASSWORD})")
        for device in [lab.add(name) for name in NAMES[:devices]]:
            lab.register(device)
            talk.say(f"{device.name} is {device.known.id} at the hub, and ours")
        story = Story(lab, registry, talk)
        story.tell(lab.devices[0])
        talk.result(summary(lab, story, registry))
        if stay:
            talk.say("everything runs until Ctrl-C")
            threading.Event().wait()


def prepare(artefacts: Artefacts, talk: Talk) -> None:
    """Make what takes long, with a line for each."""
    talk.say(f"kernel {artefacts.kernel.modules.release}, {artefacts.modules.name}")
    for variant in Variant:
        path = artefacts.initramfs(variant)
        talk.say(f"initramfs {variant}: {path.stat().st_size / 1e6:.1f} MB")


def summary(lab: Lab, story: Story, registry: Registry) -> str:
    """What happened, where the hub is, and what to try."""
    environment = " ".join(f"{key}={value}" for key, value in story.developer.environment.items() if "PVR" in key)
    lines = ["", f"In {story.talk.seconds:.0f} seconds:"]
    lines += [f"  - {text}" for text in story.done]
    lines += ["", f"The hub:     {lab.hub.url}   (user {USER}, password {PASSWORD})"]
    lines += [f"Device {one.name}:  {one.page_url}   console: {one.twin.console.path}" for one in lab.devices]
    lines += ["", "Try more:", f"  export {environment}"]
    lines += [f"  cd {story.repository}", "  pvr status"]
    lines += [f"  pvr app update web --from {registry.address}/web:1 && pvr add . && pvr commit && pvr post"]
    return "\n".join(lines)
