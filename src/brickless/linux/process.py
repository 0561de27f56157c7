"""The one door to other programs: clean environment, null stdin, one explanation of a failure, no process left behind.

Nothing else in the house imports `subprocess`. What may not happen here: a shell, an inherited environment, a wait
without an end.
"""

from __future__ import annotations

import errno
import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, NamedTuple

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What every child sees unless its caller adds to it: the same bytes in give the same bytes out, whoever calls.
CLEAN_ENVIRONMENT: Mapping[str, str] = {"PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": "/"}
PIPE = subprocess.PIPE
STDOUT = subprocess.STDOUT
NULL = subprocess.DEVNULL
Stream = int | IO[bytes] | None
STDERR_TAIL_BYTES = 2000


class Completed(NamedTuple):
    """A program that ended: `returncode` is negative for a signal; `stdout` and `stderr` are what it wrote, whole."""

    returncode: int
    stdout: bytes
    stderr: bytes


class ProcessError(OSError):
    """A program could not be started, failed, or took too long; `str()` says what for, why and the command."""

    def __init__(
        self, message: str, *, number: int | None = None, returncode: int | None = None, stderr: bytes = b""
    ) -> None:
        super().__init__(message)
        self.errno = number
        self.returncode = returncode
        self.stderr = stderr


class ProcessTimeoutError(ProcessError):
    """The program was killed, with all it had started, because it did not end in time."""


class ToolMissingError(ProcessError):
    """The program is not installed; the message names the Debian package where the caller knew it."""


def require(tool: str, package: str) -> str:
    """The absolute path of `tool`. Raises `ToolMissingError` that names the Debian package to install."""
    path = find(tool)
    if path is None:
        message = f"the program {tool} is missing: install the Debian package {package} (apt-get install {package})"
        raise ToolMissingError(message, number=errno.ENOENT)
    return path


def find(tool: str, search_path: str = SEARCH_PATH) -> str | None:
    """The absolute path of `tool` on a search path (the fixed one), or None. A name with a slash is taken as it is."""
    if "/" in tool:
        return tool if os.access(tool, os.X_OK) else None
    for folder in filter(os.path.isabs, search_path.split(":")):
        path = os.path.join(folder, tool)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def command_line(argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> str:
    """The command as a person would paste it into a shell."""
    line = shlex.join(argv)
    if env:
        line = " ".join(["env", *(shlex.quote(f"{key}={value}") for key, value in env.items()), line])
    return f"cd {shlex.quote(cwd)} && {line}" if cwd else line


class Process:
    """A started program. Use it as a context manager, or `wait` for it: whoever starts a program reaps it."""

    __slots__ = ("_group", "_popen", "argv", "line", "purpose")

    def __init__(self, popen: subprocess.Popen[bytes], argv: Sequence[str], line: str, purpose: str, group: bool):
        self._popen = popen
        self._group = group
        self.argv = tuple(argv)
        self.line = line
        self.purpose = purpose

    @property
    def pid(self) -> int:
        """The process id; also the id of its session and group when it was started in its own session."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal, None while it runs (as of the last `poll` or `wait`)."""
        return self._popen.returncode

    @property
    def stdin(self) -> IO[bytes] | None:
        """The writable end, if stdin was PIPE."""
        return self._popen.stdin

    @property
    def stdout(self) -> IO[bytes] | None:
        """The readable end, if stdout was PIPE."""
        return self._popen.stdout

    @property
    def stderr(self) -> IO[bytes] | None:
        """The readable end, if stderr was PIPE."""
        return self._popen.stderr

    def poll(self) -> int | None:
        """Reap it if it ended: the exit status, or None while it runs."""
        return self._popen.poll()

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for its end and reap it. Raises `ProcessTimeoutError` (and leaves it running) after `timeout_s`."""
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            message = f"{self.purpose}: did not end within {timeout_s:g} s: {self.line}"
            raise ProcessTimeoutError(message, number=errno.ETIMEDOUT) from None

    def signal(self, number: int) -> None:
        """Send a signal to the program, and to its whole group when it leads one. Harmless once it was reaped."""
        if self._popen.poll() is not None and not self._group:
            return
        with suppress(ProcessLookupError):  # ended between the check and the signal
            if self._group:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        self.signal(signal.SIGTERM)

    def kill(self) -> int:
        """End it and its group at once (SIGKILL) and reap it."""
        self.signal(signal.SIGKILL)
        return self._popen.wait()

    def stop(self, grace_s: float = 5.0) -> int:
        """SIGTERM, then SIGKILL to whatever of the group is left after `grace_s`; reaped either way."""
        if self._popen.poll() is None:
            self.terminate()
            with suppress(ProcessTimeoutError):
                self.wait(grace_s)
        return self.kill()

    def failure(self, stderr: bytes = b"") -> ProcessError:
        """The error for a program that ended badly: purpose, how it ended, what it said, the command to paste."""
        code = self._popen.returncode
        message = f"{self.purpose} failed: {self.argv[0]} {describe_exit(code)}{_tail(stderr)}\n  command: {self.line}"
        return ProcessError(message, returncode=code, stderr=stderr)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):  # bytes that a dead reader never took
                    stream.close()


def describe_exit(returncode: int | None) -> str:
    """`exited with status 3`, `was killed by SIGKILL`: in words."""
    if returncode is None:
        return "is still running"
    if returncode >= 0:
        return f"exited with status {returncode}"
    try:
        return f"was killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was killed by signal {-returncode}"


def _tail(stderr: bytes) -> str:
    text = stderr[-STDERR_TAIL_BYTES:].decode("utf-8", "replace").strip()
    if not text:
        return " and said nothing"
    return " and said:\n    " + "\n    ".join(text.splitlines())


def spawn(  # noqa: PLR0913 - what a process is given
    argv: Sequence[str],
    *,
    purpose: str,
    stdin: Stream = NULL,
    stdout: Stream = NULL,
    stderr: Stream = NULL,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    pass_fds: Sequence[int] = (),
    start_new_session: bool = True,
) -> Process:
    """Start a program and return at once. None as a stream means "the caller's own".

    `env` is added to the clean environment; a PATH in it is where the program is looked for. The program gets its own
    session unless told otherwise, so that ending it ends what it started. Raises `ToolMissingError` or `ProcessError`
    when it cannot be started.
    """
    line = command_line(argv, env=env, cwd=cwd)
    search_path = (env or {}).get("PATH", SEARCH_PATH)
    path = find(argv[0], search_path)
    if path is None:
        message = f"{purpose}: there is no program {argv[0]} here (looked in {search_path})\n  command: {line}"
        raise ToolMissingError(message, number=errno.ENOENT)
    try:
        popen = subprocess.Popen(
            list(argv),
            executable=path,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**CLEAN_ENVIRONMENT, **(env or {})},
            cwd=cwd,
            pass_fds=tuple(pass_fds),
            start_new_session=start_new_session,
        )
    except OSError as error:
        message = f"{purpose}: cannot start {argv[0]}: {error}\n  command: {line}"
        raise ProcessError(message, number=error.errno) from error
    return Process(popen, argv, line, purpose, start_new_session)


def run(
    argv: Sequence[str],
    *,
    purpose: str,
    timeout_s: float,
    input: bytes | None = None,  # noqa: A002 - the name everyone knows from the standard library
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    check: bool = True,
) -> Completed:
    """Run a program to its end and return what it wrote (kept in memory: for tools that say little).

    Raises `ProcessError` for a bad exit when `check`, `ProcessTimeoutError` after `timeout_s`; the whole group is dead
    by then.
    """
    feed = NULL if input is None else PIPE
    process = spawn(argv, purpose=purpose, stdin=feed, stdout=PIPE, stderr=PIPE, env=env, cwd=cwd)
    with process:
        try:
            stdout, stderr = process._popen.communicate(input, timeout_s)
        except subprocess.TimeoutExpired as expired:
            process.kill()
            message = f"{purpose}: {argv[0]} was killed after {timeout_s:g} s{_tail(expired.stderr or b'')}"
            raise ProcessTimeoutError(f"{message}\n  command: {process.line}", number=errno.ETIMEDOUT) from None
    code = process._popen.returncode
    if check and code != 0:
        raise process.failure(stderr)
    return Completed(code, stdout, stderr)


def pipe(
    argv: Sequence[str],
    *,
    purpose: str,
    stdin_chunks: Iterable[bytes],
    timeout_s: float = 600.0,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> Completed:
    """Feed a stream to a program's stdin, never holding more of it than one chunk.

    `timeout_s` bounds each wait for the program: for it to take the next bytes, and to end after the last. An exception
    of the producer kills the program and goes on to the caller. Raises `ProcessError`, `ProcessTimeoutError`.
    """
    out, err = os.memfd_create("stdout"), os.memfd_create("stderr")
    try:
        with spawn(argv, purpose=purpose, stdin=PIPE, stdout=out, stderr=err, env=env, cwd=cwd) as process:
            accepted = _feed(process, stdin_chunks, timeout_s)
            code = process.wait(timeout_s)
        stderr = _contents(err)
        if code != 0 or not accepted:
            raise process.failure(stderr)
        return Completed(code, _contents(out), stderr)
    finally:
        os.close(out)
        os.close(err)


def _feed(process: Process, chunks: Iterable[bytes], timeout_s: float) -> bool:
    """Write all chunks; False if the program closed its stdin before the end."""
    stdin = _opened(process.stdin)
    descriptor = stdin.fileno()
    os.set_blocking(descriptor, False)
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            if not poll.poll(timeout_s * 1000):
                message = f"{process.purpose}: {process.argv[0]} took no input for {timeout_s:g} s and was killed"
                raise ProcessTimeoutError(f"{message}\n  command: {process.line}", number=errno.ETIMEDOUT)
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                return False
    stdin.close()
    return True


def _opened(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ValueError("this stream of the program was not opened as PIPE")
    return stream


def _contents(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0)


@contextmanager
def reading(
    argv: Sequence[str],
    *,
    purpose: str,
    timeout_s: float = 600.0,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> Iterator[IO[bytes]]:
    """A program's stdout as a stream: `with reading([...]) as stream`.

    Leaving normally checks how the program ended (what was not read is read and dropped within `timeout_s`); leaving
    by an exception kills it. Raises `ProcessError`, `ProcessTimeoutError`.
    """
    err = os.memfd_create("stderr")
    try:
        with spawn(argv, purpose=purpose, stdout=PIPE, stderr=err, env=env, cwd=cwd) as process:
            yield _opened(process.stdout)
            _drain(process, timeout_s)
            code = process.wait(timeout_s)
        if code != 0:
            raise process.failure(_contents(err))
    finally:
        os.close(err)


def _drain(process: Process, timeout_s: float) -> None:
    stdout = _opened(process.stdout)
    deadline_s = time.monotonic() + timeout_s
    while not stdout.closed and stdout.read(65536):
        if time.monotonic() > deadline_s:
            raise ProcessTimeoutError(f"{process.purpose}: still writing after {timeout_s:g} s: {process.line}")
