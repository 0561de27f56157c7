"""The log server with real sockets and files: what containers say lands in their folders, bounded."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from brickless.device.supervise import logs
from brickless.device.supervise.logparse import Record
from brickless.device.supervise.logserver import LOOK_S, LogServer, Options


class Lab:
    """A server and its loop."""

    def __init__(self, root: Path, options: Options | None = None) -> None:
        self.root = root
        self.now = 1000.0
        self.lines: list[str] = []
        self.poll = select.poll()
        self.run = root / "run"
        (self.run / "public.web").mkdir(parents=True)
        self.server = LogServer(
            str(root / "storage"),
            str(self.run),
            self.poll,
            now_s=lambda: self.now,
            console=self.lines.append,
            options=options or Options(dmesg=False),
        )
        self.server.log_to("3")

    def turn(self) -> None:
        while ready := self.poll.poll(50):
            for fd, _ in ready:
                self.server.serve(fd)

    def say(self, path: Path, data: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(str(path))
            sock.sendall(data)
        self.turn()

    def log(self, relative: str) -> str:
        return (self.root / "storage/logs/3" / relative).read_text()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    one = Lab(tmp_path)
    yield one
    one.server.close()


def test_a_container_s_words_are_its_own_whatever_they_claim(lab: Lab) -> None:
    lab.server.add("web", (), lambda: None)
    lab.say(lab.run / "public.web/pv-ctrl-log", b'{"version":"0","level":"ERROR","src":"main","message":"it broke"}')
    assert lab.log("web/main") == "[web] 1000 ERROR\t -- [main]: it broke\n"


def test_syslog_by_datagram(lab: Lab) -> None:
    lab.server.add("web", (), lambda: None)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(str(lab.run / "public.web/.log"))
        sock.send(b"<13>Nov 25 12:00:00 app: hello")
        sock.send(b"<11>app: world\nforged second line")
    lab.turn()
    assert lab.log("web/app").splitlines() == [
        "[web] 1000 INFO\t -- [app]: hello",
        "[web] 1000 ERROR\t -- [app]: world",
    ]


def test_the_host_s_socket(lab: Lab) -> None:
    lab.say(lab.run / "pv-ctrl-log", b"level=WARN src=hook message=slow")
    assert lab.log("pantavisor/hook") == "[pantavisor] 1000 WARN\t -- [hook]: slow\n"


def test_a_descriptor_is_handed_over_and_taken_back(lab: Lab) -> None:
    def hand(fds: list[int], add: int) -> None:
        message = struct.pack("=50s50sii", b"modem", b"ppp", 2, add)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(str(lab.run / "pv-fd-log"))
            socket.send_fds(sock, [message], fds)
            lab.turn()

    reader, writer = os.pipe()
    hand([reader], 1)
    os.close(reader)
    os.write(writer, b"dialling\nconnected\n")
    lab.turn()
    assert lab.log("modem/ppp").splitlines() == [
        "[modem] 1000 WARN\t -- [ppp]: dialling",
        "[modem] 1000 WARN\t -- [ppp]: connected",
    ]
    hand([], 0)
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"x")
    os.close(writer)


def test_a_container_may_not_hand_descriptors_over(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from brickless.device.supervise import logserver

    monkeypatch.setattr(logserver.caller, "container_of", lambda _peer: "web")
    reader, writer = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(str(lab.run / "pv-fd-log"))
        socket.send_fds(sock, [struct.pack("=50s50sii", b"x", b"y", 1, 1)], [reader])
        lab.turn()
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"x")
    os.close(writer)


def test_a_file_inside_a_container_is_followed(lab: Lab, tmp_path: Path) -> None:
    """Our own root stands in for the container's: a file below it, a rotation, a link that leads out."""
    inside = tmp_path / "inside.log"
    inside.write_text("one\ntwo\nhal")
    lab.server.add("web", ({"file": str(inside), "name": "app"},), os.getpid)
    lab.server.tick()
    assert [line.rpartition(": ")[2] for line in lab.log("web/app").splitlines()] == ["one", "two"]
    inside.write_text("one\ntwo\nhalf\n")
    assert lab.server.due_s() == lab.now + LOOK_S
    lab.now += LOOK_S
    lab.server.tick()
    assert lab.log("web/app").splitlines()[-1].endswith(": half")
    inside.unlink()
    inside.write_text("new\n")
    lab.now += LOOK_S
    lab.server.tick()
    assert lab.log("web/app").splitlines()[-1].endswith(": new")


def test_a_file_is_truncated_when_it_is_to_be(lab: Lab, tmp_path: Path) -> None:
    inside = tmp_path / "big.log"
    inside.write_text("x" * 50 + "\n")
    lab.server.add("web", ({"file": str(inside), "truncate": True, "maxsize": 10},), os.getpid)
    lab.server.tick()
    assert inside.read_text() == ""


def test_a_flood_is_bounded_in_time_and_the_loss_is_told(tmp_path: Path) -> None:
    lab = Lab(tmp_path, Options(dmesg=False, wear_bytes=86400 * 100))
    try:
        for _ in range(10_000):
            lab.server.write("web", Record(3, "flood", "x" * 100))
        total = sum(path.stat().st_size for path in (tmp_path / "storage/logs/3/web").iterdir())
        assert total <= 5 * logs.MAX_BYTES
        lab.now += 3600
        lab.server.write("web", Record(3, "flood", "again"))
        assert "lines were dropped: more than PV_LOG_WEAR_MAX allows" in lab.log("web/log")
        assert lab.log("web/flood").endswith(": again\n")
    finally:
        lab.server.close()


def test_outputs(tmp_path: Path) -> None:
    lab = Lab(tmp_path, Options(outputs=("singlefile", "stdout"), dmesg=False))
    try:
        lab.server.write("web", Record(1, "main", "two\nlines"))
        value = json.loads(lab.log("pv.log"))
        assert {key: value[key] for key in ("platform", "lvl", "src", "msg")} == {
            "platform": "web", "lvl": "ERROR", "src": "main", "msg": "two\nlines",
        }  # fmt: skip
        assert lab.lines == ["[web] 1000 ERROR\t -- [main]: two lines"]
        assert not (tmp_path / "storage/logs/3/web").exists()
    finally:
        lab.server.close()


def test_a_full_disk_is_said_and_stops_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logs.BoundedLog, "write", refuse)
    lab.server.write("web", Record(3, "main", "lost"))
    assert "No space left on device" in lab.lines[0]


def test_pieces_are_moved_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    log = logs.BoundedLog(str(tmp_path / "a.log"), pieces=3)
    moved = sum(log.write(bytes([65 + n]) * logs.MAX_BYTES + b"\n") for n in range(5))
    log.close()
    assert moved == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log.1", "a.log.2"]
    assert (tmp_path / "a.log.1").read_bytes()[:1] == b"E"


def test_all_logs_together_are_bounded_oldest_first(tmp_path: Path) -> None:
    for age, name in enumerate(["2/web/a", "1/web/a", "3/web/a.1", "3/web/a"]):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 40960)
        os.utime(path, (1000 + age, 1000 + age))
    assert logs.enforce(str(tmp_path), "3", 200_000, 4) == 0
    freed = logs.enforce(str(tmp_path), "3", 130_000, 4)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("a*"))
    assert freed >= 40960
    assert left == ["3/web/a", "3/web/a.1"], "what is written to stays, old revisions go first"
    logs.enforce(str(tmp_path), "3", 1, 1)
    assert [path.name for path in tmp_path.rglob("a*")] == ["a"]
