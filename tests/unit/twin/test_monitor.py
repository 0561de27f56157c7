"""The machine protocol against a peer that answers, refuses, lies and hangs up."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from brickless.twin.errors import MachineEndedError, TwinError
from brickless.twin.monitor import Monitor


class Peer:
    """QEMU's end, by hand."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.socket = theirs
        self.stream = theirs.makefile("rb")
        self.monitor = Monitor(ours)
        self.say({"QMP": {"version": {}}})
        assert self.hear()["execute"] == "qmp_capabilities"
        self.say({"return": {}, "id": 0})

    def say(self, message: dict[str, Any]) -> None:
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def hear(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.stream.readline())
        return message

    def answer(self, **answer: Any) -> None:
        self.say({**answer, "id": self.hear()["id"]})

    def close(self) -> None:
        self.stream.close()
        self.socket.close()
        self.monitor.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    one = Peer()
    yield one
    one.close()


def soon(call: Any, **arguments: Any) -> None:
    threading.Thread(target=call, kwargs=arguments, daemon=True).start()


def test_an_answer(peer: Peer) -> None:
    soon(peer.answer, **{"return": {"running": True}})
    assert peer.monitor.execute("query-status") == {"running": True}


def test_a_refusal_says_what_and_why(peer: Peer) -> None:
    soon(peer.answer, error={"class": "DeviceNotFound", "desc": "Device 'nic9' not found"})
    with pytest.raises(TwinError, match=r"refused set_link.*nic9' not found"):
        peer.monitor.execute("set_link", name="nic9", up=False)


def test_the_reason_of_the_end(peer: Peer) -> None:
    peer.say({"event": "RESUME", "data": {}})
    peer.say({"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-reset"}})
    peer.stream.close()
    peer.socket.close()
    assert peer.monitor.shutdown_reason() == "guest-reset"


def test_an_end_without_a_word(peer: Peer) -> None:
    peer.stream.close()
    peer.socket.close()
    assert peer.monitor.shutdown_reason() == ""
    with pytest.raises(MachineEndedError):
        peer.monitor.execute("query-status")


def test_garbage_ends_the_conversation(peer: Peer) -> None:
    peer.socket.sendall(b"no json\n")
    assert peer.monitor.shutdown_reason() == ""
    with pytest.raises(MachineEndedError):
        peer.monitor.execute("query-status")
