"""`pvtx`: a new revision put together on the device, package by package (device.md 6.4).

A transaction is a file beside a note of where its objects go: to the device's pool over the control socket (`begin
BASE`, then `commit`), or into a folder (`begin BASE OBJECTS`, then `deploy DIR`). Exit status: 0, or 1 with a reason;
48, 60, 70 and 75 as `pvcontrol`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from brickless.core.errors import BricklessError, HostileInputError
from brickless.core.state import parse_state
from brickless.device.control.tools import client, tarball, transaction
from brickless.device.control.tools.client import ToolError
from brickless.device.control.tools.pvcontrol import exit_code
from brickless.device.update import deploy
from brickless.store import atomic
from brickless.store.objects import ObjectStore

USAGE = """usage: pvtx COMMAND
  begin current|empty|PATH [OBJECTS]   start; with OBJECTS for `deploy`, without for `commit`
  add FILE|-                           put a package in (tar, tar.gz, tar.bz2 or a state), `-` reads standard input
  remove PART                          take a part out
  show                                 the state so far
  status                               what is under way, as JSON
  commit [NAME]                        make it the revision locals/NAME of this device; prints its name
  local [NAME]                         commit, and have it run
  deploy DIR                           make DIR that revision (a transaction with OBJECTS)
  abort                                forget it
  queue new QUEUE OBJECTS              keep what follows for later
  queue remove PART | unpack FILE|-    steps of the queue
  queue process [BASE [QUEUE OBJECTS]] do them in order, as one transaction
Example: pvtx begin current && pvtx add page.tgz && pvcontrol cmd run "$(pvtx commit)"
"""
STATUS, CURRENT, QUEUE = ".status", "current.json", ".queue"
SYSTEM_DIR, USER_DIR = "/var/cache/pvtx", ".local/share/pvtx"


class Status(NamedTuple):
    """What is under way: `objects` is the folder for `deploy`, "" when they go to the device."""

    base: str
    objects: str


class Transaction:
    """The one that is under way in a folder."""

    def __init__(self, folder: str, socket_path: str) -> None:
        self._folder = folder
        self._given_socket = socket_path

    # -- its files ------------------------------------------------------------------------------------------------

    def status(self) -> Status | None:
        """None when none is under way."""
        value = self._read(STATUS)
        if value is None:
            return None
        document = json.loads(value)
        return Status(str(document["base"]), str(document["objects"]))

    def active(self) -> Status:
        """Raises ToolError when none is under way."""
        status = self.status()
        if status is None:
            raise ToolError("no transaction is under way: begin one with `pvtx begin current`")
        return status

    def state(self) -> bytes:
        """The state so far."""
        self.active()
        value = self._read(CURRENT)
        if value is None:
            raise ToolError(f"{self._folder}/{CURRENT} is gone: `pvtx abort` and begin again")
        return value

    def _read(self, name: str) -> bytes | None:
        try:
            with open(os.path.join(self._folder, name), "rb") as stream:
                return stream.read(tarball.MAX_STATE_BYTES)
        except FileNotFoundError:
            return None

    def _write(self, name: str, data: bytes) -> None:
        atomic.make_dirs(self._folder)
        atomic.write_file(os.path.join(self._folder, name), data)

    # -- commands -------------------------------------------------------------------------------------------------

    def begin(self, base: str, objects: str = "") -> None:
        """Start from the running revision, from nothing, or from a state on disk."""
        if self.status() is not None:
            raise ToolError("a transaction is under way already: commit or abort it first")
        entries = transaction.read(self._base(base))
        self._write(CURRENT, transaction.text(entries))
        where = os.path.abspath(objects) if objects else ""
        self._write(STATUS, json.dumps({"base": base, "objects": where}).encode())

    def _base(self, base: str) -> bytes:
        if base == "empty":
            return transaction.text({})
        if base == "current":
            reply = client.request(self._socket, "GET", "/steps/current")
            if exit_code(reply):
                raise ToolError(f"the running revision cannot be read: {reply.error}", exit_code(reply))
            return reply.body
        for path in (os.path.join(base, ".pvr", "json"), os.path.join(base, "json"), base):
            if os.path.isfile(path):
                with open(path, "rb") as stream:
                    return stream.read(tarball.MAX_STATE_BYTES + 1)
        raise ToolError(f"{base} is neither current nor empty, nor a state on disk")

    @property
    def _socket(self) -> str:
        return client.find_socket(self._given_socket)

    def add(self, source: str) -> None:
        """Put a package in: its objects first, so that a state never names what is not there."""
        status = self.active()
        package = self._unpack(source, self._sink(status.objects))
        merged = transaction.add(transaction.read(self.state()), package)
        self._write(CURRENT, transaction.text(merged))

    def _sink(self, objects: str) -> Callable[[tarball.Member], None]:
        return self._to_device if not objects else lambda member: _to_folder(member, ObjectStore(objects))

    def _to_device(self, member: tarball.Member) -> None:
        target = f"/objects/{member.sha}"
        reply = client.request(self._socket, "PUT", target, member.pieces(), size_bytes=member.size_bytes)
        if exit_code(reply):
            raise ToolError(f"the object {member.sha} was refused: {reply.error}", exit_code(reply))

    def _unpack(self, source: str, sink: Callable[[tarball.Member], None]) -> transaction.Entries:
        state = b""
        with open(0 if source == "-" else source, "rb", closefd=source != "-") as stream:
            for member in tarball.members(stream):
                if member.sha:
                    sink(member)
                else:
                    state = member.read()
        if not state:
            raise HostileInputError(f"{source} is no package: it has no json")
        return transaction.read(state)

    def remove(self, part: str) -> None:
        """Take a part out."""
        self._write(CURRENT, transaction.text(transaction.remove(transaction.read(self.state()), part)))

    def abort(self) -> None:
        """Forget it. What was put into the pool is garbage there."""
        for name in (STATUS, CURRENT):
            atomic.discard(os.path.join(self._folder, name))

    def commit(self, name: str = "") -> str:
        """Make it a revision of this device; returns its name."""
        if self.active().objects:
            raise ToolError("this transaction was begun with a folder for objects: finish it with `pvtx deploy DIR`")
        state = self.state()
        rev = revision_name(name, state)
        reply = client.request(self._socket, "PUT", f"/steps/{rev}", state)
        if exit_code(reply):
            raise ToolError(f"the revision was refused: {reply.error}", exit_code(reply))
        self.abort()
        return rev

    def run(self, name: str = "") -> str:
        """Commit, and have it tried."""
        rev = self.commit(name)
        body = json.dumps({"op": "LOCAL_RUN", "payload": rev}).encode()
        reply = client.request(self._socket, "POST", "/commands", body)
        if exit_code(reply):
            raise ToolError(f"{rev} is there, but was not started: {reply.error}", exit_code(reply))
        return rev

    def deploy(self, folder: str) -> None:
        """Make `folder` the revision; the old one stays in `folder.bak` until the new one is whole."""
        objects = self.active().objects
        if not objects:
            raise ToolError("this transaction was begun without a folder for objects: finish it with `pvtx commit`")
        deploy.deploy(os.path.abspath(folder), objects, parse_state(self.state()))
        self.abort()

    # -- queue ----------------------------------------------------------------------------------------------------

    def queue_new(self, queue: str, objects: str) -> None:
        """Keep the steps that follow in `queue`, their objects in `objects`."""
        atomic.make_dirs(os.path.abspath(queue))
        if os.listdir(queue):
            raise ToolError(f"{queue} is not empty: a queue begins in a folder of its own")
        where = {"queue": os.path.abspath(queue), "objects": os.path.abspath(objects)}
        self._write(QUEUE, json.dumps(where).encode())

    def _queue(self) -> tuple[str, str]:
        value = self._read(QUEUE)
        if value is None:
            raise ToolError("there is no queue: begin one with `pvtx queue new QUEUE OBJECTS`")
        document = json.loads(value)
        return str(document["queue"]), str(document["objects"])

    def _enqueue(self, kind: str, data: bytes) -> None:
        queue, _ = self._queue()
        atomic.write_file(os.path.join(queue, f"{len(os.listdir(queue)) + 1:03}.{kind}"), data)

    def queue_remove(self, part: str) -> None:
        """A step that takes a part out."""
        self._enqueue("remove", part.encode())

    def queue_unpack(self, source: str) -> None:
        """A step that puts a package in; its objects are unpacked now."""
        _, objects = self._queue()
        self._enqueue("add", transaction.text(self._unpack(source, self._sink(objects))))

    def queue_process(self, base: str = "current", queue: str = "", objects: str = "") -> None:
        """Do all steps in order; the transaction is under way then."""
        folder, pool = (queue, objects) if queue else self._queue()
        steps = sorted(os.listdir(folder))
        self.begin(base, pool)
        try:
            entries = transaction.read(self.state())
            for step in steps:
                with open(os.path.join(folder, step), "rb") as stream:
                    data = stream.read(tarball.MAX_STATE_BYTES)
                if step.endswith(".remove"):
                    entries = transaction.remove(entries, data.decode())
                else:
                    entries = transaction.add(entries, transaction.read(data))
            self._write(CURRENT, transaction.text(entries))
        except BaseException:
            self.abort()
            raise


def _to_folder(member: tarball.Member, objects: ObjectStore) -> None:
    objects.add(member.pieces(), sha=member.sha, size=member.size_bytes)


def revision_name(given: str, state: bytes) -> str:
    """`locals/<given>`, or a name that nobody else has."""
    if given:
        return given if given.startswith("locals/") else f"locals/{given}"
    from brickless.core.canonical import sha256_hex

    number = int.from_bytes(os.urandom(4), "big") % 1000
    return f"locals/pvtx-{int(time.time())}-{sha256_hex(state)[:8]}-{number}"


def folder() -> str:
    """Where transactions are kept: PVTXDIR, else the system's place for root and the user's for others."""
    given = os.environ.get("PVTXDIR", "")
    if given:
        return given
    return SYSTEM_DIR if os.geteuid() == 0 else os.path.join(os.environ.get("HOME", "/"), USER_DIR)


def _say(text: str | bytes) -> None:
    client.write_out(text if isinstance(text, bytes) else text.encode())


def _status(one: Transaction) -> None:
    status = one.status()
    value: dict[str, object] = {"active": status is not None}
    if status is not None:
        value.update(base=status.base, objects=status.objects, mode="local" if status.objects else "remote")
        value["parts"] = sorted(transaction.parts(transaction.read(one.state())))
    _say(json.dumps(value) + "\n")


COMMANDS: dict[tuple[str, ...], tuple[tuple[int, ...], Callable[..., None]]] = {
    ("begin",): ((1, 2), Transaction.begin),
    ("add",): ((1,), Transaction.add),
    ("remove",): ((1,), Transaction.remove),
    ("show",): ((0,), lambda one: _say(one.state() + b"\n")),
    ("status",): ((0,), _status),
    ("commit",): ((0, 1), lambda one, name="": _say(one.commit(name) + "\n")),
    ("local",): ((0, 1), lambda one, name="": _say(one.run(name) + "\n")),
    ("deploy",): ((1,), Transaction.deploy),
    ("abort",): ((0,), Transaction.abort),
    ("queue", "new"): ((2,), Transaction.queue_new),
    ("queue", "remove"): ((1,), Transaction.queue_remove),
    ("queue", "unpack"): ((1,), Transaction.queue_unpack),
    ("queue", "process"): ((0, 1, 3), Transaction.queue_process),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in (["-h"], ["--help"]):
        _say(USAGE)
        return 0
    depth = 2 if words[:1] == ["queue"] else 1
    known = COMMANDS.get(tuple(words[:depth]))
    if known is None or len(words) - depth not in known[0]:
        client.complain("pvtx", f"not understood: {' '.join(words)}\n{USAGE}")
        return 1
    try:
        known[1](Transaction(folder(), os.environ.get("PVTX_SOCKET", "")), *words[depth:])
    except ToolError as error:
        client.complain("pvtx", error.message)
        return error.code
    except (BricklessError, OSError) as error:
        client.complain("pvtx", str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
