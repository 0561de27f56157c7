"""Questions to the supervisor: an answer, or one sentence about why there is none."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from brickless.device.link.supervisor import Supervisor, SupervisorError


class Peer:
    """Answers every line with the same bytes."""

    def __init__(self, run: Path, answer: bytes) -> None:
        self.lines: list[bytes] = []
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(run / "supervisor"))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                self.lines.append(stream.readline())
                connection.sendall(self._answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("r")  # short: the path of a socket has 108 bytes


@pytest.fixture
def peer(run: Path, request: pytest.FixtureRequest) -> Iterator[Peer]:
    made = Peer(run, request.param)
    yield made
    made.close()


@pytest.mark.parametrize("peer", [b'{"ok":true,"rev":"3","trying":null}\n'], indirect=True)
def test_questions_are_one_line_each(run: Path, peer: Peer) -> None:
    supervisor = Supervisor(str(run))
    assert supervisor.status()["rev"] == "3"
    supervisor.try_revision("4")
    supervisor.hub(reachable=False)
    assert peer.lines == [
        b'{"op": "status"}\n',
        b'{"op": "try", "rev": "4", "reboot": false}\n',
        b'{"op": "hub", "reachable": false}\n',
    ]


@pytest.mark.parametrize(
    ("peer", "said"),
    [
        (b'{"ok":false,"error":"Revision 3 is being tried"}\n', "Revision 3 is being tried"),
        (b"", "not JSON"),
        (b"nonsense\n", "not JSON"),
        (b"[1]\n", "no object"),
        (b"x" * 100_000, "not JSON"),
    ],
    indirect=["peer"],
    ids=["refusal", "nothing", "nonsense", "list", "endless"],
)
def test_a_bad_answer_is_an_error_of_ours(run: Path, peer: Peer, said: str) -> None:
    with pytest.raises(SupervisorError, match=said):
        Supervisor(str(run)).try_revision("4")


def test_nobody_there(run: Path) -> None:
    with pytest.raises(SupervisorError, match="does not answer 'status'"):
        Supervisor(str(run)).status()
