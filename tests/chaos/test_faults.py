"""Faults of network, hub, clock, memory and processes while a real device updates: old or new, and it says why.

One device takes all of them, one after another, so each test also shows that the device got over the one before; an
update that works ends it. `docs/reference/faults.md` is made from the marks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from brickless.core.errors import BricklessError
from brickless.main.chaos.guest import Guest, Outcome, context
from brickless.main.hubapi import wait_until
from brickless.testkit.hub import Certificate
from brickless.testkit.hub_simulator import Fault, Kind
from brickless.twin.qemu import SERVICE_ADDRESS

CACHE = Path(__file__).parents[2] / ".cache"
BLOB, STEPS, PROGRESS, OBJECT = "/local-s3/", "/steps", "/progress", "/objects/"
LOAD_BYTES = 600_000
YEAR_S = 365 * 24 * 3600
WAIT_S = 120.0

pytestmark = [pytest.mark.needs("qemu"), pytest.mark.timeout(900)]
fault = pytest.mark.fault


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with Guest(tmp_path_factory.mktemp("faults"), CACHE) as one:
        one.wait_until_claimed()
        yield one
        done(one.update())


@pytest.fixture
def guest(lasting: Guest) -> Iterator[Guest]:
    yield lasting
    lasting.hub.heal()


def load() -> bytes:
    """An object that no device has yet."""
    return os.urandom(LOAD_BYTES)


def done(outcome: Outcome) -> None:
    assert outcome.status == "DONE", outcome


def refused(outcome: Outcome, *reasons: str) -> None:
    """It ended without the new revision, and says why."""
    assert outcome.status in {"WONTGO", "ERROR"}, outcome
    assert any(reason in outcome.message + outcome.logs for reason in reasons), outcome


def said(guest: Guest, words: str, since: int) -> None:
    guest.device.wait_for(words, timeout_s=WAIT_S, since=since)


def signal(name: str, number: int = 9) -> str:
    """A script that sends a signal to every process of that name, and fails when there is none."""
    return (
        f'found=; for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>/dev/null)" = {name} ] || continue; '
        f"kill -{number} ${{p##*/}}; found=$found,${{p##*/}}; done; echo killed $found"
    )


def kill(guest: Guest, name: str) -> None:
    """Kill the process of that name; asked again while nobody answers, for an update restarts the door's container."""

    def answer() -> str | None:
        try:
            return guest.do(signal(name))
        except httpx.TransportError:
            return None

    words = wait_until(answer, WAIT_S, f"the device kills {name}")
    assert words.strip() != "killed", f"there is no process {name}"


# -- network -------------------------------------------------------------------------------------------------------


@fault("the network is cut in mid-download", "downloads on where it broke off, then commits")
def test_the_network_cut_in_mid_download(guest: Guest) -> None:
    guest.hub.inject(Fault(Kind.CUT, BLOB, number=LOAD_BYTES // 2, times=1))
    rev, page = guest.post(load=load())
    guest.hub.wait_for(lambda hub: hub.counted("GET", BLOB), timeout_s=WAIT_S)
    guest.device.machine.set_link(up=False)
    mark = guest.device.mark()
    said(guest, "link: .*(No connection|Nothing came|broke|did not answer|ended)", mark)
    guest.device.machine.set_link(up=True)
    done(guest.ends(rev, page))


@fault("the network is slow: a byte now and then", "waits as long as bytes come, then commits")
def test_a_slow_network(guest: Guest) -> None:
    guest.hub.inject(Fault(Kind.DRIP, BLOB, number=1, times=2))
    done(guest.update(load=os.urandom(8000)))


@fault("connections are reset", "tries again after a pause, then commits")
@pytest.mark.parametrize(("path", "method"), [(BLOB, "GET"), (STEPS, "GET"), (OBJECT, "GET"), (PROGRESS, "PUT")])
def test_connections_are_reset(guest: Guest, path: str, method: str) -> None:
    guest.hub.inject(Fault(Kind.RESET, path, method=method, times=2))
    done(guest.update(load=load()))


@fault("an answer ends too early", "takes the rest by range, then commits")
def test_a_truncated_answer(guest: Guest) -> None:
    guest.hub.inject(Fault(Kind.TRUNCATE, BLOB, number=1000, times=1))
    done(guest.update(load=load()))


@fault("a report or a step arrives twice", "does nothing a second time; the hub gets the same report")
def test_a_step_that_comes_twice(guest: Guest) -> None:
    outcome = guest.update()
    done(outcome)
    with guest.hub.changed:
        guest.hub.step(outcome.rev).progress = {"progress": 0, "status": "NEW"}
    again = guest.ends(outcome.rev, outcome.page)
    done(again)
    assert len(guest.device.boots) == 1, "it booted for a step that it had done"


@fault("the hub shows a wrong certificate", "tells the hub nothing and keeps running; goes on when it is the right one")
def test_a_wrong_certificate(guest: Guest, tmp_path: Path) -> None:
    wrong = context(Certificate(str(tmp_path / "other")))
    right = guest.hub.tls
    mark = guest.device.mark()
    guest.hub.stop()
    guest.hub.tls = wrong
    guest.hub.start()
    rev, page = guest.post()
    said(guest, "link: .*[Cc]ertificate", mark)
    assert guest.served() == guest.page
    assert guest.hub.step(rev).progress["status"] == "NEW"
    guest.hub.stop()
    guest.hub.tls = right
    guest.hub.start()
    done(guest.ends(rev, page))


# -- the hub -------------------------------------------------------------------------------------------------------


@fault("the hub's name cannot be resolved any more: DNS is gone", "says so and runs on; goes on when the name is back")
def test_dns_is_gone(tmp_path: Path) -> None:
    name = "hub.brickless.test"
    hosts = "/proc/1/root/etc/hosts"
    with Guest(tmp_path, CACHE, config={"PH_CREDS_HOST": name}, hosts=(name, SERVICE_ADDRESS)) as one:
        one.wait_for_page(one.page)
        said(one, f"No connection to {name}", 0)
        one.do(f"echo {SERVICE_ADDRESS} {name} >{hosts}")
        one.wait_until_claimed()
        one.do(f"echo >{hosts}; {signal('pv-agent')}")  # what it has open is gone, too
        said(one, f"No connection to {name}", one.device.mark())
        rev, page = one.post(load=load())
        assert one.served() == one.page
        one.do(f"echo {SERVICE_ADDRESS} {name} >{hosts}")
        done(one.ends(rev, page))


@fault("the hub answers 500", "asks again after a pause, then commits")
@pytest.mark.parametrize(("path", "method"), [(STEPS, "GET"), (OBJECT, "GET"), (BLOB, "GET"), (PROGRESS, "PUT")])
def test_the_hub_answers_500(guest: Guest, path: str, method: str) -> None:
    guest.hub.inject(Fault(Kind.STATUS, path, method=method, number=500, text="no", times=2))
    done(guest.update(load=load()))


@fault("the hub answers 429", "waits as long as it is told to, then commits")
def test_the_hub_answers_429(guest: Guest) -> None:
    guest.hub.inject(Fault(Kind.STATUS, STEPS, number=429, headers=(("Retry-After", "2"),), times=2))
    done(guest.update())


@fault("the hub answers garbage", "takes none of it, asks again, then commits")
@pytest.mark.parametrize("path", [STEPS, OBJECT, BLOB])
def test_the_hub_answers_garbage(guest: Guest, path: str) -> None:
    guest.hub.inject(Fault(Kind.GARBAGE, path, text="<html>\x00 log in here", times=1))
    done(guest.update(load=load()))


@fault("an object arrives with other bytes", "throws them away and fetches it again; never installs them")
def test_an_object_with_a_flipped_bit(guest: Guest) -> None:
    guest.hub.inject(Fault(Kind.FLIP, BLOB, number=0, times=1))
    done(guest.update())


@fault("an object never arrives whole", "ends the step as WONTGO or ERROR; the old revision runs on")
def test_an_object_that_is_always_wrong(guest: Guest) -> None:
    guest.hub.inject(Fault(Kind.FLIP, BLOB, number=0, times=None))
    refused(guest.update(), "hash", "object")


@fault("the hub offers an older revision", "refuses it with WONTGO")
def test_an_older_revision(guest: Guest) -> None:
    outcome = guest.update()
    done(outcome)
    with guest.hub.changed:
        older = guest.hub.step(outcome.rev - 1)
        older.progress = {"progress": 0, "status": "NEW"}
    progress = guest.hub.wait_for_status(outcome.rev - 1, "WONTGO", "DONE", "ERROR", timeout_s=WAIT_S)
    assert progress["status"] != "NEW"
    assert guest.served() == outcome.page


@fault("the hub dies in mid-update", "goes on when it is back")
def test_the_hub_dies(guest: Guest) -> None:
    rev, page = guest.post(load=load())
    guest.hub.wait_for_status(rev, "DOWNLOADING", "INPROGRESS", "TESTING", "DONE", timeout_s=WAIT_S)
    guest.hub.stop()
    guest.hub.start()
    done(guest.ends(rev, page))


# -- processes -----------------------------------------------------------------------------------------------------


def slow(guest: Guest) -> None:
    """Both objects of the next step come a byte every two milliseconds: some 20 seconds in all."""
    guest.hub.inject(Fault(Kind.DRIP, BLOB, number=2, times=2))


def _downloading(guest: Guest, rev: int) -> None:
    guest.hub.wait_for_status(rev, "DOWNLOADING", timeout_s=WAIT_S)


def _testing(guest: Guest, rev: int) -> None:
    guest.hub.wait_for_status(rev, "TESTING", timeout_s=WAIT_S)


def _committed(guest: Guest, rev: int) -> None:
    guest.hub.wait_for_status(rev, "DONE", timeout_s=WAIT_S)


@fault("SIGKILL of the agent (while it downloads, while it tests, after the commit)", "it is started again and goes on")
@pytest.mark.parametrize("point", [_downloading, _testing, _committed])
def test_the_agent_is_killed(guest: Guest, point: Callable[[Guest, int], None]) -> None:
    if point is _downloading:
        slow(guest)
    rev, page = guest.post(load=os.urandom(9000))
    point(guest, rev)
    kill(guest, "pv-agent")
    guest.hub.heal()
    done(guest.ends(rev, page))


@fault(
    "SIGKILL of the supervisor (while it downloads, while it tests, after the commit)",
    "it is started again, containers run on",
)
@pytest.mark.parametrize("point", [_downloading, _testing, _committed])
def test_the_supervisor_is_killed(guest: Guest, point: Callable[[Guest, int], None]) -> None:
    if point is _downloading:
        slow(guest)
    rev, page = guest.post(load=os.urandom(9000))
    point(guest, rev)
    kill(guest, "pv-supervisor")
    guest.hub.heal()
    outcome = guest.ends(rev, page)
    assert outcome.message, "no reason was given"


@fault("SIGKILL of a container's monitor", "the container counts as ended: it is started again by its policy")
def test_a_monitor_is_killed(guest: Guest) -> None:
    mark = guest.device.mark()
    with suppress(httpx.HTTPError, BricklessError):  # the door is in one of the containers that go
        guest.do(signal("lxc-start"))
    # A supervisor that is itself being started again finds it gone, and starts it.
    said(guest, "container web (RECOVERING|STOPPED|STARTED)", mark)
    guest.wait_for_page(guest.page)


@fault("SIGKILL of PID 1 from inside", "the kernel does not deliver it")
def test_pid_1_cannot_be_killed(guest: Guest) -> None:
    guest.do("kill -9 1")
    assert guest.served() == guest.page


# -- memory --------------------------------------------------------------------------------------------------------


@fault("the OOM killer takes each of our processes in turn", "each is started again, the device updates on")
@pytest.mark.parametrize("name", ["pv-agent", "pv-supervisor", "lxc-start"])
def test_the_oom_killer_takes(guest: Guest, name: str) -> None:
    mark = guest.device.mark()
    with suppress(httpx.HTTPError, BricklessError):  # with its monitor the container goes that has the door
        answer = guest.do(
            "busybox mkdir -p /tmp/p; busybox mount -t proc proc /tmp/p; for p in /proc/[0-9]*; do "
            f'[ "$(cat $p/comm 2>/dev/null)" = {name} ] && echo 1000 >$p/oom_score_adj; done; '
            "echo f >/tmp/p/sysrq-trigger; busybox umount /tmp/p; echo asked"
        )
        assert answer.strip().endswith("asked"), answer
    said(guest, f"Out of memory.*{name}|oom-kill.*{name}|Killed process.*{name}", mark)
    guest.wait_for_page(guest.page)


# -- time ----------------------------------------------------------------------------------------------------------


@fault("the clock jumps years back or forth", "nothing depends on it: the update is committed")
@pytest.mark.parametrize("years", [-5, 5])
def test_the_clock_jumps(guest: Guest, years: int) -> None:
    rev, page = guest.post(load=load())
    assert guest.do(f"busybox date -s @{int(time.time()) + years * YEAR_S}")
    done(guest.ends(rev, page))
    # By the host's clock: the device may have put its own right meanwhile.
    guest.do(f"busybox date -s @{int(time.time())}")


# -- space ---------------------------------------------------------------------------------------------------------


@fault("the disk is full when an update comes", "refuses with the bytes it needs and has; goes on once there is room")
def test_a_full_disk(guest: Guest) -> None:
    fill = "busybox dd if=/dev/zero bs=64k >>/data/fill; busybox sync"
    guest.do(fill)
    # What earlier updates left is collected when room is needed: the first may find some. The next needs more than one
    # revision leaves.
    first = guest.update(load=load())
    assert first.status in {"DONE", "WONTGO", "ERROR"}, first
    guest.do(fill)
    refused(guest.update(load=os.urandom(3 * LOAD_BYTES)), "pace", "No space", "room")
    guest.do("busybox rm /data/fill; busybox sync")


@fault("the disk fills up while an update is downloaded", "gives up with a reason or finishes; never half of it")
def test_a_disk_that_fills_up_in_mid_download(guest: Guest) -> None:
    guest.hub.inject(Fault(Kind.DRIP, BLOB, number=6, times=2))
    rev, page = guest.post(load=os.urandom(9000))
    _downloading(guest, rev)
    guest.do("busybox dd if=/dev/zero of=/data/fill bs=64k; busybox sync")
    guest.hub.heal()
    outcome = guest.ends(rev, page)
    assert outcome.message, outcome
    guest.do("busybox rm /data/fill; busybox sync")
