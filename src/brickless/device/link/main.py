"""The agent's entry point: reads the configuration, says where the hub is, and runs the loop until SIGTERM.

SIGUSR1 ends every pause: it polls at once. PID 1 starts it, and starts it again when it ends. `--config FILE` names
another file than /etc/pantavisor.config.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from brickless.core.errors import UserError
from brickless.device import VERSION
from brickless.device.config import Config, Sources, load
from brickless.device.link.agent import Agent, Places
from brickless.device.link.http import Address, Proxy, Transport
from brickless.device.link.tls import Clock, Trust
from brickless.linux import mount
from brickless.store.trails import Storage

_MAX_COMMAND_LINE_BYTES = 64 * 1024


class Reporter:
    """Lines on standard error for the console and the log: `brickless: link: ...`; a repeated one is left out."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, sentence: str) -> None:
        """Writes one line."""
        line = " ".join(sentence.split())
        if line != self._last:
            self._last = line
            sys.stderr.write(f"brickless: link: {line}\n")
            sys.stderr.flush()


def hub_address(config: Config) -> Address:
    """Where the hub is. Raises UserError for plain HTTP to anything but this machine or the emulator's host."""
    scheme, host = config.text("PH_CREDS_SCHEME"), config.text("PH_CREDS_HOST")
    numeric = host.replace(".", "").isdigit()  # or 127.0.0.1.example.org would count as near
    near = host in {"localhost", "::1"} or (numeric and host.startswith(("127.", "10.0.2.")))
    if scheme not in {"https", "http"} or (scheme == "http" and not near):
        raise UserError(
            "hub-scheme",
            f"PH_CREDS_SCHEME={scheme} is not allowed for the hub {host}",
            hint="Use https; http is for loopback and the emulator's 10.0.2.x.",
        )
    if not host or not host.isascii() or not host.isprintable() or set(host) & set(" /@[]"):
        raise UserError("hub-host", f"PH_CREDS_HOST={host!r} is not a host name or address")
    return Address(scheme, host, config.integer("PH_CREDS_PORT"))


def transport_maker(trust: Trust) -> Callable[[Config], Transport]:
    """How connections are made, by configuration: timeouts may change while running."""

    def make(config: Config) -> Transport:
        proxy = None
        if config.text("PH_CREDS_PROXY_HOST"):
            connect = config.integer("PH_CREDS_PROXY_NOPROXYCONNECT") == 0
            proxy = Proxy(config.text("PH_CREDS_PROXY_HOST"), config.integer("PH_CREDS_PROXY_PORT"), connect)
        uname = os.uname()
        agent = f"Brickless/{VERSION} ({uname.sysname}; {uname.machine})"
        plain = Transport(float(config.seconds("PH_LIBEVENT_HTTP_TIMEOUT")), trust.context, proxy, agent)
        return plain._replace(on_early_certificate=trust.mend_clock(plain))

    return make


def _load(argv: list[str]) -> Config:
    try:
        with open("/proc/cmdline", "rb") as file:
            command_line = file.read(_MAX_COMMAND_LINE_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        command_line = ""
    file_name = argv[argv.index("--config") + 1] if "--config" in argv[:-1] else "/etc/pantavisor.config"
    sources = Sources(dict(os.environ), command_line, file=file_name)
    early = load(sources)
    storage = early.text("PV_STORAGE_MNTPOINT")
    if early.text("PV_SYSTEM_INIT_MODE") == "embedded":
        # PID 1 starts the supervisor, which mounts the storage, and us at the same time. Who the hub is lies there.
        mount.wait_for_mount(storage)
    return load(sources._replace(storage=storage, revision_dir=os.path.join(storage, "trails", "current")))


def main() -> int:
    """Runs the agent; 0 after SIGTERM."""
    report = Reporter()
    config = _load(sys.argv[1:])
    for problem in config.problems:
        report(f"configuration: {problem}")
    storage = Storage(config.text("PV_STORAGE_MNTPOINT"))
    clock = Clock(os.path.join(storage.root, "config", "clock"), report=report)
    if config.text("PV_SYSTEM_INIT_MODE") == "embedded":
        clock.raise_to_floor()
    trust = Trust((config.text("PV_HUB_CA"), os.path.join(config.text("PV_LIBTHTTP_CERTSDIR"), "*.pem")), clock)
    try:
        address = hub_address(config)
    except UserError as error:
        report(str(error))
        return _wait_for_the_end()
    agent = Agent(
        config, Places(storage, config.text("PV_SYSTEM_RUNDIR"), address), transport_maker(trust), clock, report
    )
    signal.signal(signal.SIGTERM, lambda *_: agent.stop())
    signal.signal(signal.SIGINT, lambda *_: agent.stop())
    signal.signal(signal.SIGUSR1, lambda *_: agent.hurry())
    report(f"the hub is {address.scheme}://{address.authority}")
    agent.run()
    return 0


def _wait_for_the_end() -> int:
    """With a configuration that cannot work, being started again and again would help nobody."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
