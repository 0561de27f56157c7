"""The agent's entry: where the hub is and how it is reached, by configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from brickless.core.errors import UserError
from brickless.device import config as configuration
from brickless.device.config import Config
from brickless.device.link.http import Address, Proxy
from brickless.device.link.main import Reporter, hub_address, transport_maker
from brickless.device.link.tls import Clock, Trust
from brickless.device.link.wakeup import Wakeup


def made(**values: str) -> Config:
    config = Config()
    for name, value in values.items():
        config.put(configuration.ENV, name, value)
    return config


@pytest.mark.parametrize(
    ("values", "address"),
    [
        ({}, Address("https", "api.pantahub.com", 443)),
        ({"PH_CREDS_HOST": "2001:db8::1", "PH_CREDS_PORT": "12366"}, Address("https", "2001:db8::1", 12366)),
        ({"PH_CREDS_SCHEME": "http", "PH_CREDS_HOST": "127.0.0.1"}, Address("http", "127.0.0.1", 443)),
        ({"PH_CREDS_SCHEME": "http", "PH_CREDS_HOST": "10.0.2.100"}, Address("http", "10.0.2.100", 443)),
        ({"PH_CREDS_SCHEME": "http", "PH_CREDS_HOST": "::1"}, Address("http", "::1", 443)),
    ],
)
def test_where_the_hub_is(values: dict[str, str], address: Address) -> None:
    assert hub_address(made(**values)) == address


@pytest.mark.parametrize(
    "values",
    [
        {"PH_CREDS_SCHEME": "http"},
        {"PH_CREDS_SCHEME": "http", "PH_CREDS_HOST": "10.0.3.1"},
        {"PH_CREDS_SCHEME": "http", "PH_CREDS_HOST": "127.0.0.1.evil.example"},
        {"PH_CREDS_SCHEME": "http", "PH_CREDS_HOST": "10.0.2.evil.example"},
        {"PH_CREDS_SCHEME": "ftp"},
        {"PH_CREDS_HOST": "hub/path"},
        {"PH_CREDS_HOST": "user@hub"},
        {"PH_CREDS_HOST": "[::1]"},
        {"PH_CREDS_HOST": ""},
    ],
)
def test_where_it_may_not_be(values: dict[str, str]) -> None:
    with pytest.raises(UserError):
        hub_address(made(**values))


def test_timeouts_and_proxy(tmp_path: Path) -> None:
    clock = Clock(str(tmp_path / "mark"), report=lambda _: None)
    make = transport_maker(Trust((), clock))
    assert make(made()).proxy is None
    found = make(made(PH_CREDS_PROXY_HOST="proxy", PH_LIBEVENT_HTTP_TIMEOUT="7"))
    assert (found.timeout_s, found.proxy) == (7.0, Proxy("proxy", 3218, connect=True))
    assert make(made(PH_CREDS_PROXY_HOST="proxy", PH_CREDS_PROXY_NOPROXYCONNECT="1")).proxy == Proxy(
        "proxy", 3218, False
    )
    assert found.user_agent.startswith("Brickless/")


def test_a_repeated_sentence_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    report = Reporter()
    for sentence in ("one\ntwo", "one two", "three", "one two"):
        report(sentence)
    assert capsys.readouterr().err.splitlines() == [
        "brickless: link: one two",
        "brickless: link: three",
        "brickless: link: one two",
    ]


def test_a_wake_ends_a_wait_and_is_not_remembered_twice() -> None:
    wakeup = Wakeup()
    for _ in range(100_000):
        wakeup.wake()
    wakeup.wait(60)
    wakeup.wait(0.01)
    wakeup.close()
