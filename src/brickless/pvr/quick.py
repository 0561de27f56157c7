"""Where `pvr` starts: a status that is known is told at once, everything else goes to `pvr.main`.

Called by the launcher (`src/launcher/pvr`) with an interpreter that has not set up its site packages yet: that, and the
imports of the full program, take longer than looking at ten thousand files. May import nothing but the standard
library's lightest and `store.snapshot` before it knows that there is no answer. Docs: ADR 0030.
"""

from __future__ import annotations

import os
import sys

_QUESTIONS = {("status",): False, ("s",): False, ("status", "--json"): True, ("s", "--json"): True}


def main() -> None:
    """Answer, or become the full program."""
    code = quick(tuple(sys.argv[1:]))
    if code is None:
        code = _full()
    sys.exit(code)


def quick(argv: tuple[str, ...]) -> int | None:
    """The exit code of a question whose answer is known and told; None for all others."""
    as_json = _QUESTIONS.get(argv)
    # A variable may change what is asked, or be refused: the full program reads them.
    if as_json is None or any(name.startswith("PVR_") for name in os.environ):
        return None
    from brickless.pvr import colour
    from brickless.store.snapshot import answer

    try:
        found = answer(".", as_json=as_json)
        if found and not as_json and colour.wanted(1):
            found = os.fsencode(colour.marked(os.fsdecode(found)))
        while found:
            found = found[os.write(1, found) :]
    except BrokenPipeError:
        return 0  # whoever read our output has gone, and wants no more
    except KeyboardInterrupt:
        return 130
    return None if found is None else 0


def _full() -> int:
    if sys.flags.no_site:
        import site

        # The place where the launcher found us; the site packages that are set up now lead here as well.
        sys.path.pop()
        site.main()
    sys.argv[0] = "pvr"
    from brickless.pvr.main import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    main()
