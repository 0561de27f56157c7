"""Revisions on the partition as the supervisor uses them: read, verified whole, and turned into jobs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from brickless.core import canonical
from brickless.core.canonical import JsonValue
from brickless.core.errors import HostileInputError
from brickless.core.progress import FINAL, Progress, Status, parse_progress
from brickless.core.state import State, parse_state
from brickless.core.transition import boot_order
from brickless.device.supervise.jobs import Job
from brickless.store.trails import FACTORY, Storage

UNCOMPARED = frozenset({"src.json", "build.json"})
MAX_REPORT_BYTES = 65536
NOTHING: frozenset[str] = frozenset()


class Revision(NamedTuple):
    """A revision that can be run."""

    rev: str
    state: State
    jobs: tuple[Job, ...]


def load(storage: Storage, rev: str) -> Revision:
    """Read a revision. Raises `OSError` when it is not there, `HostileInputError` (`StateError`) when it is broken."""
    state = parse_state(storage.state_bytes(rev))
    jobs = tuple(Job(state.containers[name], rev, fingerprint(state, name)) for name in boot_order(state))
    return Revision(rev, state, jobs)


def fingerprint(state: State, name: str) -> str:
    """A hash over everything that makes the container what it is: two revisions with the same one keep it running.

    The files that only authors and verifiers read do not count (device.md 4.6).
    """
    owned = {
        path: value
        for path, value in state.entries.items()
        if state.owner(path) == name and path.rpartition("/")[2] not in UNCOMPARED and not path.startswith("_sigs/")
    }
    container = state.containers[name]
    value: dict[str, JsonValue] = {"entries": owned, "group": container.group, "goal": str(container.status_goal)}
    return _sha256_hex(canonical.dumps(value))


def _sha256_hex(data: bytes) -> str:
    """SHA-256 by the interpreter's own module: `hashlib` would map libcrypto into a process that lives for ever."""
    for name in ("_sha256", "_sha2"):
        try:
            return str(__import__(name).sha256(data).hexdigest())
        except ImportError:
            continue
    return canonical.sha256_hex(data)


def mapped_by_verity(state: State) -> frozenset[str]:
    """The files that dm-verity checks block by block when they are read: those, and no others, need no hash before.

    A manifest alone exempts nothing (device.md 2.4 has it so, and leaves files unchecked that nobody maps).
    """
    found = {
        f"{name}/{volume.removeprefix('dm:')}"
        for name, container in state.containers.items()
        for volume in (container.root_volume, *container.volumes)
        if volume.startswith("dm:")
    }
    bsp = state.bsp
    parts = () if bsp is None else (bsp.firmware, bsp.modules, *bsp.modules_of.values())
    found |= {f"bsp/{part.removeprefix('dm:')}" for part in parts if part.startswith("dm:")}
    return frozenset(found)


class RefusedSignatureError(HostileInputError):
    """A revision that the signature policy refuses; `status` is the message of its progress."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Checks(NamedTuple):
    """What is checked before a revision runs: its files' hashes but for `skip`, and its signatures by `judge`.

    `judge` returns a message that refuses the state or "", and the reason or a remark.
    """

    hashes: bool
    skip: frozenset[str] = NOTHING
    judge: Callable[[State], tuple[str, str]] | None = None


def check_apart(storage: Storage, revision: Revision, checks: Checks) -> tuple[list[str], list[str]]:
    """Check a revision in a child, whose memory (libcrypto, buffers) goes with it: (faults, what is worth a line).

    Raises `OSError` when the child could not tell, `RefusedSignatureError`, and `HostileInputError` for a state that
    is broken.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _check_and_tell(storage, revision, checks, writer)
    os.close(writer)
    with open(reader, "rb") as stream:
        report = stream.read(MAX_REPORT_BYTES)
    _, status = os.waitpid(pid, 0)
    if not report:
        raise OSError(f"checking revision {revision.rev} ended without a result ({os.waitstatus_to_exitcode(status)})")
    answer = json.loads(report)
    if "refused" in answer:
        raise RefusedSignatureError(*answer["refused"])
    if "broken" in answer:
        raise HostileInputError(answer["broken"])
    if "error" in answer:
        raise OSError(answer["error"])
    return answer["faults"], answer["notes"]


def _check_and_tell(storage: Storage, revision: Revision, checks: Checks, writer: int) -> None:
    """In the child: never returns."""
    answer: dict[str, object]
    try:
        answer = _check(storage, revision, checks)
    except HostileInputError as error:
        answer = {"broken": str(error)}
    except OSError as error:
        answer = {"error": str(error)}
    os.write(writer, json.dumps(answer).encode()[:MAX_REPORT_BYTES])
    os._exit(0)


def _check(storage: Storage, revision: Revision, checks: Checks) -> dict[str, object]:
    notes: list[str] = []
    if checks.judge is not None:
        refusal, detail = checks.judge(revision.state)
        if refusal:
            return {"refused": [refusal, detail[:4096]]}
        notes += [detail[:4096]] if detail else []
    healed: list[str] = []
    faults = storage.verify(revision.rev, healed=healed, skip=checks.skip) if checks.hashes else []
    return {"faults": faults[:20], "notes": [*notes, *(f"healed: {note}" for note in healed[:20])]}


def progress_of(storage: Storage, rev: str) -> Progress | None:
    """The stored progress; None when there is none, or none that can be read."""
    data = storage.progress(rev)
    if data is None:
        return None
    try:
        return parse_progress(data)
    except HostileInputError:
        return None


def unfinished(storage: Storage, running: str) -> Iterable[str]:
    """The revisions other than `running` whose try was under way when the device went down."""
    for rev in storage.revisions():
        progress = progress_of(storage, rev)
        if rev != running and progress is not None and progress.status in (Status.INPROGRESS, Status.TESTING):
            yield rev


def is_final(progress: Progress | None) -> bool:
    """Whether nothing follows that progress."""
    return progress is not None and progress.status in FINAL


def fallbacks(storage: Storage, wanted: str, committed: str) -> list[str]:
    """In which order revisions are tried when the wanted one is broken: good ones, newest first, the factory last."""
    done = [rev for rev in storage.revisions() if rev not in (wanted, committed, FACTORY) and storage.is_done(rev)]
    order = [wanted, committed, *reversed(done), FACTORY]
    return list(dict.fromkeys(order))
