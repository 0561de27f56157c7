"""From an exception to an exit code and a text: the only place where that is decided (pvr.md 1.2).

0    done            1    usage, or a failure without a code of its own
2    arguments, or the repository cannot be loaded        3, 4, ...   the command's own codes
70   a bug of ours: the traceback is shown                130, 143    interrupted, terminated
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping

from brickless.core.errors import BricklessError, UserError

USAGE = 1
REPOSITORY = 2
BUG = 70
INTERRUPTED = 130
TERMINATED = 143

# A user's mistake that means the same in every command; a command's own table comes first.
_COMMON = {"not-a-repository": REPOSITORY, "already-a-repository": REPOSITORY}
_ERRNO_HINTS = {
    errno.ENOSPC: "The disk is full. Nothing was changed; free some space and run the same command again.",
    errno.EDQUOT: "Your quota is used up. Nothing was changed; free some space and run the same command again.",
    errno.EFBIG: "The file may not become that large here (see `ulimit -f`). Nothing was changed.",
    errno.EROFS: "The file system is read-only.",
    errno.EACCES: "You may not do that; look at the permissions and the owner.",
    errno.EPERM: "You may not do that; look at the permissions and the owner.",
}


class TransferError(BricklessError):
    """A server could not be reached, broke off, or answered what it must not; retries did not help."""


class RefusedError(TransferError):
    """A server said no: the answer is final, and repeating the request does not change it."""

    def __init__(self, message: str, *, status: int, context: str = "", hint: str = "") -> None:
        super().__init__(message, context=context, hint=hint)
        self.status = status


class CommandError(BricklessError):
    """A failure whose exit code the contract fixes."""

    def __init__(self, code: int, message: str, *, context: str = "", hint: str = "") -> None:
        super().__init__(message, context=context, hint=hint)
        self.code = code


class Failed(Exception):  # noqa: N818 - carries an error on its way out, is none itself
    """A command ended with `error`; the process exits with `code`."""

    def __init__(self, error: BricklessError | OSError, code: int) -> None:
        super().__init__(str(error))
        self.error = error
        self.code = code


class ReaderGone(BaseException):
    """Standard output was closed at the other end (`pvr json | head`)."""


def exit_code(error: BricklessError | OSError, codes: Mapping[str, int], failure: int) -> int:
    """The exit code of an error: its own, that of its id in the command's table, a common one, the command's last."""
    from brickless.store.repo import RepositoryError

    if isinstance(error, CommandError):
        return error.code
    if isinstance(error, UserError):
        return codes.get(error.id, _COMMON.get(error.id, failure))
    if isinstance(error, RepositoryError):
        return codes.get("repository", REPOSITORY)
    return failure


def as_text(error: BricklessError | OSError) -> str:
    """What a person reads: what happened and where, then on a line of its own what to do."""
    message, hint = _parts(error)
    return f"{message}\n{hint}" if hint else message


def as_json(error: BricklessError | OSError, code: int) -> str:
    """What a machine reads on stderr with `--json`: one line."""
    message, hint = _parts(error)
    kind = error.id if isinstance(error, UserError) else type(error).__name__
    return json.dumps({"error": {"id": kind, "message": message, "hint": hint, "exit": code}})


def usage_as_json(message: str) -> str:
    """The same for a line whose flags or arguments are wrong."""
    hint = "`pvr COMMAND --help` shows what there is."
    return json.dumps({"error": {"id": "usage", "message": message, "hint": hint, "exit": USAGE}})


def _parts(error: BricklessError | OSError) -> tuple[str, str]:
    if isinstance(error, BricklessError):
        text = f"{error.message} ({error.context})" if error.context else error.message
        return (text if text.endswith((".", "!", "?", "\n", "'")) else f"{text}."), error.hint
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or error}{where}", _ERRNO_HINTS.get(error.errno or 0, "")
