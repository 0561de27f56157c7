"""The runtime on boards with little memory: an app is added, updated, and comes back from a broken version."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from brickless.main.hubapi import wait_until
from brickless.main.lab import Lab, LabDevice
from brickless.main.story import Story
from brickless.testkit.registry import Registry
from brickless.twin.qemu import Hardware

pytestmark = pytest.mark.needs("qemu", "registry", "skopeo")
FIGURES_TIMEOUT_S = 120.0


def memory(lab: Lab, device: LabDevice) -> dict[str, int]:
    """What the device itself says of its memory, in MB, once it has told the hub."""

    def told() -> dict[str, int] | None:
        meta = lab.api.call("GET", f"/devices/{device.known.id}")["device-meta"]
        info = meta.get("sysinfo")
        info = json.loads(info) if isinstance(info, str) else info
        if not info:
            return None
        unit = int(info.get("mem_unit", 1)) or 1
        return {key: int(info[key]) * unit // 1_000_000 for key in ("totalram", "freeram", "bufferram")}

    return wait_until(told, FIGURES_TIMEOUT_S, f"{device.name} tells its memory")


@pytest.mark.parametrize("memory_mb", [128])
def test_an_app_is_added_updated_and_rolled_back(
    memory_mb: int, lab: Lab, registry: Registry, story: Story, say: Callable[[str], None]
) -> None:
    assert story.repository.exists()  # with it come its images in the registry
    device = lab.add(f"small{memory_mb}", hardware=Hardware(memory_mb=memory_mb))
    try:
        lab.register(device)
        own = Story(lab, registry, lab.talk)
        own.clone(device)
        own.add_app(device)
        own.update_app(device)
        own.break_app(device)
        figures = memory(lab, device)
        say(f"{memory_mb} MB: with an app after add, update and rollback: {figures} (MB)")
        assert figures["totalram"] < memory_mb * 1.05
        said = [line.text for line in device.twin.console.lines()]
        assert said
        assert not [text for text in said if "Out of memory" in text or "oom-kill" in text]
    finally:
        device.twin.stop()
