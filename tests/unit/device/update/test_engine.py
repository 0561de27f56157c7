"""The agent's part of an update against a hub of a few lines: space, garbage, order, restarts; one end each."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from brickless.core.progress import Message, Progress, Status
from brickless.core.state import parse_state
from brickless.device import config as configuration
from brickless.device.config import Config
from brickless.device.link.http import Address, HubUnreachableError, Transport
from brickless.device.link.hub import Hub, HubRefusedError
from brickless.device.link.reports import Reports
from brickless.device.link.supervisor import Supervisor, SupervisorError
from brickless.device.link.wakeup import Wakeup
from brickless.device.link.wire import ObjectInfo, RemoteStep
from brickless.device.update.engine import Engine
from brickless.store.trails import Storage
from brickless.testkit.agent import FACTORY_STATE
from brickless.testkit.hub_simulator import HubSimulator

TRYING = Progress.of(Status.INPROGRESS, Message.TRANSITIONING)


class SmallStorage(Storage):
    """A storage whose partition has `size` bytes, of which the objects take theirs."""

    size = 10**9

    def total_bytes(self) -> int:
        return self.size

    def free_bytes(self) -> int:
        return self.size - sum(path.stat().st_size for path in Path(self.objects.root).iterdir())


class FakeHub(Hub):
    """Object addresses from a simulated hub, without a login; it may be away."""

    def __init__(self, simulator: HubSimulator) -> None:
        super().__init__(Address("http", simulator.host, simulator.port), Transport(2.0, self._no_tls))
        self.simulator = simulator
        self.away = False
        self.asked: list[str] = []

    @staticmethod
    def _no_tls() -> Any:
        raise AssertionError("no TLS here")

    def object_info(self, sha: str) -> ObjectInfo:
        self.asked.append(sha)
        if self.away:
            raise HubUnreachableError("nobody there")
        if sha not in self.simulator.objects:
            raise HubRefusedError("no", 404)
        self.simulator._signed[sha[:12]] = ("GET", sha)
        return ObjectInfo(sha, len(self.simulator.objects[sha]), f"{self.simulator.url}/local-s3/{sha[:12]}")


class FakeSupervisor(Supervisor):
    """Takes revisions, or is away."""

    def __init__(self) -> None:
        super().__init__("/nowhere")
        self.tried: list[str] = []
        self.away = False

    def try_revision(self, rev: str) -> None:
        if self.away:
            raise SupervisorError("nobody there")
        self.tried.append(rev)


class Bench:
    """An engine with all that it needs; every pause is over at once."""

    def __init__(self, folder: Path, simulator: HubSimulator) -> None:
        self.storage = SmallStorage(str(folder))
        self.storage.prepare()
        self.hub = FakeHub(simulator)
        self.config = Config()
        self.config.put(configuration.META, "PV_REVISION_RETRIES", "3")
        self.config.put(configuration.META, "PV_STORAGE_GC_RESERVED", "0")
        self.supervisor = FakeSupervisor()
        self.said: list[str] = []
        self.wakeup = Wakeup()
        self.now_s = 0.0
        self.install("0", b"factory", Status.DONE)
        self.restart()

    def restart(self) -> None:
        """As if the agent had been killed."""
        self.reports = Reports(self.storage, self.said.append)
        self.engine = Engine(
            self.storage,
            self.config,
            self.hub,
            self.supervisor,
            self.reports,
            private=f"{self.storage.root}.private",
            wake=self.wakeup.wake,
            report=self.said.append,
        )

    def state(self, root: bytes) -> bytes:
        state = dict(FACTORY_STATE)
        state["web/lxc.container.conf"] = hashlib.sha256(b"config").hexdigest()
        state["web/root.squashfs"] = hashlib.sha256(root).hexdigest()
        return json.dumps(state).encode()

    def install(self, rev: str, root: bytes, status: Status) -> None:
        """A revision that is there already, and ran."""
        self.storage.objects.add([b"config"])
        self.storage.objects.add([root])
        self.storage.install(rev, parse_state(self.state(root)))
        self.storage.write_progress(rev, Progress.of(status, "").to_json())
        if status is Status.DONE:
            self.storage.mark_done(rev)
            self.storage.set_current(rev)

    def offer(self, *steps: tuple[str, bytes]) -> None:
        """What a poll gives: steps whose root file the hub has."""
        for _, root in steps:
            self.hub.simulator.add_object(root)
        self.hub.simulator.add_object(b"config")
        self.engine.offer([RemoteStep(rev, self.state(root), "", 0) for rev, root in steps], self.now_s)

    def work(self, until: Callable[[], object]) -> None:
        """Turns until something is so."""
        deadline = time.monotonic() + 10
        while not until():
            assert time.monotonic() < deadline, self.said
            self.engine.hurry()
            with contextlib.suppress(HubUnreachableError, HubRefusedError):
                self.engine.turn(self.now_s)
            self.wakeup.wait(0.01)
            self.now_s += 0.01

    def work_until_tried(self, rev: str) -> None:
        self.work(lambda: self.supervisor.tried[-1:] == [rev])

    def progress(self, rev: str) -> Progress:
        found = self.reports.of(rev)
        assert found is not None
        return found

    def end(self, rev: str) -> Progress:
        self.work(lambda: self.progress(rev).is_final)
        assert self.engine.active_rev is None
        return self.progress(rev)


@pytest.fixture
def simulator() -> Iterator[HubSimulator]:
    with HubSimulator() as running:
        yield running


@pytest.fixture
def bench(tmp_path: Path, simulator: HubSimulator) -> Iterator[Bench]:
    made = Bench(tmp_path, simulator)
    yield made
    made.engine.stop()
    made.wakeup.close()


def test_a_step_is_fetched_installed_and_handed_over(bench: Bench) -> None:
    bench.offer(("1", b"one" * 1000))
    bench.work_until_tried("1")
    assert bench.storage.verify("1") == []
    assert bench.progress("1").status is Status.DOWNLOADING, "from here on the progress is the supervisor's"
    assert bench.engine.in_trial


def test_the_state_reaches_the_disk_byte_for_byte(bench: Bench) -> None:
    raw = b' {"#spec" :"pantavisor-service-system@1",\t"note.json": {"b":1.50,"a":"\\u00e4"} }\n'
    bench.engine.offer([RemoteStep("1", raw, "", 0)], 0.0)
    bench.work(lambda: bench.engine.active_rev is None or bench.supervisor.tried)
    assert bench.storage.state_bytes("1") == raw


def test_old_revisions_make_room(bench: Bench) -> None:
    for rev in ("1", "2", "3"):
        bench.install(rev, rev.encode() * 100_000, Status.DONE)
    for rev in ("1", "2", "3"):  # the hub has heard of them
        (Path(bench.storage.revision_dir(rev)) / ".pv/reported").write_bytes(
            hashlib.sha256(bench.storage.progress(rev) or b"").hexdigest().encode()
        )
    bench.install("4", b"4" * 100_000, Status.ERROR)
    bench.restart()
    bench.storage.size = 500_000
    bench.offer(("5", b"5" * 200_000))
    bench.work_until_tried("5")
    kept = bench.storage.revisions()
    assert kept == ["0", "3", "4", "5"], "factory, running, what the hub has not heard of yet, this one"
    assert bench.storage.verify("5") == bench.storage.verify("3") == bench.storage.verify("0") == []


def test_what_cannot_fit_is_refused_before_a_byte_is_fetched(bench: Bench) -> None:
    bench.storage.size = 150_000
    bench.offer(("1", b"1" * 200_000))
    end = bench.end("1")
    assert end.status is Status.WONTGO
    assert end.message == Message.NO_SPACE % (200_000, bench.storage.free_bytes())
    assert bench.hub.simulator.requests == []
    assert bench.storage.current() == "0"


def test_what_an_interrupted_download_left_needs_no_room(bench: Bench) -> None:
    root = b"1" * 200_000
    with bench.storage.objects.partial(hashlib.sha256(root).hexdigest()) as partial:
        partial.append(root[:150_000])
    bench.storage.size = 250_000
    bench.offer(("1", root))
    bench.work_until_tried("1")
    assert bench.storage.verify("1") == []


def test_nothing_is_asked_of_the_hub_when_all_is_there(bench: Bench) -> None:
    bench.offer(("1", b"factory"))
    bench.work_until_tried("1")
    assert bench.hub.asked == []


def test_a_hub_that_is_away_costs_no_attempt(bench: Bench) -> None:
    bench.hub.away = True
    bench.offer(("1", b"one"))
    bench.work(lambda: len(bench.hub.asked) > 20)
    bench.hub.away = False
    bench.work_until_tried("1")
    assert bench.progress("1").retries == 1


def test_an_object_that_the_hub_does_not_have(bench: Bench) -> None:
    state = json.loads(bench.state(b"one")) | {"web/lost": "ab" * 32}
    bench.hub.simulator.add_object(b"one")
    bench.engine.offer([RemoteStep("1", json.dumps(state).encode(), "", 0)], 0.0)
    end = bench.end("1")
    assert (end.status, end.message) == (Status.WONTGO, Message.MAX_DOWNLOADS)
    assert "web/lost: the hub has no object abab" in end.logs


def test_attempts_are_counted_across_restarts(bench: Bench) -> None:
    for attempt in (1, 2):
        bench.offer(("1", b"one"))
        assert bench.progress("1").retries == attempt
        bench.restart()
    bench.offer(("1", b"one"))
    end = bench.end("1")
    assert (end.status, end.message, end.retries) == (Status.WONTGO, Message.MAX_RETRIES, 3)


def test_the_hub_s_count_stands_in_for_a_lost_one(bench: Bench) -> None:
    bench.engine.offer([RemoteStep("1", bench.state(b"one"), "", 2)], 0.0)
    assert bench.end("1").message == Message.MAX_RETRIES


def test_one_at_a_time_in_order(bench: Bench) -> None:
    bench.offer(("1", b"one"), ("2", b"two"))
    bench.work_until_tried("1")
    bench.offer(("1", b"one"), ("2", b"two"))
    assert bench.supervisor.tried == ["1"]
    bench.install("1", b"one", Status.DONE)
    bench.work(lambda: bench.engine.active_rev is None)
    bench.offer(("1", b"one"), ("2", b"two"))
    bench.work_until_tried("2")


def test_a_newer_step_takes_the_place_of_one_that_is_being_fetched(bench: Bench) -> None:
    bench.config.put(configuration.META, "PH_UPDATER_SKIP_TO_NEWEST", "1")
    bench.offer(("1", b"one"))
    bench.offer(("1", b"one"), ("2", b"two"))
    bench.offer(("1", b"one"), ("2", b"two"))
    bench.work_until_tried("2")
    assert (bench.progress("1").status, bench.progress("1").message) == (Status.WONTGO, Message.STALE)


def test_but_not_of_one_that_is_being_tried(bench: Bench) -> None:
    bench.config.put(configuration.META, "PH_UPDATER_SKIP_TO_NEWEST", "1")
    bench.offer(("1", b"one"))
    bench.work_until_tried("1")
    bench.storage.write_progress("1", TRYING.to_json())
    bench.offer(("1", b"one"), ("2", b"two"))
    assert bench.engine.active_rev == "1"
    assert bench.progress("1").status is Status.INPROGRESS


def test_a_trial_is_found_again_after_a_restart(bench: Bench) -> None:
    bench.offer(("1", b"one"))
    bench.work_until_tried("1")
    bench.storage.write_progress("1", TRYING.to_json())
    bench.restart()
    assert bench.engine.active_rev == "1"
    assert bench.engine.in_trial
    bench.offer(("1", b"one"))
    assert bench.supervisor.tried == ["1"], "it is the supervisor's"
    bench.storage.write_progress("1", Progress.of(Status.ERROR, Message.GOAL_NOT_REACHED).to_json())
    bench.work(lambda: bench.engine.active_rev is None)
    assert bench.reports.owed == {"1"}


def test_a_trial_that_never_began_is_taken_up_again_from_the_list(bench: Bench) -> None:
    bench.offer(("1", b"one"))
    bench.work_until_tried("1")
    bench.storage.write_progress("1", TRYING.to_json())
    bench.restart()
    bench.storage.write_progress("1", Progress.of(Status.QUEUED, Message.QUEUED % (1, 10), retries=1).to_json())
    bench.work(lambda: bench.engine.active_rev is None)
    bench.supervisor.tried.clear()
    bench.offer(("1", b"one"))
    bench.work_until_tried("1")
    assert bench.progress("1").retries == 2


def test_a_supervisor_that_is_away_is_asked_again(bench: Bench) -> None:
    bench.supervisor.away = True
    bench.offer(("1", b"one"))
    bench.work(lambda: any("waits" in line for line in bench.said))
    bench.supervisor.away = False
    bench.work_until_tried("1")
    assert sum("waits" in line for line in bench.said) == 1, "said once"


def test_a_broken_progress_on_disk_counts_as_none(bench: Bench) -> None:
    bench.storage.write_state("1", b"{}")
    bench.storage.write_progress("1", b"\x00garbage")
    bench.restart()
    bench.offer(("1", b"one"))
    bench.work_until_tried("1")


def test_a_state_that_changed_at_the_hub_is_taken_anew(bench: Bench) -> None:
    bench.offer(("1", b"one"))
    bench.restart()
    bench.offer(("1", b"another"))
    bench.work_until_tried("1")
    assert bench.storage.state_bytes("1") == bench.state(b"another")
    assert bench.storage.verify("1") == []


def test_a_lost_progress_of_the_running_revision_is_told_from_its_mark(bench: Bench) -> None:
    bench.install("1", b"one", Status.DONE)
    bench.storage.write_progress("1", b"")
    bench.restart()
    bench.offer(("1", b"one"))
    assert bench.progress("1").status is Status.DONE
    assert bench.supervisor.tried == []


def test_a_step_from_before_the_running_revision_is_stale(bench: Bench) -> None:
    bench.install("5", b"five", Status.DONE)
    bench.offer(("3", b"three"))
    assert (bench.progress("3").status, bench.progress("3").message) == (Status.WONTGO, Message.STALE)
