"""Scenarios inside an emulated device: each is a container whose script says by one line on the console how it went.

`ok NAME` and `no NAME WHY` are shell functions of every script; what they print comes over /dev/kmsg, so that a test
waits for the line `scenario NAME passed` of the console, which a crash cannot print.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from brickless.core import canonical
from brickless.core.state import parse_state
from brickless.image import cache, storage, tools
from brickless.image.bsp import Bsp
from brickless.image.compress import Compression
from brickless.store.objects import ObjectStore
from brickless.store.trails import Storage
from brickless.testkit import busybox
from brickless.twin.device import EmulatedDevice

Json = canonical.JsonValue
FUNCTIONS = """#!/bin/sh
export PATH=/bin
say() { echo "<3>$*" >/dev/kmsg; }
ok() { say "scenario $1 passed"; }
no() { n=$1; shift; say "scenario $n FAILED: $*"; }
check() { n=$1; shift; if "$@" >/tmp/said 2>&1; then ok $n; else no $n "$* said $(busybox head -c 300 /tmp/said)"; fi; }
within() { t=0; until "$@"; do t=$((t+1)); [ $t -lt 60 ] || return 1; busybox sleep 1; done; }
stay() { trap 'exit 0' TERM; while :; do busybox sleep 1000 & wait $!; done; }
"""
LINES = ("lxc.mount.entry = /dev/kmsg dev/kmsg none bind,create=file 0 0",)
CONFIG = {"PV_CONTROL_REMOTE": "0", "PV_UPDATER_COMMIT_DELAY": "2", "PV_UPDATER_GOALS_TIMEOUT": "120"}
# Containers' lines are not to be dropped as too many.
OPTIONS = "printk.devkmsg=on"


class Scenario(NamedTuple):
    """A container: its name, script, members of run.json, more lines of its LXC configuration, files of its root."""

    name: str
    script: str
    run: Mapping[str, Json] = {}
    lines: Sequence[str] = ()
    files: Mapping[str, bytes] = {}
    extra: Mapping[str, Json] = {}


def tools_archive(folder: Path) -> Path:
    """The archive of tools, made once below the cache `folder`."""
    name = f"tools-{cache.key(sorted(tools.PROGRAMS), 1)}.cpio.zst"
    return cache.artefact(
        folder / "artefacts", name, lambda out: tools.build(out, cache=folder, compression=Compression.ZSTD)
    )


class Guest:
    """Builds the disks of such devices; what is costly is made once below `folder`."""

    def __init__(self, folder: Path, work: Path, board: Bsp) -> None:
        """`board` is what boots: the runtime, its modules, the tools that the scenarios need."""
        self.folder = folder
        self.work = work
        self.board = board

    def entries(self, objects: ObjectStore, scenario: Scenario) -> dict[str, Json]:
        """The entries of a scenario's container."""
        script = f"{FUNCTIONS}{scenario.script}\nstay\n".encode()
        squashfs = busybox.rootfs(self.work / "scenario.squashfs", self.folder, {"init": script, **scenario.files})
        made = busybox.container(objects, scenario.name, "/init", squashfs, lines=(*LINES, *scenario.lines))
        manifest = made[f"{scenario.name}/run.json"]
        if not isinstance(manifest, dict):
            raise TypeError("a manifest is an object")
        own = dict(scenario.run)
        more = own.pop("storage", {})
        if isinstance(more, dict) and isinstance(manifest["storage"], dict):
            manifest["storage"] = {**manifest["storage"], **more}
        manifest.update(own)
        return {**made, **scenario.extra}

    def disk(
        self,
        revisions: Mapping[str, Sequence[Scenario]],
        device: Mapping[str, Json],
        *,
        files: Mapping[str, bytes] = {},
        bsp_more: Mapping[str, bytes] = {},
        size_mb: int = 384,
    ) -> Path:
        """A disk with the revisions; `0` is the factory's. `files` are put on the partition as they are.

        `bsp_more` are files of the BSP that its run.json names by their stem (`firmware.squashfs`).
        """
        out = self.work / "disk.img"
        board = self.board

        def fill(objects: ObjectStore) -> bytes:
            states = {
                rev: self._state(objects, board, scenarios, device, bsp_more) for rev, scenarios in revisions.items()
            }
            root = Path(objects.root).parent
            for path, content in files.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_bytes(content)
            for rev, state in states.items():
                if rev != "0":
                    Storage(str(root)).install(rev, parse_state(state))
            return states["0"]

        storage.build(out, fill=fill, size_mb=size_mb, config={})
        return out

    def _state(
        self,
        objects: ObjectStore,
        board: Bsp,
        scenarios: Sequence[Scenario],
        device: Mapping[str, Json],
        bsp_more: Mapping[str, bytes],
    ) -> bytes:
        state: dict[str, Json] = {"#spec": "pantavisor-service-system@1", "device.json": dict(device), **board.jsons()}
        given = board.run_json()
        run = dict(given) if isinstance(given, dict) else {}
        for name, content in bsp_more.items():
            if name.endswith(".json"):
                state[f"bsp/{name}"] = canonical.loads(content)
                continue
            run[name.partition(".")[0]] = name
            state[f"bsp/{name}"] = objects.add([content])
        state["bsp/run.json"] = run
        for path, source in board.files().items():
            state[path] = objects.add_file(str(source))
        for scenario in scenarios:
            state.update(self.entries(objects, scenario))
        return canonical.dumps(state)


def passed(device: EmulatedDevice, name: str, *, since: int = 0, timeout_s: float = 240.0) -> None:
    """Wait until the scenario says how it went. Raises `AssertionError` with its reason when it failed."""
    found = device.wait_for(rf"scenario {name} (passed|FAILED.*)", timeout_s=timeout_s, since=since)
    if found.match[1] != "passed":
        raise AssertionError(f"scenario {name}: {found.match[1]}")
