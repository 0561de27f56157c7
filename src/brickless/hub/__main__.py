"""`python -m brickless.hub`: serve, or make an account. The only module here that prints and reads arguments."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from dataclasses import replace
from typing import Any

import uvloop

from brickless.core.errors import BricklessError
from brickless.hub.adapters.archive import back_up, restore
from brickless.hub.adapters.keys import rotate
from brickless.hub.adapters.server import Tls
from brickless.hub.app import Settings, running, serve
from brickless.hub.domain.errors import Refusal
from brickless.hub.domain.policy import Policy

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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m brickless.hub", description=__doc__)
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of the database, the objects and the keys")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=12365, help="HTTP port; 0 takes a free one")
    parser.add_argument("--tls-port", type=int, help="HTTPS port beside it; 0 takes a free one")
    parser.add_argument("--tls-cert", metavar="FILE", help="certificate chain, PEM")
    parser.add_argument("--tls-key", metavar="FILE", help="its key, PEM")
    parser.add_argument("--public-url", metavar="URL", help="where clients reach the hub (default: what each called)")
    parser.add_argument("--database-url", metavar="URL", help="postgresql+asyncpg://... (default: SQLite in DIR)")
    parser.add_argument("--demo-accounts", action="store_true", help="make user1/user1 and others: never in production")
    parser.add_argument("--no-sign-up", action="store_true", help="only `account create` makes accounts")
    parser.add_argument("--verify-email", action="store_true", help="a new account must open the link of a mail first")
    parser.add_argument("--no-rate-limits", action="store_true", help="for load tests")
    parser.add_argument("--log-level", default="warning", choices=("debug", "info", "warning", "error"))
    commands = parser.add_subparsers(dest="command")
    account = commands.add_parser("account", help="make accounts").add_subparsers(dest="action", required=True)
    create = account.add_parser("create", help="make an account")
    create.add_argument("nick")
    create.add_argument("--email", required=True)
    create.add_argument(
        "--password-file", required=True, metavar="FILE", help="its first line is the password; - is stdin"
    )
    create.add_argument("--admin", action="store_true", help="may list all accounts and act as any of them")
    admin = commands.add_parser("admin", help="look after the data").add_subparsers(dest="action", required=True)
    backup = admin.add_parser("backup", help="write a backup; the hub may run meanwhile")
    backup.add_argument("file")
    restored = admin.add_parser("restore", help="make DIR, which must not exist, from a backup")
    restored.add_argument("file")
    admin.add_parser("check", help="read every object that a revision may need")
    collect = admin.add_parser("gc", help="remove what nobody needs; the hub does this by itself every six hours")
    collect.add_argument("--older-than-minutes", type=float, help="instead of the days that things are kept")
    admin.add_parser("rotate-keys", help="new keys; restart the hub to use them. Tokens stay valid until they expire")
    return parser


def _settings(arguments: argparse.Namespace) -> Settings:
    policy = Policy(
        sign_up=not arguments.no_sign_up,
        verify_email=arguments.verify_email,
        rate_limits=not arguments.no_rate_limits,
    )
    return Settings(
        data_dir=arguments.data,
        database_url=arguments.database_url,
        public_url=arguments.public_url.rstrip("/") if arguments.public_url else None,
        demo_accounts=arguments.demo_accounts,
        policy=policy,
    )


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
    if arguments.action == "backup":
        print(f"{back_up(settings.data_dir, arguments.file)} objects in {arguments.file}")
    elif arguments.action == "restore":
        print(f"{restore(arguments.file, settings.data_dir)} objects in {settings.data_dir}")
    elif arguments.action == "rotate-keys":
        rotate(f"{settings.data_dir}/keys")
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


async def _serve(settings: Settings, arguments: argparse.Namespace) -> None:
    def ready(addresses: list[str]) -> None:
        print("hub: ready " + " ".join(addresses), flush=True)

    tls = None
    if arguments.tls_port is not None:
        tls = Tls(arguments.tls_port, arguments.tls_cert or "", arguments.tls_key or "")
    await serve(settings, host=arguments.host, port=arguments.port, tls=tls, ready=ready)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, 1 for what was refused, 2 for wrong arguments."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.tls_port is not None and not (arguments.tls_cert and arguments.tls_key):
        parser.error("--tls-port needs --tls-cert and --tls-key")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=arguments.log_level.upper(), handlers=[handler])
    settings = _settings(arguments)
    try:
        if arguments.command == "account":
            asyncio.run(_create_account(settings, arguments))
        elif arguments.command == "admin":
            return asyncio.run(_administer(settings, arguments))
        else:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_serve(settings, arguments))
    except Refusal as error:
        print(f"hub: {error.message}", file=sys.stderr)
        return 1
    except (BricklessError, OSError) as error:
        print(f"hub: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
