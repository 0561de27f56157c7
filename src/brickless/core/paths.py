"""Which names may be a path of a state or a revision: the first wall against names that would leave their folder."""

from __future__ import annotations

import re

from brickless.core.errors import HostileInputError

MAX_PATH_BYTES = 1024
MAX_COMPONENT_BYTES = 255
MAX_LOCAL_NAME = 64

# The folders that repository and runtime keep beside a revision's files (contract device.md 2.2).
RESERVED = frozenset({".pv", ".pvr", ".pvrremote"})

# Nearly every path of a real state is of this kind: one match instead of the questions below.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@ -]{0,199}(?:/[A-Za-z0-9_][A-Za-z0-9_.+@ -]{0,199})*+")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_STEP = re.compile(r"0|[1-9][0-9]{0,9}")
_LOCAL = re.compile(r"locals/[A-Za-z0-9_][A-Za-z0-9_.+@=~-]*")


def fault(path: str) -> tuple[str, str] | None:
    """Return `(rule, reason)` when `path` may not be a path of a state, else None."""
    if len(path) <= MAX_PATH_BYTES and _PLAIN.fullmatch(path):
        return None
    if not path:
        return "path-empty", "the path is empty"
    if _CONTROL.search(path):
        return "path-control-character", "the path holds a control character"
    if path.startswith("/"):
        return "path-absolute", "the path is absolute"
    try:
        size_bytes = len(path.encode())
    except UnicodeEncodeError:
        return "path-not-text", "the path holds half a surrogate pair"
    if "\ufffd" in path:
        return "path-not-text", "the path holds U+FFFD, the mark of bytes that were no text"
    if size_bytes > MAX_PATH_BYTES:
        return "path-too-long", f"the path has {size_bytes} bytes, at most {MAX_PATH_BYTES} are allowed"
    return _components_fault(path.split("/"))


def _components_fault(components: list[str]) -> tuple[str, str] | None:
    for component in components:
        if not component:
            return "path-empty-component", "the path has an empty component"
        if component in {".", ".."}:
            return "path-dots", f"the path has the component {component!r}"
        if len(component.encode()) > MAX_COMPONENT_BYTES:
            return "path-too-long", f"a component of the path has more than {MAX_COMPONENT_BYTES} bytes"
    if components[0] in RESERVED:
        return "path-reserved", f"{components[0]!r} belongs to the repository and the runtime"
    return None


def check_state_path(path: str) -> None:
    """Refuse a path that could leave its revision's folder or touch what is kept beside its files.

    Raises `HostileInputError`.
    """
    found = fault(path)
    if found:
        raise HostileInputError(f"{_shown(path)}: {found[1]}")


def check_revision(name: str) -> None:
    """Refuse what is no name of a revision: `0`, a positive number, or `locals/<name>` (contract device.md 2.1).

    Raises `HostileInputError`.
    """
    if _STEP.fullmatch(name):
        return
    if not _LOCAL.fullmatch(name) or len(name) > len("locals/") + MAX_LOCAL_NAME:
        raise HostileInputError(
            f"{_shown(name)} is no name of a revision",
            hint=f"A revision is called 0, a positive number, or locals/ and at most {MAX_LOCAL_NAME} "
            "letters, digits and characters of _.+@=~-",
        )


def revision_dir(name: str) -> str:
    """Return the folder of the revision below `trails/`, after `check_revision`."""
    check_revision(name)
    return name


def is_local(name: str) -> bool:
    """Tell whether the revision was installed on the device itself, without the hub."""
    return name.startswith("locals/")


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:77] + "...")
