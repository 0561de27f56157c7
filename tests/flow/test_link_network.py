"""The agent in networks as they are: TLS that does not verify, proxies, IPv6, a hub that asks for patience."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from brickless.testkit.agent import SimulatedDevice, state_of
from brickless.testkit.certificates import Authority
from brickless.testkit.connect_proxy import ConnectProxy
from brickless.testkit.hub_simulator import Fault, HubSimulator, Kind


def until(condition: Callable[[], object], device: SimulatedDevice, what: str) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come\n{device.log}"
        time.sleep(0.05)


def test_a_hub_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    with HubSimulator(tls=authority.server()[0]) as hub:
        hub.auto_claim = True
        with SimulatedDevice(tmp_path / "device", hub, PV_HUB_CA=str(authority.ca_file)) as device:
            hub.wait_for(lambda h: 0 in h.steps[h.device.id], what="the factory revision")
            rev = hub.post(state_of(hub, b"x" * 500_000))
            assert device.ends(rev)["status"] == "DONE", device.log


@pytest.mark.parametrize("fault", ["other authority", "other host", "no authority"])
def test_a_hub_that_cannot_prove_who_it_is_gets_nothing(tmp_path: Path, fault: str) -> None:
    authority = Authority(tmp_path / "ca")
    trusted = {
        "other authority": str(Authority(tmp_path / "other").ca_file),
        "other host": str(authority.ca_file),
        "no authority": str(tmp_path / "none/*.pem"),
    }[fault]
    hosts = ("hub.example",) if fault == "other host" else ("127.0.0.1",)
    with (
        HubSimulator(tls=authority.server(hosts)[0]) as hub,
        SimulatedDevice(tmp_path / "device", hub, PV_HUB_CA=trusted) as device,
    ):
        said = "No certification authority" if fault == "no authority" else "does not verify"
        until(lambda: said in device.log, device, "a word about the certificate")
        assert device.alive
        assert hub.requests == [], "not a byte of a request was sent"
        assert device.storage.current() == "0"


@pytest.mark.needs("ipv6")
def test_a_hub_on_ipv6(tmp_path: Path) -> None:
    with HubSimulator(host="::1") as hub:
        hub.auto_claim = True
        with SimulatedDevice(tmp_path, hub) as device:
            hub.wait_for(lambda h: 0 in h.steps[h.device.id], what="the factory revision")
            rev = hub.post(state_of(hub, b"x" * 1000))
            assert device.ends(rev)["status"] == "DONE", device.log
            assert (device.run / "pantahub-host").read_text() == f"http://[::1]:{hub.port}"


def test_everything_goes_through_the_proxy(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    with ConnectProxy() as proxy, HubSimulator(tls=authority.server()[0]) as hub:
        hub.auto_claim = True
        settings = {"PH_CREDS_PROXY_HOST": "127.0.0.1", "PH_CREDS_PROXY_PORT": str(proxy.port)}
        with SimulatedDevice(tmp_path / "device", hub, PV_HUB_CA=str(authority.ca_file), **settings) as device:
            hub.wait_for(lambda h: 0 in h.steps[h.device.id], what="the factory revision")
            rev = hub.post(state_of(hub, b"x" * 500_000))
            assert device.ends(rev)["status"] == "DONE", device.log
            assert set(proxy.targets) == {f"127.0.0.1:{hub.port}"}
            assert len(proxy.targets) >= 2, "downloads as well"


def test_plain_http_is_for_loopback_only(tmp_path: Path) -> None:
    with SimulatedDevice(tmp_path, url="http://hub.example:80") as device:
        until(lambda: "PH_CREDS_SCHEME=http is not allowed" in device.log, device, "the refusal")
        assert device.alive, "being started again and again would help nobody"


def test_a_hub_that_asks_for_patience_gets_it(tmp_path: Path) -> None:
    with HubSimulator() as hub:
        hub.auto_claim = True
        with SimulatedDevice(tmp_path, hub) as device:
            hub.wait_for(lambda h: 0 in h.steps[h.device.id])
            hub.inject(Fault(Kind.STATUS, "/steps", number=429, headers=(("Retry-After", "3"),)))
            refusals = "answered 429"
            until(lambda: refusals in device.log, device, "the refusal")
            polls, began = hub.counted("GET", "/steps"), time.monotonic()
            hub.wait_for(lambda h: h.counted("GET", "/steps") > polls, what="the next poll")
            assert time.monotonic() - began > 2


def test_an_unreachable_hub_is_asked_less_and_less(tmp_path: Path) -> None:
    with HubSimulator() as hub, SimulatedDevice(tmp_path, hub, PH_UPDATER_BACKOFF_MAX="60") as device:
        hub.wait_for(lambda h: h.counted("POST", "/devices/"))
        hub.stop()
        until(lambda: device.log.count("Next attempt in") >= 3, device, "three attempts")
        pauses = [int(part.split(" s.")[0]) for part in device.log.split("Next attempt in ")[1:4]]
        assert pauses[2] > pauses[0]
        hub.start()


def test_a_join_token_that_the_hub_does_not_know(tmp_path: Path) -> None:
    with HubSimulator() as hub, SimulatedDevice(tmp_path, hub, PH_FACTORY_AUTOTOK="wrong") as device:
        until(lambda: "answered 400 to the registration of this device with its join token" in device.log, device, "it")
        hub.join_tokens["wrong"] = "prn:::accounts:/5f5f5f5f5f5f5f5f5f5f5f5f"
        hub.wait_for(lambda h: 0 in h.steps[h.device.id], what="the registration")
        assert device.alive


def test_unclaimed_it_waits_and_shows_its_challenge(tmp_path: Path) -> None:
    with HubSimulator() as hub, SimulatedDevice(tmp_path, hub) as device:
        until(lambda: (device.run / "challenge").exists() and (device.run / "challenge").read_text(), device, "it")
        assert (device.run / "challenge").read_text() == "likely-creative-troll"
        device.kill()
        device.start()
        hub.claim()
        hub.wait_for(lambda h: 0 in h.steps[h.device.id], what="the factory revision")
        assert len(hub.devices) == 1, "a restart registers no second device"
        until(lambda: (device.run / "challenge").read_text() == "", device, "the end of the challenge")
        assert (Path(device.storage.root) / "config/pantahub.config").exists()


def test_an_idle_device_is_quiet(tmp_path: Path) -> None:
    with HubSimulator() as hub:
        hub.auto_claim = True
        with SimulatedDevice(tmp_path, hub) as device:
            hub.wait_for(lambda h: h.counted("PUT", "/device-meta"), what="the first metadata")
            until(lambda: len(hub.requests) > 12, device, "some polls")
            began, metas = len(hub.requests), hub.counted("PUT", "/device-meta")
            hub.wait_for(lambda h: len(h.requests) >= began + 8, what="four more polls")
            assert hub.counted("PUT", "/device-meta") == metas, "metadata that stands the same is not sent"
            kinds = {r.path.partition("?")[0].rpartition("/")[2] for r in hub.requests[began:]}
            assert kinds == {"steps", "user-meta"}
