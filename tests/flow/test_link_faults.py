"""The agent as a real process against a hub that misbehaves (contracts/device.md 4).

Each fault ends in the status that the contract names, with a reason; the running revision is untouched and the agent
lives.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from brickless.core.progress import Message, Progress, Status
from brickless.testkit.agent import SimulatedDevice, state_of
from brickless.testkit.hub_simulator import Fault, HubSimulator, Kind

ROOT = bytes(range(256)) * 4000


def fresh() -> bytes:
    """About a megabyte that no device has yet."""
    return ROOT + os.urandom(16)


BLOB, STEPS, OBJECT = "/local-s3/", "/steps", "/objects/"


@contextmanager
def running(folder: Path) -> Iterator[SimulatedDevice]:
    """A hub and a claimed device that runs its factory revision."""
    with HubSimulator() as simulator:
        simulator.auto_claim = True
        with SimulatedDevice(folder, simulator, PV_REVISION_RETRIES="2") as simulated:
            simulator.wait_for(lambda h: 0 in h.steps[h.device.id], what="the factory revision at the hub")
            yield simulated


@pytest.fixture(scope="module")
def lasting_device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedDevice]:
    """One device for all faults that it gets over: what it went through before must not matter."""
    with running(tmp_path_factory.mktemp("lasting")) as simulated:
        yield simulated


@pytest.fixture
def lasting(lasting_device: SimulatedDevice) -> Iterator[SimulatedDevice]:
    yield lasting_device
    lasting_device.hub.heal()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[SimulatedDevice]:
    """A device of its own, for tests that end it, or take its hub away."""
    with running(tmp_path) as simulated:
        yield simulated


@pytest.fixture
def hub(device: SimulatedDevice) -> HubSimulator:
    return device.hub


class Untouched:
    """What every fault must leave: the running revision, byte for byte, still running, and an agent that lives."""

    def __init__(self, device: SimulatedDevice) -> None:
        self._device = device
        self._rev = device.storage.current() or ""
        self._before = device.snapshot(self._rev)

    def check(self) -> None:
        device = self._device
        assert device.alive, device.log
        assert device.storage.current() == self._rev
        assert device.snapshot(self._rev) == self._before
        assert device.storage.verify(self._rev) == []


def refused(hub: HubSimulator, device: SimulatedDevice, rev: int, message: str, reason: str) -> None:
    """The step ended as WONTGO with this message; the reason for people is in its log and in the agent's."""
    progress = device.ends(rev)
    assert (progress["status"], progress["status-msg"]) == ("WONTGO", message), progress
    assert reason in json.loads(progress["logs"].splitlines()[-1])["msg"]
    assert reason in device.log
    assert device.progress(rev)["status"] == "WONTGO"
    assert str(rev) not in device.supervisor.tried


def works_again(hub: HubSimulator, device: SimulatedDevice) -> None:
    """After the fault the next good step goes through."""
    hub.heal()
    rev = hub.post(state_of(hub, b"good" * 1000 + os.urandom(8)))
    assert device.ends(rev)["status"] == "DONE"
    assert device.storage.current() == str(rev)
    assert device.storage.verify(str(rev)) == []
    assert device.alive


@pytest.mark.parametrize(
    "fault",
    [
        Fault(Kind.CUT, BLOB, number=300_000),
        Fault(Kind.TRUNCATE, BLOB, number=300_000),
        Fault(Kind.RESET, BLOB),
        Fault(Kind.STALL, BLOB),
        Fault(Kind.FLIP, BLOB, number=500_000),
        Fault(Kind.LENGTH, BLOB, number=7),
        Fault(Kind.LENGTH, BLOB, number=-7),
        Fault(Kind.STATUS, BLOB, number=500),
        Fault(Kind.STATUS, BLOB, number=403),
        Fault(Kind.REDIRECT, BLOB, text="http://127.0.0.1:1/elsewhere"),
        Fault(Kind.GARBAGE, BLOB, text="<html>login here</html>"),
        Fault(Kind.HUGE, BLOB, number=3_000_000),
        Fault(Kind.STATUS, OBJECT, number=500),
        Fault(Kind.GARBAGE, OBJECT, text="{"),
        Fault(Kind.STALL, OBJECT),
        Fault(Kind.GARBAGE, STEPS, text="<html>"),
        Fault(Kind.STATUS, STEPS, number=503, headers=(("Retry-After", "1"),)),
        Fault(Kind.STATUS, STEPS, number=429, headers=(("Retry-After", "1"),)),
        Fault(Kind.STATUS, STEPS, number=401, text='{"Error":"Not Authorized"}'),
        Fault(Kind.HUGE, STEPS, number=5_000_000),
        Fault(Kind.REDIRECT, STEPS, text="http://127.0.0.1:1/elsewhere"),
        Fault(Kind.RESET, "/progress", method="PUT"),
        Fault(Kind.STATUS, "/progress", method="PUT", number=500),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.path.strip('/')}-{fault.number or fault.text[:8]}",
)
def test_a_fault_that_passes_is_got_over(lasting: SimulatedDevice, fault: Fault) -> None:
    device, hub = lasting, lasting.hub
    hub.inject(fault)
    rev = hub.post(state_of(hub, fresh()))
    progress = device.ends(rev)
    assert progress["status"] == "DONE", (progress, device.log)
    assert device.storage.verify(str(rev)) == []
    assert device.alive


def test_a_network_cut_in_mid_download_is_resumed_where_it_broke_off(lasting: SimulatedDevice) -> None:
    device, hub = lasting, lasting.hub
    began = len(hub.requests)
    hub.inject(Fault(Kind.CUT, BLOB, number=400_000, times=2))
    rev = hub.post(state_of(hub, fresh()))
    assert device.ends(rev)["status"] == "DONE", device.log
    ranges = [r.headers["range"] for r in hub.requests[began:] if "range" in r.headers]
    assert len(ranges) == 2
    assert all(int(value.removeprefix("bytes=").rstrip("-")) > 0 for value in ranges)


def test_a_server_without_ranges_costs_a_download_from_the_start(lasting: SimulatedDevice) -> None:
    device, hub = lasting, lasting.hub
    hub.inject(Fault(Kind.CUT, BLOB, number=400_000), Fault(Kind.IGNORE_RANGE, BLOB))
    rev = hub.post(state_of(hub, fresh()))
    assert device.ends(rev)["status"] == "DONE", device.log
    assert device.storage.verify(str(rev)) == []


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(Kind.TRUNCATE, BLOB, number=0, times=None), "before the end of the answer"),
        (Fault(Kind.FLIP, BLOB, number=77, times=None), "arrived with the hash"),
        (Fault(Kind.STATUS, BLOB, number=403, times=None), "was answered with 403"),
        (Fault(Kind.REDIRECT, BLOB, text="http://127.0.0.1:1/", times=None), "was answered with 302"),
    ],
    ids=["truncated", "bit-flipped", "address-refused", "redirected"],
)
def test_an_object_that_never_comes_whole_ends_the_step(lasting: SimulatedDevice, fault: Fault, reason: str) -> None:
    device, hub, untouched = lasting, lasting.hub, Untouched(lasting)
    hub.inject(fault)
    rev = hub.post(state_of(hub, fresh()))
    refused(hub, device, rev, Message.MAX_DOWNLOADS, reason)
    untouched.check()
    works_again(hub, device)


def test_a_step_that_names_a_missing_object(lasting: SimulatedDevice) -> None:
    device, hub, untouched = lasting, lasting.hub, Untouched(lasting)
    state = state_of(hub, fresh()) | {"web/lost.bin": "ab" * 32}
    rev = hub.post(state)
    refused(hub, device, rev, Message.MAX_DOWNLOADS, "web/lost.bin: the hub has no object abab")
    untouched.check()
    works_again(hub, device)


@pytest.mark.parametrize(
    ("state", "message", "reason"),
    [
        ('{"#spec":"pantavisor-service-system@1",', Message.BAD_STATE, "JSON"),
        ("{nonsense}", Message.BAD_STATE, "JSON"),
        ("[]", Message.BAD_STATE, ""),
        ("null", Message.BAD_STATE, ""),
        ("{}", Message.BAD_STATE, "#spec"),
        ('{"#spec":"elsewhere@9"}', Message.BAD_STATE, "elsewhere@9"),
        ('{"#spec":"pantavisor-service-system@1","../../etc/passwd":"' + "ab" * 32 + '"}', Message.BAD_STATE, ".."),
        (
            '{"#spec":"pantavisor-service-system@1","web/root.squashfs":"no hash"}',
            Message.BAD_STATE,
            "web/root.squashfs",
        ),
        ('{"#spec":"pantavisor-service-system@1","a/run.json":{"name":5}}', Message.BAD_STATE, "a/run.json"),
    ],
    ids=["cut-off", "no-json", "list", "null", "empty", "unknown-spec", "escaping-path", "no-hash", "bad-manifest"],
)
def test_a_step_with_a_broken_state(lasting: SimulatedDevice, state: str, message: str, reason: str) -> None:
    device, hub, untouched = lasting, lasting.hub, Untouched(lasting)
    rev = hub.post(state)
    refused(hub, device, rev, message, reason)
    assert device.storage.state_bytes(str(rev)).startswith(state[:4].encode())
    untouched.check()
    works_again(hub, device)


def test_a_step_without_any_state(hub: HubSimulator, device: SimulatedDevice) -> None:
    untouched = Untouched(device)
    with hub.changed:
        hub.steps_answer = '[{"rev":1,"progress":{"status":"NEW"}}]'
        hub.post("{}")
    refused(hub, device, 1, Message.NO_STATE, "no state")
    untouched.check()


def test_the_hub_restarted_in_mid_update(hub: HubSimulator, device: SimulatedDevice) -> None:
    hub.inject(Fault(Kind.DRIP, BLOB, number=20))
    rev = hub.post(state_of(hub, fresh()))
    device.ends(rev, "DOWNLOADING")
    hub.stop()
    hub.heal()
    hub.start()
    assert device.ends(rev)["status"] == "DONE", device.log
    assert device.storage.verify(str(rev)) == []
    assert device.alive


def test_a_disk_that_is_too_small(lasting: SimulatedDevice) -> None:
    device, hub, untouched = lasting, lasting.hub, Untouched(lasting)
    state = state_of(hub, fresh())
    hub.size_lies[state["web/root.squashfs"]] = str(10**12)
    available = device.storage.free_bytes()
    fetched = hub.counted("GET", BLOB)
    rev = hub.post(state)
    progress = device.ends(rev)
    words = progress["status-msg"].split()
    assert progress["status"] == "WONTGO"
    assert words[:2] + words[3:5] == ["Space", "required", "B,", "available"]
    assert int(words[2]) == 10**12
    assert 0 < int(words[5]) < available
    assert hub.counted("GET", BLOB) == fetched, "nothing is fetched that cannot fit"
    untouched.check()
    works_again(hub, device)


def test_a_size_that_is_a_lie_is_noticed(lasting: SimulatedDevice) -> None:
    device, hub, untouched = lasting, lasting.hub, Untouched(lasting)
    state = state_of(hub, fresh())
    hub.size_lies[state["web/root.squashfs"]] = "1000"
    rev = hub.post(state)
    refused(hub, device, rev, Message.MAX_DOWNLOADS, "bytes, not 1000")
    untouched.check()


def test_expired_sessions_are_renewed(lasting: SimulatedDevice) -> None:
    device, hub = lasting, lasting.hub
    hub.expire_tokens()
    rev = hub.post(state_of(hub, fresh()))
    device.ends(rev, "DONE")
    assert hub.counted("POST", "/auth/login") >= 2


def test_an_expired_address_is_asked_for_again(lasting: SimulatedDevice) -> None:
    device, hub = lasting, lasting.hub
    fetched = hub.counted("GET", BLOB)
    hub.inject(Fault(Kind.CUT, BLOB, number=200_000))
    rev = hub.post(state_of(hub, fresh()))
    hub.wait_for(lambda h: h.counted("GET", BLOB) > fetched, what="a first download")
    hub.expire_urls()
    assert device.ends(rev)["status"] == "DONE", device.log


def test_a_step_listed_twice_and_an_older_one_behind_it(hub: HubSimulator, device: SimulatedDevice) -> None:
    rev = hub.post(state_of(hub, b"one"))
    assert rev == 1
    second = hub.post(state_of(hub, b"two"))
    device.ends(second, "DONE")
    assert device.supervisor.tried == ["1", "2"], "each is tried once, in order"
    with hub.changed:  # the hub forgets, and offers the first one as new again
        hub.step(rev).progress = {"status": "NEW", "progress": 0}
        reports = len(hub.step(rev).reports)
    hub.wait_for(lambda h: len(h.step(rev).reports) > reports, what="the old step's report, again")
    assert hub.step(rev).progress["status"] == "DONE"
    assert device.supervisor.tried == ["1", "2"]
    assert device.storage.current() == "2"


def test_a_step_older_than_the_running_revision_is_refused(hub: HubSimulator, device: SimulatedDevice) -> None:
    hub.post(state_of(hub, b"one"))
    last = hub.post(state_of(hub, b"two"))
    device.ends(last, "DONE")
    device.stop()
    device.storage.remove("1")
    with hub.changed:
        hub.step(1).progress = {"status": "NEW", "progress": 0}
    device.start()
    progress = device.ends(1, "WONTGO")
    assert progress["status-msg"] == Message.STALE
    assert device.storage.current() == "2"


def test_only_the_newest_where_configured(tmp_path: Path) -> None:
    with HubSimulator() as hub, SimulatedDevice(tmp_path, hub, PH_UPDATER_SKIP_TO_NEWEST="1") as device:
        hub.wait_for(lambda h: h.device)
        hub.claim()
        hub.wait_for(lambda h: 0 in h.steps[h.device.id])
        device.kill()
        for number in range(3):
            hub.post(state_of(hub, b"%d" % number))
        device.start()
        assert device.ends(3)["status"] == "DONE"
        assert [hub.step(rev).progress["status-msg"] for rev in (1, 2)] == [Message.STALE, Message.STALE]
        assert "revision 3 takes its place" in hub.step(1).progress["logs"]
        assert device.supervisor.tried == ["3"]


def test_killed_in_mid_download_it_goes_on_where_it_was(hub: HubSimulator, device: SimulatedDevice) -> None:
    hub.inject(Fault(Kind.CUT, BLOB, number=600_000), Fault(Kind.STALL, BLOB))
    rev = hub.post(state_of(hub, fresh()))
    hub.wait_for(lambda h: h.counted("GET", BLOB) >= 2, what="a download that stalls")
    device.kill()
    hub.heal()
    device.start(PV_REVISION_RETRIES="10")
    assert device.ends(rev)["status"] == "DONE", device.log
    assert device.progress(rev)["status"] == "DONE"
    first = next(r for r in reversed(hub.requests) if "/local-s3/" in r.path)
    assert int(first.headers["range"].removeprefix("bytes=").rstrip("-")) > 0


def test_too_many_interrupted_attempts_end_the_step(hub: HubSimulator, device: SimulatedDevice) -> None:
    rev = hub.post(state_of(hub, fresh()), device_id=None)
    device.ends(rev, "DONE")
    device.kill()
    rev = hub.post(state_of(hub, b"another"))
    interrupted = Progress.of(Status.DOWNLOADING, Message.DOWNLOADING % (2, 2), retries=2)
    device.storage.write_state(str(rev), b"{}")
    device.storage.write_progress(str(rev), interrupted.to_json())
    device.start()
    progress = device.ends(rev, "WONTGO")
    assert progress["status-msg"] == Message.MAX_RETRIES
    assert device.storage.current() == "1"


def test_what_the_supervisor_says_reaches_the_hub(lasting: SimulatedDevice) -> None:
    device, hub, untouched = lasting, lasting.hub, Untouched(lasting)
    device.supervisor.script = (
        Progress.of(Status.INPROGRESS, Message.TRANSITIONING),
        Progress.of(Status.ERROR, Message.CONTAINER_FAILED, logs='{"msg":"web exited with 1"}\n'),
    )
    rev = hub.post(state_of(hub, fresh()))
    progress = device.ends(rev, "ERROR")
    assert progress["status-msg"] == Message.CONTAINER_FAILED
    assert "web exited with 1" in progress["logs"]
    untouched.check()


def test_a_supervisor_that_is_being_started_again_is_waited_for(hub: HubSimulator, device: SimulatedDevice) -> None:
    device.supervisor.stop()
    rev = hub.post(state_of(hub, fresh()))
    hub.wait_for(
        lambda h: f"revision {rev} waits" in device.log or h.step(rev).progress["status"] == "DONE", timeout_s=5
    )
    device.supervisor.start()
    device.ends(rev, "DONE")


def test_a_final_report_survives_a_dead_hub_and_a_restart(hub: HubSimulator, device: SimulatedDevice) -> None:
    device.supervisor.hold.clear()
    rev = hub.post(state_of(hub, fresh()))
    device.ends(rev, "INPROGRESS")
    hub.stop()
    device.supervisor.hold.set()
    device.supervisor.stop()
    assert device.progress(rev)["status"] == "DONE"
    device.kill()
    hub.start()
    device.start()
    device.ends(rev, "DONE")
    _poll((Path(device.storage.revision_dir(str(rev))) / ".pv/reported").exists)
    reports = len(hub.step(rev).reports)
    device.kill()
    device.start()
    polls = hub.counted("GET", STEPS)
    hub.wait_for(lambda h: h.counted("GET", STEPS) >= polls + 2, what="two more polls")
    assert len(hub.step(rev).reports) == reports, "an acknowledged report is not repeated"


def test_the_supervisor_is_told_whether_the_hub_can_be_reached(hub: HubSimulator, device: SimulatedDevice) -> None:
    hub.stop()
    told: list[bool] = device.supervisor.reachable

    _poll(lambda: told[-1:] == [False])
    hub.start()
    _poll(lambda: told[-1] is True)


def _poll(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
