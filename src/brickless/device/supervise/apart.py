"""Work in a child process: what is slow does not hold up the supervisor, and its memory goes with it.

The child is a fork that shares our mounts. What it returns, or the error that it raised, comes back over a pipe.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

from brickless.core.errors import BricklessError
from brickless.linux import libc

REPORT_MAX_BYTES = 65536
# A child that hangs (a broken disk) is ended by its own alarm: whoever waits for it hears of it.
LONGEST_S = 600


class Child:
    """One piece of work under way. Its descriptor becomes readable when it is done."""

    __slots__ = ("_reader", "pid", "what")

    def __init__(self, what: str, work: Callable[[], object], *, longest_s: int = LONGEST_S) -> None:
        """Start it. `what` names it in errors; its result must be JSON."""
        self.what = what
        self._reader, writer = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._reader)
            # It ends with us: whoever is started next begins the work anew, and two at it would be one too many.
            libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
            signal.alarm(longest_s)
            _work_and_tell(work, writer)
        os.close(writer)

    def fileno(self) -> int:
        """The descriptor to poll for reading."""
        return self._reader

    def result(self) -> object:
        """Wait for its end and return what it returned. Raises `OSError` with the words of what it raised."""
        with open(self._reader, "rb", closefd=False) as stream:
            report = stream.read(REPORT_MAX_BYTES)
        status = self._end()
        if not report:
            code = os.waitstatus_to_exitcode(status)
            how = f"signal {-code}" if code < 0 else f"exit status {code}"
            raise OSError(f"{self.what} ended without a result ({how})")
        answer = json.loads(report)
        if "error" in answer:
            raise OSError(answer["errno"], answer["error"]) if answer["errno"] else OSError(answer["error"])
        value: object = answer["value"]
        return value

    def cancel(self) -> None:
        """End it now."""
        os.kill(self.pid, signal.SIGKILL)
        self._end()

    def _end(self) -> int:
        os.close(self._reader)
        return os.waitpid(self.pid, 0)[1]


def run(what: str, work: Callable[[], object], *, longest_s: int = LONGEST_S) -> object:
    """Do the work apart and wait for it."""
    return Child(what, work, longest_s=longest_s).result()


def _work_and_tell(work: Callable[[], object], writer: int) -> None:
    """In the child: never returns."""
    answer: dict[str, object]
    try:
        answer = {"value": work()}
    except (OSError, ValueError, BricklessError) as error:
        number = error.errno if isinstance(error, OSError) else None
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        answer = {"errno": number, "error": text[:4000]}
    except BaseException as error:
        answer = {"errno": None, "error": f"{type(error).__name__}: {error}"[:4000]}
    os.write(writer, json.dumps(answer).encode())
    os._exit(0)
