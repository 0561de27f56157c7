"""A device's local control as a process on this machine: real sockets, real children, a supervisor in a fake world.

`python -m brickless.testkit.control_server FOLDER [ADDRESS:PORT SECRET]` prints `ready` when it listens, and runs until
it is killed. CONTAINERS in its environment is a JSON object: names, and what their manifests say beyond the usual.
Time in the fake world runs ten times as fast, so that a trial is over in a second.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time

from brickless.core.canonical import JsonValue
from brickless.device.control import places
from brickless.device.control.listener import Listener, tcp_door, unix_door
from brickless.device.supervise.main import serve_control, serve_remote
from brickless.device.supervise.server import Server
from brickless.testkit.control import ControlLab

SPEED = 10.0
TURN_MS = 50


def main() -> None:
    """Serve."""
    root, *remote = sys.argv[1:]
    lab = ControlLab(root, **json.loads(os.environ.get("CONTAINERS", "{}")))
    if remote:
        lab.environ["PV_CONTROL_HTTP_LISTEN"], lab.environ["PV_CONTROL_HTTP_SECRET"] = remote
        if "CERTIFICATE" in os.environ:
            lab.environ["PV_CONTROL_HTTP_CERTIFICATE"] = os.environ["CERTIFICATE"]
    place, poll = lab.place, select.poll()

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    listener = Listener(poll, say)
    listener.add(unix_door(os.path.join(place.run, places.CONTROL), lambda sock: serve_control(sock, place)))
    if remote:
        listener.add(tcp_door(remote[0], lambda sock: serve_remote(sock, place)))

    def answer(question: dict[str, JsonValue]) -> dict[str, JsonValue]:
        return lab.device.supervisor.request(question)  # looked up each time: a reboot makes another

    server = Server(os.path.join(place.run, "supervisor"), poll, answer)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    then_s = time.monotonic()
    while True:
        for fd, _ in poll.poll(TURN_MS):
            server.serve(fd)
            listener.serve(fd)
        now_s = time.monotonic()
        lab.device.run_for((now_s - then_s) * SPEED)
        then_s = now_s


if __name__ == "__main__":
    main()
