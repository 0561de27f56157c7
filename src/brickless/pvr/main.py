"""The `pvr` program: parses the global flags, runs one command, turns what went wrong into text and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

VERSION_FLAGS = {"--version", "-version", "-v", "--v"}


class Terminated(BaseException):
    """SIGTERM: unwinds like Ctrl-C does, so that temporary files and locks go."""


def main() -> None:
    """Entry point of the `pvr` script."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run one command line; returns the exit code. The only place where an exception becomes one."""
    if len(argv) == 1 and argv[0] in VERSION_FLAGS:
        from brickless.pvr.version import version

        print(f"pvr version {version()}")
        return 0
    from brickless.pvr.errors import ReaderGone

    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = _run(list(argv))
        sys.stdout.flush()
    except (BrokenPipeError, ReaderGone):
        # Whoever read our output has gone (`pvr json | head`): nothing is wrong, and there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _wants_json(argv: list[str]) -> bool:
    """Whether `--json` was given on a line that could not be parsed."""
    words = argv[: argv.index("--")] if "--" in argv else argv
    return not {"--json", "-json"}.isdisjoint(words)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


def _run(argv: list[str]) -> int:
    import click

    from brickless.pvr import errors
    from brickless.pvr.env import Env
    from brickless.pvr.root import root

    env = Env()
    try:
        result = root.main(argv, prog_name="pvr", standalone_mode=False, obj=env)
    except click.UsageError as error:
        if _wants_json(argv):
            print(errors.usage_as_json(error.format_message()), file=sys.stderr)
            return errors.USAGE
        usage = error.ctx.get_usage() if error.ctx else ""
        print(f"Incorrect Usage: {error.format_message()}\n\n{usage}")
        print(f"ERROR: {error.format_message()}", file=sys.stderr)
        return errors.USAGE
    except errors.Failed as failed:
        text = errors.as_json(failed.error, failed.code) if env.json else errors.as_text(failed.error)
        print(f"ERROR: {text}" if failed.code == 1 and not env.json else text, file=sys.stderr)
        if env.debug:
            import traceback

            traceback.print_exception(failed.error)
        return failed.code
    except (KeyboardInterrupt, click.Abort):
        print("Interrupted. Nothing was lost; run the same command again to go on.", file=sys.stderr)
        return errors.INTERRUPTED
    except Terminated:
        print("Terminated. Nothing was lost; run the same command again to go on.", file=sys.stderr)
        return errors.TERMINATED
    except Exception:
        import traceback

        traceback.print_exc()
        print("This is a bug in pvr. Please report it with the lines above.", file=sys.stderr)
        return errors.BUG
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    main()
