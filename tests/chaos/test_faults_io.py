"""The disk of a real device answers with an I/O error, in the middle of an update; then its power is cut.

QEMU's blkdebug lets the n-th request fail. `IO_ERRORS` errors are tried, spread over the writes and reads of an update.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from brickless.main.chaos.guest import BOOT_TIMEOUT_S, Guest
from brickless.main.hubapi import HubError, wait_until
from brickless.twin import disk

CACHE = Path(__file__).parents[2] / ".cache"
ERRORS = int(os.environ.get("IO_ERRORS", "1"))
# From its first boot to the commit of an update the device makes some 250 writes; its boot alone some 60.
FIRST_WRITE, LAST_WRITE = 70, 230
FIRST_READ, LAST_READ = 60, 200
SETTLED_S = 60.0

pytestmark = [pytest.mark.needs("qemu"), pytest.mark.timeout(900)]
fault = pytest.mark.fault


def spread(first: int, last: int, number: int) -> list[int]:
    return [first + (last - first) * step // max(1, number - 1) for step in range(number)]


def rules(folder: Path, event: str, number: int) -> str:
    """A drive whose `number`-th request of that kind fails, once."""
    lines = [
        f'[set-state]\nevent = "{event}"\nstate = "{count}"\nnew_state = "{count + 1}"\n' for count in range(1, number)
    ]
    lines.append(
        f'[inject-error]\nevent = "{event}"\nstate = "{number}"\nerrno = "5"\nonce = "on"\nimmediately = "off"\n'
    )
    path = folder / "blkdebug.conf"
    path.write_text("\n".join(lines))
    disk0 = f"file=blkdebug:{path}:{folder / 'disk.img'},format=raw,if=none,id=disk0,cache=unsafe"
    return f"{disk0},werror=report,rerror=report"


def survives(tmp_path: Path, event: str, number: int) -> None:
    """One update with the error somewhere in it, a power cut, and a boot with a disk that is well again."""
    with Guest(tmp_path, CACHE, drive=rules(tmp_path, event, number)) as guest:
        try:
            guest.wait_until_claimed()
            rev, _ = guest.post(load=os.urandom(600_000))
            guest.hub.wait_for_status(rev, "DONE", "ERROR", "WONTGO", timeout_s=SETTLED_S)
        except (HubError, TimeoutError):
            # A device whose disk broke may fall silent: what counts is what the next boot finds.
            assert guest.device.is_on
        guest.device.kill()
        assert disk.check(_replayed(guest)) == [], f"{event} {number}: the file system did not survive"
        guest.device.drive = ""
        guest.device.start()
        # What was committed runs. Otherwise the old one does, until the device has tried the update again by itself.
        new = "page 1\n"
        right = {new} if guest.hub.devices and _committed(guest) else {guest.page, new}

        def served() -> str | None:
            page = guest.served()
            return page if page in right else None

        wait_until(served, BOOT_TIMEOUT_S, f"the device serves one of {sorted(right)}")
        guest.hub.heal()
        guest.page = new
        outcome = guest.update() if guest.hub.devices else None
        assert outcome is None or outcome.status == "DONE", outcome


def _replayed(guest: Guest) -> Path:
    copy = guest.folder / "copy.img"
    disk.copy_sparse(guest.device.disk, copy)
    disk.replay_journal(copy)
    return copy


def _committed(guest: Guest) -> bool:
    environment = disk.read(_replayed(guest), "boot/uboot.txt") or b""
    return b"pv_rev=1\0" in environment


@fault(
    "an I/O error of the disk on a write",
    "the update fails or goes through; after a power cut old or new boots and updates",
)
@pytest.mark.parametrize("number", spread(FIRST_WRITE, LAST_WRITE, ERRORS))
def test_a_write_that_fails(tmp_path: Path, number: int) -> None:
    survives(tmp_path, "write_aio", number)


@fault(
    "an I/O error of the disk on a read",
    "the update fails or goes through; after a power cut old or new boots and updates",
)
@pytest.mark.parametrize("number", spread(FIRST_READ, LAST_READ, max(1, ERRORS // 2)))
def test_a_read_that_fails(tmp_path: Path, number: int) -> None:
    survives(tmp_path, "read_aio", number)
