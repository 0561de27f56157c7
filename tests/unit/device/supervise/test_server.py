"""The supervisor's socket: one object a line each way, bounded, and only for the runtime's own processes."""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from brickless.core.canonical import JsonValue
from brickless.core.errors import BricklessError
from brickless.device.supervise import server as served
from brickless.device.supervise.server import Server


class Talk:
    """A server and the loop around it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.poll = select.poll()
        self.server = Server(path, self.poll, self.answer)

    def answer(self, question: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if question.get("op") == "fail":
            raise BricklessError("It cannot be done now")
        return {"ok": True, "echo": question}

    def turn(self) -> None:
        while ready := self.poll.poll(50):
            for fd, _ in ready:
                self.server.serve(fd)

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(5)
        client.connect(self.path)
        self.turn()
        return client

    def ask(self, line: bytes) -> bytes:
        with self.connect() as client:
            client.sendall(line)
            self.turn()
            return client.recv(65536)


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    made = Talk(str(tmp_path / "run" / "supervisor"))
    yield made
    made.server.close()


def test_a_question_is_answered(talk: Talk) -> None:
    assert json.loads(talk.ask(b'{"op":"status"}\n')) == {"ok": True, "echo": {"op": "status"}}


def test_two_questions_on_one_line_feed(talk: Talk) -> None:
    answers = talk.ask(b'{"op":"a"}\n\n{"op":"b"}\n').splitlines()
    assert [json.loads(answer)["echo"]["op"] for answer in answers] == ["a", "b"]


@pytest.mark.parametrize("line", [b"{\n", b"[]\n", b"7\n", b'{"op":"x"}x\n', b"\xff\n", b'{"op":"fail"}\n'])
def test_what_is_no_question_gets_a_reason(talk: Talk, line: bytes) -> None:
    answer = json.loads(talk.ask(line))
    assert answer["ok"] is False
    assert answer["error"]


def test_a_line_without_end_is_cut_off(talk: Talk) -> None:
    with talk.connect() as client:
        for _ in range(3):
            client.sendall(b"x" * 30000)
            talk.turn()
        assert select.select([client], [], [], 5)[0]
        with pytest.raises(ConnectionError):
            client.sendall(b"x")


def test_too_many_clients_are_turned_away(talk: Talk) -> None:
    clients = [talk.connect() for _ in range(served.CLIENTS_MAX)]
    try:
        with talk.connect() as late:
            assert late.recv(100) == b""
        clients.pop().close()
        talk.turn()
        assert json.loads(talk.ask(b'{"op":"status"}\n'))["ok"] is True
    finally:
        for client in clients:
            client.close()


def test_a_caller_in_a_container_is_turned_away(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.cgroup, "container_of", lambda _pid: "web")
    with talk.connect() as client:
        assert client.recv(100) == b""


def test_a_socket_that_a_dead_supervisor_left_is_replaced(talk: Talk) -> None:
    second = Talk(talk.path)
    assert json.loads(second.ask(b'{"op":"status"}\n'))["ok"] is True
    assert os.stat(talk.path).st_mode & 0o777 == 0o600
    second.server.close()
