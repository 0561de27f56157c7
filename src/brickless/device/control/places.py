"""Where the parts of local control meet: names of sockets and small files, and the settings that hold now.

<R>/pv-ctrl            the control socket (device.md 6.1)
<private>/agent        datagrams that wake the agent, one word each; no container sees this folder
<private>/go-remote    its presence lets a device with a local revision talk to its hub until the next boot
<private>/commands     KEY=value, the configuration level `command`
<private>/object-put   touched when an object was put by hand
"""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

from brickless.device import config as configuration
from brickless.device.config import Config, Sources
from brickless.store import atomic

RUN = "/run/pantavisor/pv"
PRIVATE = "/run/brickless"
CONTROL = "pv-ctrl"
AGENT = "agent"
GO_REMOTE = "go-remote"
COMMANDS = "commands"
OBJECT_PUT = "object-put"


class Place(NamedTuple):
    """One device: its partition, its run directory, what containers may not see, and where its settings are read."""

    storage: str
    run: str
    private: str
    sources: Sources


def private_of(run: str) -> str:
    """The folder for what no container may see: never below the run directory, which containers look into."""
    return PRIVATE if run.rstrip("/") == RUN else run.rstrip("/") + ".private"


def settings(place: Place) -> Config:
    """The configuration as it holds now, user metadata and commands included."""
    from brickless.device.link.usermeta import put_cached

    revision = os.path.join(place.storage, "trails", "current")
    config = configuration.load(place.sources._replace(storage=place.storage, revision_dir=revision))
    put_cached(config)
    put_commands(config, place.private)
    return config


def put_commands(config: Config, private: str) -> None:
    """Apply what commands have set since the boot."""
    config.drop(configuration.COMMAND)
    try:
        with open(os.path.join(private, COMMANDS), "rb") as stream:
            text = stream.read(configuration.MAX_FILE_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return
    config.put_all(configuration.COMMAND, configuration.lines(text))


def set_command(private: str, key: str, value: str) -> None:
    """Set one key on the level of commands, until the next boot."""
    path = os.path.join(private, COMMANDS)
    try:
        with open(path, encoding="utf-8") as stream:
            pairs = dict(configuration.lines(stream.read(configuration.MAX_FILE_BYTES)))
    except FileNotFoundError:
        pairs = {}
    pairs[key] = value
    os.makedirs(private, mode=0o700, exist_ok=True)
    atomic.write_file(path, "".join(f"{k}={v}\n" for k, v in sorted(pairs.items())).encode(), durable=False)


def poke(private: str, word: str) -> bool:
    """Wake the agent with one word; False when it is not there: it reads everything anew when it starts."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.sendto(word.encode(), os.path.join(private, AGENT))
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            return False
    return True
