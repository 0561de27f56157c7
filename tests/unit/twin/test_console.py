"""Waiting for words on a console, with bytes in any cut."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.twin.console import MAX_LINE_BYTES, Console
from brickless.twin.errors import ConsoleTimeoutError, MachineEndedError


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    one = Console(tmp_path / "console.log")
    yield one
    one.close()


def test_a_line_is_found_whenever_it_comes(console: Console) -> None:
    console.feed(b"first\nsec")
    threading.Timer(0.05, console.feed, (b"ond 42\r\nthird\n",)).start()
    found = console.wait_for(r"second (\d+)", timeout_s=10)
    assert found.match.group(1) == "42"
    assert console.wait_for("third", timeout_s=10, since=found.mark).mark == 3


def test_a_mark_hides_what_was_before_it(console: Console) -> None:
    console.feed(b"brickless: pid1 up\n")
    mark = console.mark()
    with pytest.raises(ConsoleTimeoutError, match=r"(?s)did not say 'pid1 up' within 0.05 s.*\| brickless: pid1 up"):
        console.wait_for("pid1 up", timeout_s=0.05, since=mark)


def test_the_end_of_the_machine_ends_the_waiting(console: Console) -> None:
    threading.Timer(0.05, console.end, ("QEMU was killed by SIGKILL",)).start()
    with pytest.raises(MachineEndedError, match="SIGKILL"):
        console.wait_for("never", timeout_s=10)


def test_noise_is_taken_off_lines_but_kept_in_the_file(console: Console) -> None:
    console.feed(b"\x1bc\x1b[1;31mred\x1b[0m\x07 \xff\n")
    assert console.lines()[0].text == "red \N{REPLACEMENT CHARACTER}"
    assert console.path.read_bytes().startswith(b"\x1bc\x1b[1;31m")


def test_a_line_without_an_end_is_bounded(console: Console) -> None:
    console.feed(b"x" * (MAX_LINE_BYTES + 1))
    assert len(console.lines()[0].text) == MAX_LINE_BYTES


def test_lines_go_out_live(tmp_path: Path) -> None:
    seen: list[str] = []
    console = Console(tmp_path / "log", seen.append)
    console.note("firmware: boot 1")
    console.close()
    assert seen == ["firmware: boot 1"]


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_the_cut_of_the_bytes_does_not_matter(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("console")
    whole, cut = Console(folder / "whole"), Console(folder / "cut")
    whole.feed(b"".join(pieces))
    for piece in pieces:
        cut.feed(piece)
    assert [line.text for line in whole.lines()] == [line.text for line in cut.lines()]
    whole.close()
    cut.close()
