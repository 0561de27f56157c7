"""The log server: sockets that containers write to, files that they keep, the kernel's log (device.md 5.9).

    public.<C>/pv-ctrl-log   stream; one transmission a connection, ended by the peer or by a pause
    public.<C>/.log          datagrams: bound to /dev/log, syslog
    <R>/pv-ctrl-log          stream, for the host and for containers that manage the device
    <R>/pv-fd-log            stream: a process of the host hands a descriptor over, whose lines are logged

A container has sockets of its own: whatever comes by them is its own, even from a process that is gone already.
Nothing here blocks or grows: each turn reads a bounded amount of each, and a container that says more than its share of
the flash allows loses lines, which are counted.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

from brickless.core.canonical import JsonValue
from brickless.device.control import caller
from brickless.device.control.views import PUBLIC
from brickless.device.supervise import logparse, logs
from brickless.device.supervise.logparse import Record
from brickless.linux import libc

READ_BYTES = 16 * 1024
MAX_CLIENTS = 32
MAX_PENDING_BYTES = 64 * 1024
#: How often files inside containers are looked at.
LOOK_S = 15.0
AUTO_FILES = ("/var/log/syslog", "/var/log/messages")
KMSG = "/dev/kmsg"
_FD_MESSAGE = struct.Struct("=50s50sii")
_DAY_S = 86400.0


class Options(NamedTuple):
    """From the configuration: outputs, what is captured, bounds in bytes."""

    outputs: tuple[str, ...] = ("filetree",)
    capture: bool = True
    loggers: bool = True
    dmesg: bool = True
    wear_bytes: int = 64 << 20
    pieces: int = 5
    total_bytes: int = 16 << 20
    hysteresis: int = 4
    absolute: bool = False
    dev_log: bool = True


class _Client(NamedTuple):
    sock: socket.socket
    platform: str
    passes_fds: bool


class _File:
    """A file inside a container that is followed."""

    __slots__ = ("container", "inode", "maxsize", "name", "path", "position", "truncate")

    def __init__(self, container: str, path: str, name: str, *, truncate: bool, maxsize: int) -> None:
        self.container = container
        self.path = path
        self.name = name
        self.truncate = truncate
        self.maxsize = maxsize
        self.inode = 0
        self.position = 0


class _Share:
    """How much a container may still write: refilled by time, never more than a log file's worth at once."""

    __slots__ = ("at_s", "dropped", "left")

    def __init__(self, now_s: float) -> None:
        self.left = float(4 * logs.MAX_BYTES)
        self.at_s = now_s
        self.dropped = 0

    def take(self, size: int, per_day: int, now_s: float) -> bool:
        """Whether so many bytes may be written now."""
        self.left = min(4.0 * logs.MAX_BYTES, self.left + (now_s - self.at_s) * per_day / _DAY_S)
        self.at_s = now_s
        if size > self.left:
            self.dropped += 1
            return False
        self.left -= size
        return True


class LogServer:
    """Descriptors are registered with the caller's poll. `now_s` is a monotonic clock, `console` takes lines."""

    def __init__(
        self,
        storage: str,
        run: str,
        poll: select.poll,
        *,
        now_s: Callable[[], float],
        console: Callable[[str], object],
        options: Options,
    ) -> None:
        self._storage = storage
        self._run = run
        self._poll = poll
        self._now_s = now_s
        self._console = console
        self.options = options
        self.rev = ""
        self._listeners: dict[int, _Client] = {}
        self._clients: dict[int, _Client] = {}
        self._pending: dict[int, bytes] = {}
        self._handed: dict[int, tuple[str, str, int]] = {}
        self._files: list[_File] = []
        self._inits: dict[str, Callable[[], int | None]] = {}
        self._outputs: dict[str, logs.BoundedLog] = {}
        self._shares: dict[str, _Share] = {}
        self._kmsg = -1
        self._look_at_s = 0.0
        os.makedirs(run, exist_ok=True)
        self._listen(os.path.join(run, "pv-ctrl-log"), "", socket.SOCK_STREAM)
        self._listen(os.path.join(run, "pv-fd-log"), "", socket.SOCK_STREAM, passes_fds=True)
        if options.dmesg:
            self._open_kmsg()

    # -- what there is -----------------------------------------------------------------------------------------------

    def _listen(self, path: str, platform: str, kind: socket.SocketKind, *, passes_fds: bool = False) -> None:
        if os.path.lexists(path):
            os.unlink(path)
        sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        sock.bind(path)
        os.chmod(path, 0o600 if passes_fds else 0o666)
        if kind is socket.SOCK_STREAM:
            sock.listen(MAX_CLIENTS)
        self._listeners[sock.fileno()] = _Client(sock, platform, passes_fds)
        self._poll.register(sock, select.POLLIN)

    def _open_kmsg(self) -> None:
        try:
            self._kmsg = os.open(KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self._console(f"brickless: the kernel's log is not captured: {error}")
            return
        self._poll.register(self._kmsg, select.POLLIN)

    def add(self, container: str, wanted: tuple[Mapping[str, JsonValue], ...], init: Callable[[], int | None]) -> bool:
        """A container starts: make its sockets, follow its files. `init` tells the pid of its init, in time.

        False when nothing is captured by configuration.
        """
        self.remove(container)
        if not self.options.capture:
            return False
        public = os.path.join(self._run, PUBLIC + container)
        self._listen(os.path.join(public, "pv-ctrl-log"), container, socket.SOCK_STREAM)
        self._listen(os.path.join(public, ".log"), container, socket.SOCK_DGRAM)
        self._inits[container] = init
        if self.options.loggers:
            self._files += [_File(container, path, path[1:], truncate=False, maxsize=0) for path in AUTO_FILES]
            self._files += [one for entry in wanted if (one := _wanted(container, entry)) is not None]
        return True

    def remove(self, container: str) -> None:
        """A container is gone: what it kept is read to its end by the last look, its sockets close."""
        self._inits.pop(container, None)
        self._files = [one for one in self._files if one.container != container]
        for table in (self._listeners, self._clients):
            for fd, client in list(table.items()):
                if client.platform != container:
                    continue
                if table is self._clients:
                    self._finish(fd)
                else:
                    self._drop(table, fd)

    def _drop(self, table: dict[int, _Client], fd: int) -> None:
        self._poll.unregister(fd)
        table.pop(fd).sock.close()

    def close(self) -> None:
        """Close everything."""
        for table in (self._listeners, self._clients):
            for fd in list(table):
                self._drop(table, fd)
        for fd in list(self._handed):
            self._forget(fd)
        if self._kmsg >= 0:
            self._poll.unregister(self._kmsg)
            os.close(self._kmsg)
            self._kmsg = -1
        self._close_outputs()

    # -- events ------------------------------------------------------------------------------------------------------

    def serve(self, fd: int) -> None:
        """Serve a descriptor that is ready; one that is not ours is passed over."""
        if fd in self._listeners:
            self._accept_or_take(self._listeners[fd])
        elif fd in self._clients:
            self._read(fd)
        elif fd in self._handed:
            self._read_handed(fd)
        elif fd == self._kmsg:
            self._read_kmsg()

    def _accept_or_take(self, listener: _Client) -> None:
        try:
            if listener.sock.type == socket.SOCK_DGRAM:
                self.write_all(listener.platform, listener.sock.recv(READ_BYTES))
                return
            sock, _ = listener.sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        platform = listener.platform or _platform(sock)
        if len(self._clients) >= MAX_CLIENTS or (listener.passes_fds and platform != logs.PLATFORM):
            sock.close()
            return
        sock.setblocking(False)
        self._clients[sock.fileno()] = _Client(sock, platform, listener.passes_fds)
        self._poll.register(sock, select.POLLIN)

    def _read(self, fd: int) -> None:
        client = self._clients[fd]
        if client.passes_fds:
            self._take_fd(fd, client)
            return
        try:
            data = client.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._pending[fd] = self._pending.get(fd, b"") + data
        if not data or len(self._pending[fd]) >= MAX_PENDING_BYTES:
            self._finish(fd)

    def _finish(self, fd: int) -> None:
        """A transmission ended: what came is logged."""
        platform = self._clients[fd].platform
        self._drop(self._clients, fd)
        self.write_all(platform, self._pending.pop(fd, b""))

    def _take_fd(self, fd: int, client: _Client) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(client.sock, _FD_MESSAGE.size, 1)
        except OSError:
            data, fds = b"", []
        self._drop(self._clients, fd)
        if len(data) != _FD_MESSAGE.size:
            for one in fds:
                os.close(one)
            return
        platform, source, level, add = _FD_MESSAGE.unpack(data)
        known = (_text(platform), logparse.parse_source(_text(source)), level)
        if add and fds:
            os.set_blocking(fds[0], False)
            self._handed[fds[0]] = known
            self._poll.register(fds[0], select.POLLIN)
            return
        for one in [*fds, *(handed for handed, what in self._handed.items() if what == known)]:
            self._forget(one) if one in self._handed else os.close(one)

    def _forget(self, fd: int) -> None:
        self._poll.unregister(fd)
        del self._handed[fd]
        os.close(fd)

    def _read_handed(self, fd: int) -> None:
        platform, source, level = self._handed[fd]
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._forget(fd)
            return
        for line in data.decode("utf-8", "replace").splitlines():
            self.write(platform, Record(max(0, min(level, 6)), source, line))

    def _read_kmsg(self) -> None:
        """One record a read: `priority,sequence,time,flags;text` (dev-kmsg of the kernel's documentation)."""
        for _ in range(64):
            try:
                data = os.read(self._kmsg, 8192)
            except BlockingIOError:
                return
            except BrokenPipeError:
                continue  # the kernel overwrote records that we did not read in time
            head, _, text = data.decode("utf-8", "replace").partition(";")
            priority = head.split(",")[0]
            level = logparse.severity(int(priority)) if priority.isdigit() else logparse.INFO
            self.write(logs.PLATFORM, Record(level, "dmesg", text.split("\n")[0]))

    # -- files inside containers ---------------------------------------------------------------------------------------

    def due_s(self) -> float | None:
        """When `tick` must be called at the latest."""
        return self._look_at_s if self._files else None

    def tick(self) -> None:
        """Look at the files that are followed, when it is time."""
        now_s = self._now_s()
        if not self._files or now_s < self._look_at_s:
            return
        self._look_at_s = now_s + LOOK_S
        for one in self._files:
            try:
                self._look(one)
            except OSError as error:
                if error.errno not in (2, 13, 20, 40, 3):  # not there (yet), not to be read, no file, gone
                    self._console(f"brickless: log {one.container}:{one.path}: {error}")

    def _look(self, one: _File) -> None:
        pid = self._inits[one.container]()
        if pid is None:
            return
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_CLOEXEC)
        try:
            # The container's own symlinks lead nowhere else than inside it.
            resolve = libc.RESOLVE_IN_ROOT | libc.RESOLVE_NO_MAGICLINKS
            mode = os.O_RDWR if one.truncate else os.O_RDONLY
            fd = libc.openat2(root, one.path, mode | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, resolve)
        finally:
            os.close(root)
        try:
            self._follow(one, fd)
        finally:
            os.close(fd)

    def _follow(self, one: _File, fd: int) -> None:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            return
        if info.st_ino != one.inode or info.st_size < one.position:
            one.inode, one.position = info.st_ino, max(0, info.st_size - logs.MAX_BYTES)
        data = os.pread(fd, logs.MAX_BYTES, one.position)
        whole = data.rfind(b"\n") + 1 or (len(data) if len(data) == logs.MAX_BYTES else 0)
        one.position += whole
        for line in data[:whole].decode("utf-8", "replace").splitlines():
            self.write(one.container, Record(logparse.INFO, one.name, line))
        if one.truncate and info.st_size > one.maxsize and one.position >= info.st_size:
            os.ftruncate(fd, 0)
            one.position = 0

    # -- out -----------------------------------------------------------------------------------------------------------

    def log_to(self, rev: str) -> None:
        """From now on everything is of this revision."""
        if rev != self.rev:
            self._close_outputs()
            self.rev = rev
            self._bound()

    def _close_outputs(self) -> None:
        for output in self._outputs.values():
            output.close()
        self._outputs.clear()

    def write_all(self, platform: str, data: bytes) -> None:
        """All messages of one transmission."""
        for record in logparse.parse(data):
            self.write(platform, record)

    def write(self, platform: str, record: Record) -> None:
        """One message to every output, within its container's share."""
        now_s = self._now_s()
        share = self._shares.setdefault(platform, _Share(now_s))
        if not share.take(len(record.text) + 64, self.options.wear_bytes, now_s):
            return
        if share.dropped:
            lost, share.dropped = share.dropped, 0
            self._put(platform, Record(2, "log", f"{lost} lines were dropped: more than PV_LOG_WEAR_MAX allows"))
        self._put(platform, record)

    def _put(self, platform: str, record: Record) -> None:
        outputs, text = self.options.outputs, record.text
        line = logs.stamped(platform, record.source, logparse.LEVELS[record.level], text, self._stamp())
        if "filetree" in outputs:
            self._append(os.path.join(platform, record.source), line)
        if "singlefile" in outputs:
            self._append("pv.log", logs.ndjson(platform, record.source, logparse.LEVELS[record.level], text))
        if {"stdout", "stdout_direct", "stdout.containers"} & set(outputs) and platform != logs.PLATFORM:
            self._console(line.decode("utf-8", "replace").rstrip("\n"))

    def _stamp(self) -> float:
        import time

        return time.time() if self.options.absolute else self._now_s()

    def _append(self, relative: str, line: bytes) -> None:
        path = os.path.join(self._storage, "logs", self.rev, relative)
        output = self._outputs.get(path)
        if output is None:
            if len(self._outputs) >= MAX_CLIENTS:
                self._outputs.pop(next(iter(self._outputs))).close()
            output = self._outputs[path] = logs.BoundedLog(path, pieces=self.options.pieces)
        try:
            if output.write(line):
                self._bound()
        except OSError as error:
            # A full disk must not stop anything: the console says what is lost.
            self._console(f"brickless: log {path}: {error}")
            output.close()

    def _bound(self) -> None:
        """Keep all logs together within their bound."""
        if self.options.total_bytes:
            folder = os.path.join(self._storage, "logs")
            logs.enforce(folder, self.rev, self.options.total_bytes, self.options.hysteresis)


def _platform(sock: socket.socket) -> str:
    found = caller.container_of(caller.peer_of(sock))
    return "unknown" if found is None else found or logs.PLATFORM


def _text(field: bytes) -> str:
    text = field.split(b"\0", 1)[0].decode("utf-8", "replace")
    return text if text and "/" not in text and not text.startswith(".") else "unknown"


def _wanted(container: str, entry: Mapping[str, JsonValue]) -> _File | None:
    """A source of the manifest's `logs[]`; `lxc` and `console` are captured anyway."""
    path = entry.get("file")
    if not isinstance(path, str) or not path.startswith("/") or len(path) > 1024:
        return None
    name, size = entry.get("name"), entry.get("maxsize")
    label = logparse.parse_source(name if isinstance(name, str) and name else path)
    maxsize = size if isinstance(size, int) and size > 0 else logs.MAX_BYTES
    return _File(container, path, label, truncate=entry.get("truncate") in (True, "true"), maxsize=maxsize)
