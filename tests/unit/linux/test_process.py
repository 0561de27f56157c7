"""The one door to other programs, with real programs."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from brickless.linux import process
from brickless.linux.process import ProcessError, ProcessTimeoutError, ToolMissingError


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_run_returns_what_the_program_wrote() -> None:
    done = process.run(sh("cat; echo oops >&2"), purpose="echo", timeout_s=10, input=b"\x00\xffin")
    assert done == (0, b"\x00\xffin", b"oops\n")


def test_stdin_is_null_and_the_environment_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD_FAKE", "leak")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    done = process.run(sh("cat; env"), purpose="look around", timeout_s=10, env={"EXTRA": "1"})
    seen = dict(line.split("=", 1) for line in done.stdout.decode().splitlines())
    seen.pop("_", None)
    seen.pop("PWD", None)
    assert seen == {**process.CLEAN_ENVIRONMENT, "EXTRA": "1"}


def test_a_failure_says_what_for_how_and_gives_a_command_to_paste(tmp_path: Path) -> None:
    with pytest.raises(ProcessError) as caught:
        process.run(
            sh("echo 'no space' >&2; exit 3"),
            purpose="pack the image",
            timeout_s=10,
            cwd=str(tmp_path),
            env={"A": "b c"},
        )
    text = str(caught.value)
    assert "pack the image failed" in text
    assert "exited with status 3" in text
    assert "no space" in text
    assert f"cd {tmp_path} && env 'A=b c' sh -c" in text
    assert caught.value.returncode == 3
    assert caught.value.stderr == b"no space\n"


def test_a_signal_is_named() -> None:
    with pytest.raises(ProcessError, match="was killed by SIGKILL"):
        process.run(sh("kill -9 $$"), purpose="die", timeout_s=10)


def test_check_off_returns_the_status() -> None:
    assert process.run(sh("exit 4"), purpose="ask", timeout_s=10, check=False).returncode == 4


def test_a_missing_program_names_its_package() -> None:
    with pytest.raises(ToolMissingError, match="apt-get install squashfs-tools") as caught:
        process.require("sqfs-no-such", "squashfs-tools")
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(ToolMissingError, match="there is no program"):
        process.run(["no-such-program"], purpose="try", timeout_s=1)
    assert os.path.isabs(process.require("sh", "dash"))


def test_an_unusable_working_directory_is_a_process_error(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="cannot start"):
        process.run(["true"], purpose="try", timeout_s=1, cwd=str(tmp_path / "none"))


def wait_for_end(pid: int) -> None:
    """Wait until a killed process is gone, or a zombie that its new parent has not reaped yet."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended = select.poll()
        ended.register(fd, select.POLLIN)
        assert ended.poll(30_000), f"process {pid} runs on"
    finally:
        os.close(fd)


def test_a_timeout_kills_the_whole_group_and_leaves_no_zombie(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    # Long enough for a shell to come so far on a machine that has other things to do.
    with pytest.raises(ProcessTimeoutError, match=r"killed after 3 s"):
        process.run(sh(f"sleep 1000 & echo $! $$ > {pids}; wait"), purpose="hang", timeout_s=3)
    for pid in pids.read_text().split():
        wait_for_end(int(pid))
    with pytest.raises(ChildProcessError):
        os.waitpid(int(pids.read_text().split()[1]), os.WNOHANG)


def test_a_daemon_that_keeps_the_pipe_open_does_not_hang_us() -> None:
    with pytest.raises(ProcessTimeoutError):
        process.run(sh("sleep 100 &"), purpose="leave a child", timeout_s=0.5)


def test_pipe_feeds_a_stream_larger_than_any_buffer() -> None:
    chunks = (bytes([n % 251]) * 70_000 for n in range(40))
    done = process.pipe(sh("wc -c"), purpose="count", stdin_chunks=chunks, timeout_s=20)
    assert done.stdout.strip() == b"2800000"


def test_pipe_reports_a_program_that_stops_reading() -> None:
    chunks = (b"x" * 70_000 for _ in range(100))
    with pytest.raises(ProcessError, match="disk full"):
        process.pipe(sh("head -c 1 >/dev/null; echo disk full >&2; exit 1"), purpose="write", stdin_chunks=chunks)
    chunks = (b"x" * 70_000 for _ in range(100))
    with pytest.raises(ProcessError, match="status 0"):  # it says that all is well, but it did not take everything
        process.pipe(sh("exit 0"), purpose="write", stdin_chunks=chunks)


def test_pipe_bounds_a_program_that_never_reads(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    chunks = (b"x" * 70_000 for _ in range(100))
    with pytest.raises(ProcessTimeoutError, match=r"took no input for 0\.3 s"):
        process.pipe(sh(f"echo $$ > {pid_file}; sleep 100"), purpose="write", stdin_chunks=chunks, timeout_s=0.3)
    assert not alive(int(pid_file.read_text()))


def test_pipe_kills_the_program_when_the_producer_fails(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    def chunks() -> Iterator[bytes]:
        yield b"go\n"
        while not pid_file.exists() or not pid_file.read_text():
            yield b"more\n"
        raise ValueError("layer 3 is damaged")

    with pytest.raises(ValueError, match="layer 3"):
        process.pipe(sh(f"read x; echo $$ > {pid_file}; cat >/dev/null"), purpose="write", stdin_chunks=chunks())
    assert not alive(int(pid_file.read_text()))


def test_reading_streams_stdout_and_checks_the_end() -> None:
    with process.reading(sh("echo one; echo two"), purpose="list") as stream:
        assert stream.readline() == b"one\n"
    with (
        pytest.raises(ProcessError, match="broken archive"),
        process.reading(sh("echo one; echo broken archive >&2; exit 2"), purpose="list") as stream,
    ):
        assert stream.read() == b"one\n"


def test_reading_kills_the_program_when_the_reader_fails() -> None:
    pids = []
    with pytest.raises(ValueError, match="invalid literal"):  # noqa: PT012, SIM117 - the failure happens inside
        with process.reading(sh("echo $$; echo stop; exec sleep 100"), purpose="list") as stream:
            pids += [int(stream.readline())]
            pids += [int(stream.readline())]
    assert not alive(pids[0])


def test_spawn_and_stop() -> None:
    with process.spawn(sh("echo up; trap '' TERM; sleep 100"), purpose="serve", stdout=process.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"up\n"
        assert server.poll() is None
        with pytest.raises(ProcessTimeoutError):
            server.wait(0.05)
        assert server.stop(grace_s=0.2) < 0
    assert not alive(server.pid)


def test_spawn_passes_only_the_files_it_is_told_to() -> None:
    reader, writer = os.pipe()
    with process.spawn(sh(f"echo hello >/proc/self/fd/{writer}"), purpose="talk", pass_fds=[writer]) as child:
        os.close(writer)
        assert os.read(reader, 100) == b"hello\n"
        assert child.wait(10) == 0
    os.close(reader)


def test_a_caller_may_look_in_places_of_its_own(tmp_path: Path) -> None:
    tool = tmp_path / "my-tool"
    tool.write_text("#!/bin/sh\necho mine\n")
    tool.chmod(0o755)
    with pytest.raises(ToolMissingError):
        process.run(["my-tool"], purpose="try", timeout_s=5)
    env = {"PATH": f".:{tmp_path}:{process.SEARCH_PATH}"}
    assert process.run(["my-tool"], purpose="try", timeout_s=5, env=env).stdout == b"mine\n"
