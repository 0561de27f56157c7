"""`pvcontrol`: the control socket from a shell (device.md 6.3). The answer's body goes to standard output.

Exit status: 0 done; 75 busy, try again later; 48 no space, 60 bad checksum, 70 state refused; 1 no answer or wrong
usage; 255 anything else. Contrary to the reference, an answer without a body (204: nothing was to be done) is no
failure.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import IO, NamedTuple

from brickless.core.errors import BricklessError
from brickless.device.control.tools import client, tarball
from brickless.device.control.tools.client import Reply, ToolError, quote

USAGE = """usage: pvcontrol [-h] [-v] [-s SOCKET] [-f FILE] [-m MESSAGE] COMMAND
  ls                                        containers
  containers ls | start NAME | stop NAME | restart NAME
  groups ls
  signal ready | alive
  cmd run REV | run-commit REV | reboot [MESSAGE] | poweroff [MESSAGE] | run-gc | make-factory [REV]
  cmd enable-ssh | disable-ssh | go-remote | unclaim | defer-reboot SECONDS
  devmeta ls | save KEY VALUE | delete KEY
  usrmeta ls | save KEY VALUE | delete KEY
  buildinfo
  objects ls | get SHA | put PATH SHA | put -SIZE SHA        (-SIZE: so many bytes of standard input)
  steps ls | get REV | show-progress REV | put JSON locals/NAME | install TGZ [locals/NAME]
  config ls                                 settings by their old names
  conf ls                                   settings with the level that they come from
  graph ls
  daemons ls | start NAME | stop NAME | restart NAME
  storage gc
Example: pvcontrol -m 'new page' steps install page.tgz locals/page && pvcontrol cmd run locals/page
"""
CODES = {
    "Not enough disk space available": 48,
    "Object has bad checksum": 60,
    "State verification has failed": 70,
}
BUSY, OTHER = 75, 255
OPS = {
    "run": "LOCAL_RUN",
    "run-commit": "LOCAL_RUN_COMMIT",
    "reboot": "REBOOT_DEVICE",
    "poweroff": "POWEROFF_DEVICE",
    "run-gc": "RUN_GC",
    "make-factory": "MAKE_FACTORY",
    "enable-ssh": "ENABLE_SSH",
    "disable-ssh": "DISABLE_SSH",
    "go-remote": "GO_REMOTE",
    "unclaim": "UNCLAIM",
    "defer-reboot": "DEFER_REBOOT",
}
NEEDS_PAYLOAD = {"run", "run-commit", "defer-reboot"}
LISTS = {
    "containers": "/containers",
    "groups": "/groups",
    "devmeta": "/device-meta",
    "usrmeta": "/user-meta",
    "objects": "/objects",
    "steps": "/steps",
    "config": "/config",
    "conf": "/config2",
    "configuration": "/config2",
    "graph": "/xconnect-graph",
    "daemons": "/daemons",
}


class Options(NamedTuple):
    """What stands before the command."""

    socket: str = ""
    out: str = ""
    message: str = ""


class UsageError(ToolError):
    """The command line makes no sense."""


class Control:
    """One command."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._socket = client.find_socket(options.socket)

    def ask(self, method: str, target: str, body: bytes = b"") -> int:
        """One request: its body goes out, its status becomes the exit status."""
        return self.report(client.request(self._socket, method, target, body))

    def report(self, reply: Reply) -> int:
        """Write the body out and return the exit status."""
        if reply.body:
            end = b"" if reply.headers.get("content-type", "") != "application/json" or self._options.out else b"\n"
            client.write_out(reply.body + end, self._options.out)
        return exit_code(reply)

    def command(self, op: str, payload: str) -> int:
        """POST /commands."""
        return self.ask("POST", "/commands", json.dumps({"op": op, "payload": payload}).encode())

    def put_object(self, source: str, sha: str) -> int:
        """A file, or so many bytes of standard input."""
        if source.startswith("-"):
            if not source[1:].isdigit():
                raise UsageError("objects put -SIZE SHA: SIZE is a number of bytes")
            return self.report(self._send(sys.stdin.buffer, int(source[1:]), sha))
        with open(source, "rb") as stream:
            return self.report(self._send(stream, os.fstat(stream.fileno()).st_size, sha))

    def _send(self, stream: IO[bytes], size: int, sha: str) -> Reply:
        return client.request(self._socket, "PUT", f"/objects/{quote(sha)}", _pieces(stream, size), size_bytes=size)

    def put_step(self, path: str, rev: str) -> int:
        """A state from a file."""
        with open(path, "rb") as stream:
            return self._put_state(stream.read(), rev)

    def _put_state(self, state: bytes, rev: str) -> int:
        name = rev if rev.startswith("locals/") else f"locals/{rev}"
        code = self.ask("PUT", f"/steps/{name}", state)
        if code == 0 and self._options.message:
            code = self.ask("PUT", f"/steps/{name}/commitmsg", self._options.message.encode())
        return code

    def install(self, path: str, rev: str) -> int:
        """Everything of an export: its objects, then its state under `rev`."""
        state = b""
        with open(path, "rb") as stream:
            name = rev or f"locals/{_sha256(stream)}"
            stream.seek(0)
            for member in tarball.members(stream):
                if member.sha:
                    target = f"/objects/{member.sha}"
                    reply = client.request(self._socket, "PUT", target, member.pieces(), size_bytes=member.size_bytes)
                    if exit_code(reply):
                        return self.report(reply)
                else:
                    state = member.read()
        if not state:
            raise ToolError(f"{path} is no export: it has no json")
        code = self._put_state(state, name)
        if code == 0:
            client.write_out(f"{name}\n".encode())
        return code


def exit_code(reply: Reply) -> int:
    """The exit status for an answer."""
    if reply.status in (200, 204):
        return 0
    if reply.status == 503:
        return BUSY
    return CODES.get(reply.error, OTHER)


def _pieces(stream: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0:
        piece = stream.read(min(size, client.READ_BYTES))
        if not piece:
            raise ToolError(f"the input ended {size} bytes early")
        size -= len(piece)
        yield piece


def _sha256(stream: IO[bytes]) -> str:
    from brickless.store.objects import hash_stream

    return hash_stream(stream)


def parse(argv: Sequence[str]) -> tuple[Options, list[str]]:
    """Options, and the words of the command. Raises UsageError."""
    options, words = Options(), list(argv)
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word in ("-h", "--help"):
            raise UsageError("", 0)
        if word in ("-v", "--verbose"):
            continue
        if word not in ("-s", "-f", "-m") or not words:
            raise UsageError(f"the option {word} is not known, or lacks its value")
        field = {"-s": "socket", "-f": "out", "-m": "message"}[word]
        options = options._replace(**{field: words.pop(0)})
    if not words:
        raise UsageError("a command is missing")
    return options, words


def run(options: Options, words: list[str]) -> int:
    """Do one command. Raises UsageError, ToolError, OSError."""
    group, rest = words[0], words[1:]
    if group in ("ls", "list") and not rest:
        return Control(options).ask("GET", "/containers")
    if group == "buildinfo" and not rest:
        return Control(options).ask("GET", "/buildinfo")
    if group in ("cmd", "command", "commands"):
        return _command(options, rest)
    verb, *arguments = rest or [""]
    if verb in ("ls", "list") and not arguments and group in LISTS:
        return Control(options).ask("GET", LISTS[group])
    action = ACTIONS.get((group, verb))
    if action is None or len(arguments) not in action.counts:
        raise UsageError(f"not understood: {' '.join(words)}")
    return action.do(Control(options), *arguments)


def _command(options: Options, words: list[str]) -> int:
    name, *payload = words or [""]
    if name not in OPS or len(payload) > 1 or (name in NEEDS_PAYLOAD and not payload):
        raise UsageError(f"not understood: cmd {' '.join(words)}")
    given = payload[0] if payload else options.message if name in ("reboot", "poweroff") else ""
    return Control(options).command(OPS[name], given)


class Action(NamedTuple):
    """What a command does, and how many arguments it takes."""

    counts: tuple[int, ...]
    do: Callable[..., int]


def _act(path: str, action: str) -> Action:
    return Action((1,), lambda c, name: c.ask("PUT", f"{path}/{quote(name)}", json.dumps({"action": action}).encode()))


def _restart_daemon(control: Control, name: str) -> int:
    stop, start = (json.dumps({"action": word}).encode() for word in ("stop", "start"))
    return control.ask("PUT", f"/daemons/{quote(name)}", stop) or control.ask("PUT", f"/daemons/{quote(name)}", start)


def _save(path: str) -> Action:
    return Action((2,), lambda c, key, value: c.ask("PUT", f"{path}/{quote(key)}", value.encode()))


def _delete(path: str) -> Action:
    return Action((1,), lambda c, key: c.ask("DELETE", f"{path}/{quote(key)}"))


def _signal(kind: str) -> Action:
    body = json.dumps({"type": kind, "payload": ""}).encode()
    return Action((0,), lambda c: c.ask("POST", "/signal", body))


ACTIONS: dict[tuple[str, str], Action] = {
    ("containers", "start"): _act("/containers", "start"),
    ("containers", "stop"): _act("/containers", "stop"),
    ("containers", "restart"): _act("/containers", "restart"),
    ("daemons", "start"): _act("/daemons", "start"),
    ("daemons", "stop"): _act("/daemons", "stop"),
    ("daemons", "restart"): Action((1,), _restart_daemon),
    ("signal", "ready"): _signal("ready"),
    ("signal", "alive"): _signal("alive"),
    ("devmeta", "save"): _save("/device-meta"),
    ("devmeta", "upload"): _save("/device-meta"),
    ("devmeta", "delete"): _delete("/device-meta"),
    ("usrmeta", "save"): _save("/user-meta"),
    ("usrmeta", "delete"): _delete("/user-meta"),
    ("objects", "get"): Action((1,), lambda c, sha: c.ask("GET", f"/objects/{quote(sha)}")),
    ("objects", "put"): Action((2,), Control.put_object),
    ("steps", "get"): Action((1,), lambda c, rev: c.ask("GET", f"/steps/{rev}")),
    ("steps", "show-progress"): Action((1,), lambda c, rev: c.ask("GET", f"/steps/{rev}/progress")),
    ("steps", "put"): Action((2,), Control.put_step),
    ("steps", "install"): Action((1, 2), lambda c, path, rev="": c.install(path, rev)),
    ("storage", "gc"): Action((0,), lambda c: c.ask("POST", "/storage/gc")),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    try:
        options, words = parse(sys.argv[1:] if argv is None else argv)
        return run(options, words)
    except UsageError as error:
        (sys.stderr if error.code else sys.stdout).write(
            f"{'pvcontrol: ' if error.message else ''}{error.message}\n{USAGE}"
        )
        return error.code
    except ToolError as error:
        client.complain("pvcontrol", error.message)
        return error.code
    except (BricklessError, OSError) as error:
        client.complain("pvcontrol", str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
