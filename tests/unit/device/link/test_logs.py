"""Log lines for the hub: each once, in order, bounded, whatever rotation and refusals do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from brickless.device import config as configuration
from brickless.device.config import Config
from brickless.device.link.hub import HubRefusedError
from brickless.device.link.logs import MAX_BATCH_BYTES, LogPush


class Sink:
    """Stands where the hub stands; refuses a batch that holds `poison`, or everything with `status`."""

    def __init__(self) -> None:
        self.batches: list[list[dict[str, Any]]] = []
        self.poison = ""
        self.status = 0

    def post_logs(self, body: bytes) -> None:
        assert len(body) <= 2 * MAX_BATCH_BYTES
        entries = json.loads(body)
        if self.status:
            raise HubRefusedError("no", self.status)
        if self.poison and any(self.poison in entry["msg"] for entry in entries):
            raise HubRefusedError("bad", 400)
        self.batches.append(entries)

    @property
    def lines(self) -> list[str]:
        return [entry["msg"] for batch in self.batches for entry in batch]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    made = Config()
    made.put(configuration.ENV, "PV_LOG_DIR", str(tmp_path / "logs"))
    return made


def push(config: Config, tmp_path: Path, sink: Sink, said: list[str] | None = None) -> LogPush:
    made = LogPush(config, str(tmp_path), (said if said is not None else []).append)
    made.push(sink)  # type: ignore[arg-type]  # the fake has what is used
    return made


def write(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / "logs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text)
    return path


def test_lines_with_their_revision_container_and_file(tmp_path: Path, config: Config) -> None:
    write(tmp_path, "7/web/lxc/console.log", "hello\nworld\nunfinished")
    sink = Sink()
    push(config, tmp_path, sink)
    assert sink.lines == ["hello", "world"]
    first = sink.batches[0][0]
    assert {key: first[key] for key in ("rev", "plat", "src", "lvl", "tsec", "tnano")} == {
        "rev": "7", "plat": "web", "src": "/lxc/console.log", "lvl": "INFO", "tsec": 0, "tnano": 0,
    }  # fmt: skip


def test_each_line_once_also_after_a_restart(tmp_path: Path, config: Config) -> None:
    write(tmp_path, "7/web/a.log", "one\n")
    sink = Sink()
    push(config, tmp_path, sink).close()
    write(tmp_path, "7/web/a.log", "two\n")
    push(config, tmp_path, sink)
    assert sink.lines == ["one", "two"]


def test_a_rotated_file_begins_anew(tmp_path: Path, config: Config) -> None:
    path = write(tmp_path, "7/web/a.log", "one\ntwo\n")
    sink = Sink()
    pushing = push(config, tmp_path, sink)
    path.rename(path.with_name("a.log.1.gz"))
    write(tmp_path, "7/web/a.log", "new\n")
    pushing.push(sink)  # type: ignore[arg-type]  # the fake has what is used
    assert sink.lines == ["one", "two", "new"]


def test_local_revisions_stay_at_home(tmp_path: Path, config: Config) -> None:
    write(tmp_path, "locals/x/web/a.log", "secret\n")
    sink = Sink()
    push(config, tmp_path, sink)
    assert sink.lines == []


def test_switched_off(tmp_path: Path, config: Config) -> None:
    config.put(configuration.META, "pantahub.log.push", "0")
    write(tmp_path, "7/web/a.log", "one\n")
    sink = Sink()
    push(config, tmp_path, sink)
    assert sink.batches == []


def test_what_waited_too_long_is_passed_over_and_said(tmp_path: Path, config: Config) -> None:
    config.put(configuration.META, "PV_LOG_PUSH_MAX", "4096")
    write(tmp_path, "7/web/a.log", "".join(f"line {n:05}\n" for n in range(1000)))
    sink = Sink()
    pushing = push(config, tmp_path, sink)
    for _ in range(5):
        pushing.push(sink)  # type: ignore[arg-type]  # the fake has what is used
    assert sink.lines[0] == "brickless: 6904 bytes of this log were passed over"
    assert sink.lines[-1] == "line 00999"
    assert len(sink.lines) == 1 + 373, "4096 bytes of lines, the first one of them not whole"


def test_batches_are_bounded(tmp_path: Path, config: Config) -> None:
    write(tmp_path, "7/web/a.log", "x" * 100_000 + "\n")
    write(tmp_path, "7/web/b.log", "y\n" * 500)
    sink = Sink()
    pushing = push(config, tmp_path, sink)
    for _ in range(10):
        pushing.push(sink)  # type: ignore[arg-type]  # the fake has what is used
    assert all(len(batch) <= 200 for batch in sink.batches)
    assert "".join(sink.lines) == "x" * 100_000 + "y" * 500


def test_one_bad_line_does_not_hold_back_the_others(tmp_path: Path, config: Config) -> None:
    write(tmp_path, "7/web/a.log", "one\ntwo\npoison\nthree\n")
    sink, said = Sink(), list[str]()
    sink.poison = "poison"
    push(config, tmp_path, sink, said)
    assert sink.lines == ["one", "two", "three"]
    assert "was dropped: 'poison'" in said[0]


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 503])
def test_what_may_pass_is_sent_again(tmp_path: Path, config: Config, status: int) -> None:
    write(tmp_path, "7/web/a.log", "one\n")
    sink = Sink()
    sink.status = status
    pushing = LogPush(config, str(tmp_path), lambda _: None)
    with pytest.raises(HubRefusedError):
        pushing.push(sink)  # type: ignore[arg-type]  # the fake has what is used
    sink.status = 0
    pushing.push(sink)  # type: ignore[arg-type]  # the fake has what is used
    assert sink.lines == ["one"]


@pytest.mark.parametrize("marks", ["", "[]", "{", '{"x":1}', '{"x":["a",2]}', "\x00"])
def test_broken_marks_repeat_lines_and_lose_none(tmp_path: Path, config: Config, marks: str) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/logs-sent.json").write_text(marks)
    write(tmp_path, "7/web/a.log", "one\n")
    sink = Sink()
    push(config, tmp_path, sink)
    assert sink.lines == ["one"]


def test_pieces_that_were_moved_aside_are_not_sent_again(tmp_path: Path, config: Config) -> None:
    first = write(tmp_path, "7/web/a.log", "one\ntwo\n")
    sink = Sink()
    pusher = push(config, tmp_path, sink)
    write(tmp_path, "7/web/a.log", "three\n")  # not sent yet when it is moved
    first.rename(first.with_name("a.log.1"))
    write(tmp_path, "7/web/a.log", "four\n")
    pusher.push(sink)  # type: ignore[arg-type]  # the fake has what is used
    first.with_name("a.log.1").rename(first.with_name("a.log.2"))
    pusher.close()
    push(config, tmp_path, sink)
    assert sorted(sink.lines) == ["four", "one", "three", "two"]
    assert {entry["src"] for batch in sink.batches for entry in batch} == {"/a.log"}
