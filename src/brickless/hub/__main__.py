"""`brickless hub`, or `python -m brickless.hub`: the only module here that prints and reads arguments."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from dataclasses import replace
from typing import Any

import uvloop

from brickless.core.errors import BricklessError
from brickless.hub.adapters.archive import back_up, restore
from brickless.hub.adapters.keys import load, rotate
from brickless.hub.adapters.server import Tls
from brickless.hub.app import Settings, running, serve
from brickless.hub.arguments import parser as make_parser
from brickless.hub.arguments import settings as settings_of
from brickless.hub.domain.errors import Refusal

_SOCKETS = "BRICKLESS_HUB_SOCKETS"
_STANDARD = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object a line: what happened, and the fields that the caller added. Nothing here knows a secret."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        fields: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields.update({key: value for key, value in record.__dict__.items() if key not in _STANDARD})
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


async def _create_account(settings: Settings, arguments: argparse.Namespace) -> None:
    if arguments.password_file == "-":  # noqa: S105 - a file's name
        password = sys.stdin.readline().rstrip("\n")
    else:
        with open(arguments.password_file) as file:
            password = file.readline().rstrip("\n")
    async with running(settings) as hub:
        role = "admin" if arguments.admin else "user"
        account = await hub.auth.create_account(arguments.email, arguments.nick, password, role=role)
    print(account.prn)


async def _administer(settings: Settings, arguments: argparse.Namespace) -> int:
    """Carry out an `admin` command; the exit status."""
    keys = settings.keys_dir or os.path.join(settings.data_dir, "keys")
    if arguments.action == "create-account":
        await _create_account(settings, arguments)
    elif arguments.action == "backup":
        count = back_up(settings.data_dir, arguments.file, keys=keys)
        print(f"{count} objects in {arguments.file}")
        if settings.objects_url is not None:
            print(f"the objects stay in {settings.objects_url.partition('?')[0]}: keep its versions", file=sys.stderr)
    elif arguments.action == "restore":
        print(f"{restore(arguments.file, settings.data_dir)} objects in {settings.data_dir}")
    elif arguments.action == "make-keys":
        load(keys)
        print(keys)
    elif arguments.action == "rotate-keys":
        rotate(keys)
        print("new keys; restart the hub")
    else:
        async with running(replace(settings, demo_accounts=False)) as hub:
            if arguments.action == "gc":
                print(json.dumps((await hub.collect_garbage(minutes=arguments.older_than_minutes))._asdict()))
            else:
                faults = await hub.upkeep.check()
                print("\n".join(faults) if faults else "every object is whole")
                return 1 if faults else 0
    return 0


def _inherited() -> list[int]:
    """The listening sockets that the process image before this one left open."""
    return [int(number) for number in os.environ.pop(_SOCKETS, "").split(",") if number]


def _become_new(sockets: list[int]) -> None:
    """Start again in this process, with its identity, its arguments and its listening sockets."""
    os.environ[_SOCKETS] = ",".join(map(str, sockets))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - our own command line


async def _serve(settings: Settings, arguments: argparse.Namespace) -> list[int]:
    def ready(addresses: list[str]) -> None:
        print("hub: ready " + " ".join(addresses), flush=True)

    tls = None
    if arguments.tls_port is not None:
        tls = Tls(arguments.tls_port, arguments.tls_cert or "", arguments.tls_key or "")
    return await serve(settings, host=arguments.host, port=arguments.port, tls=tls, ready=ready, inherited=_inherited())


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, 1 for what was refused, 2 for wrong arguments."""
    try:
        parser = make_parser(os.environ)
    except BricklessError as error:
        print(f"hub: {error}", file=sys.stderr)
        return 2
    arguments = parser.parse_args(argv)
    if arguments.tls_port is not None and not (arguments.tls_cert and arguments.tls_key):
        parser.error("--tls-port needs --tls-cert and --tls-key")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=arguments.log_level.upper(), handlers=[handler])
    try:
        settings = settings_of(arguments)
    except BricklessError as error:
        print(f"hub: {error}", file=sys.stderr)
        return 2
    try:
        if arguments.command == "account":
            asyncio.run(_create_account(settings, arguments))
        elif arguments.command == "admin":
            return asyncio.run(_administer(settings, arguments))
        else:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                sockets = runner.run(_serve(settings, arguments))
            if sockets:
                _become_new(sockets)
    except Refusal as error:
        print(f"hub: {error.message}", file=sys.stderr)
        return 1
    except (BricklessError, OSError) as error:
        print(f"hub: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
