"""`pvcurl`: as much of curl as scripts for the control socket use, for places that have no curl (device.md 6.3).

    pvcurl [-s] [-f] [-i] [-X METHOD] [-H 'NAME: VALUE']... [--data TEXT|@FILE] [-T FILE|-] [-o FILE] [-w FORMAT]
           [-m SECONDS] --unix-socket PATH http://localhost/TARGET

Exit status as curl's: 0, 2 usage, 7 nobody answers, 22 an error status with -f, 26 a file that cannot be read,
52 no answer. -w knows %{http_code} and \\n.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import IO

from brickless.device.control.tools import client
from brickless.device.control.tools.client import ToolError

USAGE_ERROR, NOT_CONNECTED, HTTP_ERROR, READ_ERROR, NO_ANSWER = 2, 7, 22, 26, 52
WITH_VALUE = {
    "-X": "method", "--request": "method",
    "-H": "header", "--header": "header",
    "-d": "data", "--data": "data", "--data-raw": "raw", "--data-binary": "data",
    "-T": "upload", "--upload-file": "upload",
    "-o": "out", "--output": "out",
    "-w": "write", "--write-out": "write",
    "-m": "seconds", "--max-time": "seconds", "--connect-timeout": "ignored",
    "--unix-socket": "socket",
}  # fmt: skip
#: Accepted, and without effect here: there is no progress bar, no TLS and no redirect on this socket.
FLAGS = {"-s", "--silent", "-S", "--show-error", "-k", "--insecure", "-L", "--location", "-v", "--verbose", "-N"}


class Options:
    """The command line."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.values: dict[str, str] = {}
        self.headers: list[str] = []
        self.fail = self.include = False
        self.url = ""
        words = list(argv)
        while words:
            self._take(words.pop(0), words)
        if not self.url or not self.url.startswith("http://") or "socket" not in self.values:
            raise ToolError("an URL http://localhost/... and --unix-socket PATH are needed", USAGE_ERROR)

    def _take(self, word: str, words: list[str]) -> None:
        if word in WITH_VALUE:
            if not words:
                raise ToolError(f"{word} lacks its value", USAGE_ERROR)
            name, value = WITH_VALUE[word], words.pop(0)
            if name == "header":
                self.headers.append(value)
            else:
                self.values[name] = value
        elif word in ("-f", "--fail"):
            self.fail = True
        elif word in ("-i", "--include"):
            self.include = True
        elif word.startswith("-") and not word.startswith("--") and len(word) > 2:
            for letter in word[1:-1]:
                self._take(f"-{letter}", [])
            self._take(f"-{word[-1]}", words)
        elif word.startswith("-") and word not in FLAGS:
            raise ToolError(f"the option {word} is not known", USAGE_ERROR)
        elif not word.startswith("-"):
            self.url = word


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    try:
        return _run(Options(sys.argv[1:] if argv is None else argv))
    except ToolError as error:
        client.complain("pvcurl", error.message)
        return error.code
    except OSError as error:
        client.complain("pvcurl", str(error))
        return READ_ERROR


def _run(options: Options) -> int:
    values = options.values
    try:
        sock = client.connect(values["socket"])
    except ToolError as error:
        raise ToolError(error.message, NOT_CONNECTED) from error
    with sock:
        if values.get("seconds", "").replace(".", "", 1).isdigit():
            sock.settimeout(float(values["seconds"]))
        try:
            for piece in _request(options):
                sock.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it answered before it had read all: the answer says why
        try:
            reply = client.read_reply(sock)
        except ToolError as error:
            raise ToolError(error.message, NO_ANSWER) from error
    failed = options.fail and reply.status >= 400
    if not failed:
        head = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
        shown = f"HTTP/1.1 {reply.status}\r\n{head}\r\n".encode() if options.include else b""
        client.write_out(shown + reply.body, values.get("out", ""))
    if "write" in values:
        text = values["write"].replace("%{http_code}", f"{reply.status:03}").replace("\\n", "\n")
        client.write_out(text.encode())
    return HTTP_ERROR if failed else 0


def _request(options: Options) -> Iterator[bytes]:
    values = options.values
    host, _, target = options.url[7:].partition("/")
    body, stream = _body(values)
    method = values.get("method", "PUT" if stream is not None else "POST" if body is not None else "GET")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in options.headers)
    }
    headers.setdefault("host", host)
    if stream is not None and "content-length" not in headers:
        headers["transfer-encoding"] = "chunked"
    elif body is not None:
        headers["content-length"] = str(len(body))
    lines = [f"{method} /{target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    yield "\r\n".join([*lines, "", ""]).encode()
    if body is not None:
        yield body
    if stream is None:
        return
    chunked = "transfer-encoding" in headers
    while piece := stream.read(client.READ_BYTES):
        yield b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece
    if chunked:
        yield b"0\r\n\r\n"


def _body(values: dict[str, str]) -> tuple[bytes | None, IO[bytes] | None]:
    """What is sent: bytes, or a stream of unknown length."""
    if "upload" in values:
        name = values["upload"]
        return None, sys.stdin.buffer if name in ("-", ".") else open(name, "rb")
    if "raw" in values:
        return values["raw"].encode(), None
    text = values.get("data")
    if text is None:
        return None, None
    if not text.startswith("@"):
        return text.encode(), None
    if text == "@-":
        return sys.stdin.buffer.read(), None
    with open(text[1:], "rb") as stream:
        return stream.read(), None


if __name__ == "__main__":
    sys.exit(main())
