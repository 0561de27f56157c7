"""A hub that restarts, or ends, while clients call it: no request is lost; and what stands in front of it."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import httpx
import pytest

from brickless.testkit.hub import HubProcess, running_hub
from brickless.testkit.hub_client import Caller, claimed_device


class Load:
    """Clients that poll and write without a pause, on connections that they keep; whatever fails is kept, too."""

    def __init__(self, hub: HubProcess) -> None:
        self.hub = hub
        self.failures: list[str] = []
        self.answered = 0
        self.finished = threading.Event()
        with httpx.Client(base_url=hub.url) as client:
            user = Caller(client).login("user1", "user1")
            self.devices = [claimed_device(user).start_trail() for _ in range(4)]
        self.threads = [threading.Thread(target=self.work, args=(number,)) for number in range(4)]

    def work(self, number: int) -> None:
        device = self.devices[number]
        with httpx.Client(base_url=self.hub.url, timeout=60) as client:
            caller, count = Caller(client, device.token), 0
            while not self.finished.is_set():
                count += 1
                try:
                    answers = [
                        caller.get(f"/trails/{device.id}/steps"),
                        caller.put(f"/devices/{device.id}/device-meta", {"count": count}),
                    ]
                except httpx.TransportError as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
                    continue
                self.failures += [answer.text for answer in answers if answer.status_code != 200]
                self.answered += len(answers)

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finished.set()
        for thread in self.threads:
            thread.join()

    def until_answered(self, more: int) -> None:
        wanted = self.answered + more
        while self.answered < wanted:
            assert any(thread.is_alive() for thread in self.threads)
            self.finished.wait(0.01)


def test_a_restart_loses_no_request_and_keeps_port_and_process(tmp_path: Path) -> None:
    with running_hub(str(tmp_path / "data"), arguments=["--no-rate-limits"]) as hub, Load(hub) as load:
        assert hub.process is not None
        pid = hub.process.pid
        for _ in range(3):
            load.until_answered(200)
            hub.process.signal(signal.SIGHUP)
            hub.until_ready()
        load.until_answered(200)
        assert load.failures == []
        assert (hub.process.pid, hub.process.poll()) == (pid, None)
        load.finished.set()
    assert "Traceback" not in hub.log()


def test_a_restart_takes_the_new_keys(tmp_path: Path) -> None:
    from brickless.hub.adapters.keys import rotate

    with running_hub(str(tmp_path / "data")) as hub, httpx.Client(base_url=hub.url, timeout=60) as client:
        token = Caller(client).login("user1", "user1")
        rotate(str(Path(hub.data_dir) / "keys"))
        assert hub.process is not None
        hub.process.signal(signal.SIGHUP)
        hub.until_ready()
        assert token.get("/devices/").status_code == 200
        assert Caller(client).login("user1", "user1").token.rpartition(".")[2] != token.token.rpartition(".")[2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_end_answers_what_is_under_way(tmp_path: Path, number: signal.Signals) -> None:
    with running_hub(str(tmp_path / "data"), arguments=["--no-rate-limits"]) as hub:
        with Load(hub) as load:
            load.until_answered(100)
            assert hub.process is not None
            hub.process.signal(number)
            assert hub.process.wait(60) == 0
            load.finished.set()
        # Whoever connects after the end is refused; nobody's request was cut off on its way.
        assert [failure for failure in load.failures if "refused" not in failure] == []


def test_only_a_trusted_proxy_says_who_called(tmp_path: Path) -> None:
    said = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
    for trusted, address, scheme in (("", "127.0.0.1", "http"), ("127.0.0.0/8", "192.0.2.7", "https")):
        arguments = ["--trusted-proxies", trusted] if trusted else []
        with (
            running_hub(str(tmp_path / f"data{scheme}"), arguments=arguments) as hub,
            httpx.Client(base_url=hub.url) as client,
        ):
            user = Caller(client).login("user1", "user1")
            device = claimed_device(user).start_trail()
            device.get(f"/trails/{device.id}/steps", headers=said)
            assert user.get(f"/trails/{device.id}/summary").json()["real-ip"] == address
            remote = user.get(f"/trails/{device.id}/.pvrremote", headers=said).json()
            assert remote["post-url"].startswith(f"{scheme}://")
