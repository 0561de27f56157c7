"""The hub's command line. Every option has an environment variable beside it, for containers and for what is secret.

`--database-url` is BRICKLESS_HUB_DATABASE_URL; a flag's variable holds `true` or `false`. The command line wins.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
from collections.abc import Mapping

from brickless.core.errors import UserError
from brickless.hub.adapters.certificates import X509Certificates
from brickless.hub.app import Settings
from brickless.hub.domain.errors import Malformed
from brickless.hub.domain.oidc import Provider, check_address
from brickless.hub.domain.plans import PLANS
from brickless.hub.domain.policy import Policy

_PREFIX = "BRICKLESS_HUB_"
_EXAMPLES = """examples:
  brickless hub                                      serve on http://127.0.0.1:12365, with everything in a folder
  brickless hub admin create-account alice --email a@example.com --password-file - --admin
  brickless hub --data DIR admin backup hub.tar
"""


def default_data_dir(environment: Mapping[str, str]) -> str:
    """Where the hub keeps its things when nobody says: in the user's data folder."""
    home = environment.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return os.path.join(home, "brickless", "hub")


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """The parser, with the environment's values as defaults. Raises UserError for a flag that is neither on nor off."""
    made = argparse.ArgumentParser(
        prog="brickless hub",
        description="Serve a hub, or look after its data. Without any option it serves this machine.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_storage(made, environment)
    _add_network(made)
    _add_policy(made)
    _add_oidc(made)
    made.add_argument(
        "--traces-url", metavar="URL", help="OTLP over HTTP: http://collector:4318/v1/traces (default: off)"
    )
    made.add_argument("--traces-share", type=float, default=1.0, metavar="N", help="share of requests, 0 to 1")
    made.add_argument("--log-level", default="warning", choices=("debug", "info", "warning", "error"))
    _take_environment(made, environment)
    _add_commands(made)
    return made


def _add_storage(made: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    add = made.add_argument_group("where things are kept").add_argument
    folder = default_data_dir(environment)
    add("--data", default=folder, metavar="DIR", help=f"database, objects, keys (default: {folder})")
    add("--database-url", metavar="URL", help="postgresql+asyncpg://... (default: SQLite in DIR)")
    add("--objects-url", metavar="URL", help="s3://BUCKET/PREFIX?endpoint=URL&region=NAME (default: a folder in DIR)")
    add("--keys", metavar="DIR", help="folder of the keys, which replicas share; may be read-only (default: in DIR)")


def _add_network(made: argparse.ArgumentParser) -> None:
    add = made.add_argument_group("the network").add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    add("--port", type=int, default=12365, help="HTTP port; 0 takes a free one")
    add("--tls-port", type=int, help="HTTPS port beside it; 0 takes a free one")
    add("--tls-cert", metavar="FILE", help="certificate chain, PEM")
    add("--tls-key", metavar="FILE", help="its key, PEM")
    add("--trusted-proxies", default="", metavar="NETWORKS", help="whose X-Forwarded-For and -Proto are believed")
    add(
        "--device-ca",
        metavar="FILE",
        help="PEM: who issues the certificates with which devices log in, through a proxy",
    )
    add("--mail-url", metavar="URL", help="smtps://USER:PASSWORD@HOST or smtp://... (default: mails are files in DIR)")
    add("--mail-from", default="hub@localhost", metavar="ADDRESS", help="sender of mails")
    add(
        "--mail-ca",
        default="",
        metavar="FILE",
        help="who may sign its certificate (default: as the machine)",
    )
    add("--public-url", metavar="URL", help="where clients reach the hub (default: what each called)")


def _add_policy(made: argparse.ArgumentParser) -> None:
    add = made.add_argument_group("what is allowed").add_argument
    add("--no-sign-up", action="store_true", help="only `admin create-account` makes accounts")
    add("--verify-email", action="store_true", help="a new account must open the link of a mail first")
    add("--default-plan", default="UNLIMITED", choices=tuple(PLANS), help="what an account without a subscription has")
    add("--demo-accounts", action="store_true", help="make user1/user1 and others: never in production")
    add("--no-rate-limits", action="store_true", help="for load tests")
    add("--webhook-networks", default="", metavar="CIDR,...", help="private networks to which webhooks may go")


def _add_oidc(made: argparse.ArgumentParser) -> None:
    add = made.add_argument_group("signing in at an OpenID provider").add_argument
    add("--oidc-issuer", metavar="URL", help="the provider; its discovery document lies below this address")
    add("--oidc-client-id", metavar="ID", help="what the provider calls this hub")
    add("--oidc-client-secret-file", metavar="FILE", help="its first line is the secret")
    add("--oidc-name", default="single sign-on", metavar="NAME", help="what the button says")
    add("--oidc-sign-up", action="store_true", help="whom the provider knows gets an account, in spite of --no-sign-up")


def _take_environment(made: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    for action in made._actions:
        name = _PREFIX + action.dest.upper()
        value = environment.get(name, "")
        if not value or action.dest == "help":
            continue
        if isinstance(action.const, bool):
            if value.lower() not in {"true", "false"}:
                raise UserError("environment", f"{name} is {value[:40]!r}", hint="It must be true or false.")
            made.set_defaults(**{action.dest: value.lower() == "true"})
        else:
            # A string default goes through the option's own type, as if it had been typed.
            made.set_defaults(**{action.dest: value})


def _add_account(commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str) -> None:
    create = commands.add_parser(name, help="make an account")
    create.add_argument("nick")
    create.add_argument("--email", required=True)
    create.add_argument(
        "--password-file", required=True, metavar="FILE", help="its first line is the password; - is stdin"
    )
    create.add_argument("--admin", action="store_true", help="may list all accounts and act as any of them")


def _add_commands(made: argparse.ArgumentParser) -> None:
    commands = made.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("serve", help="serve: what happens without a command")
    _add_account(
        commands.add_parser("account", help="make accounts").add_subparsers(dest="action", required=True), "create"
    )
    admin = commands.add_parser("admin", help="look after the data").add_subparsers(dest="action", required=True)
    _add_account(admin, "create-account")
    backup = admin.add_parser("backup", help="write a backup; the hub may run meanwhile")
    backup.add_argument("file")
    restored = admin.add_parser("restore", help="make DIR, which must not exist, from a backup")
    restored.add_argument("file")
    admin.add_parser("check", help="read every object that a revision may need")
    collect = admin.add_parser("gc", help="remove what nobody needs; the hub does this by itself every six hours")
    collect.add_argument("--older-than-minutes", type=float, help="instead of the days that things are kept")
    admin.add_parser("make-keys", help="make the keys that are missing, for replicas that only read them")
    admin.add_parser("rotate-keys", help="new keys; restart the hub to use them. Tokens stay valid until they expire")


def _networks(text: str) -> tuple[str, ...]:
    networks = tuple(filter(None, text.split(",")))
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise UserError("network", f"{network[:60]!r} is no network", hint="Write it like 10.20.0.0/16.") from error
    return networks


def _provider(arguments: argparse.Namespace) -> Provider | None:
    if not arguments.oidc_issuer:
        return None
    if not arguments.oidc_client_id or not arguments.oidc_client_secret_file:
        raise UserError(
            "oidc", "--oidc-issuer lacks its client", hint="Give --oidc-client-id and --oidc-client-secret-file too."
        )
    try:
        check_address(arguments.oidc_issuer)
        with open(arguments.oidc_client_secret_file) as file:
            secret = file.readline().rstrip("\n")
    except (Malformed, OSError) as error:
        raise UserError(
            "oidc", f"The OpenID provider: {error}", hint="It needs https and a readable secret."
        ) from error
    issuer, client = arguments.oidc_issuer, arguments.oidc_client_id
    return Provider(issuer, client, secret, arguments.oidc_name, sign_up=arguments.oidc_sign_up)


def _device_roots(path: str | None) -> bytes:
    if not path:
        return b""
    try:
        with open(path, "rb") as file:
            pem = file.read()
        X509Certificates().roots(pem)
    except (Malformed, OSError) as error:
        raise UserError("device-ca", f"--device-ca {path}: {error}", hint="It holds CA certificates, PEM.") from error
    return pem


def settings(arguments: argparse.Namespace) -> Settings:
    """What the arguments say about the hub itself."""
    policy = Policy(
        sign_up=not arguments.no_sign_up,
        verify_email=arguments.verify_email,
        rate_limits=not arguments.no_rate_limits,
        default_plan=arguments.default_plan,
        webhook_networks=_networks(arguments.webhook_networks),
    )
    return Settings(
        data_dir=arguments.data,
        database_url=arguments.database_url,
        objects_url=arguments.objects_url,
        keys_dir=arguments.keys,
        public_url=arguments.public_url.rstrip("/") if arguments.public_url else None,
        demo_accounts=arguments.demo_accounts,
        trusted_proxies=arguments.trusted_proxies,
        device_roots=_device_roots(arguments.device_ca),
        mail_url=arguments.mail_url,
        mail_sender=arguments.mail_from,
        mail_ca=arguments.mail_ca,
        traces_url=arguments.traces_url,
        traces_share=arguments.traces_share,
        policy=policy,
        oidc=_provider(arguments),
    )
