"""The table of `pvr`'s commands and its global flags (pvr.md 1.3 to 1.9). Importing it imports no command."""

from __future__ import annotations

from contextlib import chdir
from types import MappingProxyType
from typing import Any

import click

from brickless.pvr.cli import Entry, Group, option
from brickless.pvr.env import API_BASE, REPO_BASE, Env, default_config_dir
from brickless.pvr.errors import CommandError, Failed

_HERE = "brickless.pvr.commands."
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
# A command whose name is a keyword of Python.
_MODULES = {"import": "import_"}


def _table(*rows: tuple[str, tuple[str, ...], str]) -> MappingProxyType[str, Entry]:
    """A registry whose modules are named after the commands, dashes as underscores."""
    return MappingProxyType(
        {
            name: Entry(_HERE + _MODULES.get(name, name.replace("-", "_")), aliases, summary)
            for name, aliases, summary in rows
        }
    )


COMMANDS = _table(
    ("init", ("i",), "Make a repository in this folder."),
    ("clone", ("c",), "Make a working copy of a device, a repository or an export."),
    ("add", ("a",), "Mark files for the next commit."),
    ("rm", (), "Remove files from the tree and from the next commit."),
    ("mv", (), "Rename a file or a folder of the tree."),
    ("status", ("s",), "Show which files a commit would add, change or remove."),
    ("diff", ("d",), "Show what changed, as a JSON merge patch."),
    ("json", ("j",), "Print the working tree as a state."),
    ("commit", ("ci",), "Make the working tree the committed state."),
    ("checkout", ("co", "reset", "r"), "Write the committed state's files into the working tree."),
    ("get", ("g",), "Replace the committed state, or parts of it, from elsewhere."),
    ("merge", ("m",), "Merge a state from elsewhere into the committed one."),
    ("post", ("po",), "Hand the committed state to a device's trail as a new revision."),
    ("put", ("p",), "Replace the whole state of a repository elsewhere."),
    ("put-objects", ("putobjects",), "Upload the objects of the committed state."),
    ("fastcopy", ("fcp",), "Copy a state, or parts of it, between two trails on the hub."),
    ("deploy", (), "Build a device's storage revision from repositories."),
    ("export", (), "Write the committed state and its objects into a tar archive."),
    ("import", (), "Take a state and its objects from a tar archive."),
    ("inspect", (), "Print the state of a repository, an archive or a device."),
    ("remoteinfo", ("ri", "remote-info"), "Print how a remote repository is reached."),
    ("stepinfo", ("step-info",), "Print the step that a remote repository is at."),
    ("app", (), "Containers: from images to apps."),
    ("sig", (), "Signatures over parts of a state."),
    ("login", ("lo",), "Log in to a hub."),
    ("logout", (), "Forget the tokens of a hub."),
    ("whoami", ("wai",), "Show who you are at each hub."),
    ("register", ("reg",), "Make an account on a hub."),
    ("claim", ("cl",), "Make a device yours."),
    ("device", ("dev",), "Devices: create, get, set, ls, ps, logs."),
    ("log", ("history",), "Show the revisions of this repository or of a trail."),
    ("tag", (), "Give a state a name, or list the names."),
    ("show", (), "Show a state for people: containers, sizes, what changed."),
    ("plan", (), "Show what a post would cost the device."),
    ("undo", (), "Take back the last change of the committed state."),
    ("revert", (), "Make an earlier state, or parts of it, the committed one again."),
    ("gc", (), "Remove objects from the pool that no repository needs."),
    ("fsck", (), "Check every object of the committed state, and mend what is not whole."),
    ("dm-convert", ("dmc",), "Protect a volume with dm-verity."),
    ("dm-apply", ("dma",), "Compute the dm-verity hashes of protected volumes anew."),
    ("fakeroot", (), "Run a program as if it were root's."),
    ("global-config", (), "Show or change the global settings."),
    ("completion", ("com",), "Print a shell completion script."),
    ("manpages", (), "Write the manual pages."),
    ("version", (), "Print the version."),
    ("self-upgrade", (), "Say how to upgrade."),
)


#: As they were called before there was `device` (pvr.md 1.5). `log` is none of them: it shows revisions.
MOVED = MappingProxyType(
    {
        name: Entry(f"{_HERE}device_{place}", (), f"pvr device {place}", hidden=True)
        for name, place in (("ps", "ps"), ("logs", "logs"), ("scan", "scan"))
    }
)


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        from brickless.pvr.version import version

        print(f"pvr version {version()}")
        ctx.exit(0)


@click.command(
    cls=Group,
    registry=COMMANDS,
    moved=MOVED,
    example="pvr clone me/my-device && cd my-device && pvr app add web --from nginx:1.27 && pvr add && "
    "pvr commit -m web && pvr post",
)
@option("--access-token", "-a", envvar="PVR_ACCESSTOKEN", default="", help="Bearer token for every call; never asks.")
@option("--baseurl", "-b", envvar="PVR_BASEURL", default=API_BASE, show_default=True, help="Base of the hub's API.")
@option("--http-proxy", envvar="PVR_HTTP_PROXY", default="system", help="system, no, or a proxy's URL.")
@option(
    "--repo-baseurl", "-r", envvar="PVR_REPO_BASEURL", default=REPO_BASE, show_default=True, help="Base of user/device."
)
@option("--config-dir", "-c", envvar="PVR_CONFIG_DIR", default="", help="Global configuration (default ~/.pvr).")
@option("--debug", "-d", is_flag=True, envvar="PVR_DEBUG", help="Trace requests and errors on stderr.")
@option(
    "--disable-self-upgrade",
    is_flag=True,
    envvar="PVR_DISABLE_SELF_UPGRADE",
    help="Accepted; pvr never upgrades itself.",
)
@option("--insecure", "-i", is_flag=True, envvar="PVR_INSECURE", help="Do not verify TLS certificates.")
@option("--user", "-u", envvar="PVR_USERNAME", default="", help="User for a login without questions.")
@option("--password", "-p", envvar="PVR_PASSWORD", default="", help="Password for a login without questions.")
@option(
    "--parallel",
    envvar="PVR_PARALLEL",
    type=click.IntRange(1, 32),
    default=5,
    show_default=True,
    help="Transfers at once.",
)
@option(
    "--color",
    "colour",
    envvar="PVR_COLOR",
    type=click.Choice(("auto", "always", "never")),
    default="auto",
    show_default=True,
    help="Colours; auto: on a terminal, without NO_COLOR.",
)
@option(
    "--timeout",
    "timeout_s",
    envvar="PVR_TIMEOUT",
    type=click.FloatRange(1.0, 86400.0),
    default=60.0,
    show_default=True,
    help="Seconds that a server may be silent.",
)
@option(
    "--limit-rate",
    envvar="PVR_LIMIT_RATE",
    default="",
    metavar="BYTES",
    help="At most so many bytes a second, up and down together; as in 500K or 2M.",
)
@option("--quiet", "-q", is_flag=True, envvar="PVR_QUIET", help="No talk on stderr except errors and warnings.")
@option("--verify", envvar="PVR_VERIFY", default="", help="Take nothing that these CAs or keys (PEM) did not sign.")
@option("--chdir", "-C", default="", help="Work in this folder, as if pvr had been started there.")
@option(
    "--version",
    "-v",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Print the version.",
)
@click.pass_obj
def root(env: Env, /, **flags: Any) -> None:
    """Git-like work with the software of devices.

    A repository holds one state: the whole software of a device, named by content. Change files, commit, post: the
    device becomes that state as a whole, or stays what it was.
    """
    env.access_token = flags["access_token"]
    env.api_base = flags["baseurl"].rstrip("/")
    env.repo_base = flags["repo_baseurl"].rstrip("/")
    env.http_proxy = flags["http_proxy"]
    env.config_dir = flags["config_dir"] or default_config_dir()
    env.debug = flags["debug"]
    env.insecure = flags["insecure"]
    env.user = flags["user"]
    env.password = flags["password"]
    env.parallel = flags["parallel"]
    env.colour = flags["colour"]
    env.timeout_s = flags["timeout_s"]
    env.limit_rate = _rate(flags["limit_rate"])
    env.quiet = flags["quiet"]
    env.verify = flags["verify"]
    _enter(flags["chdir"])


def _enter(folder: str) -> None:
    """Be in a folder until the command is over."""
    if not folder:
        return
    try:
        click.get_current_context().with_resource(chdir(folder))
    except OSError as error:
        raise Failed(CommandError(2, f"-C {folder}: {error.strerror}."), 2) from error


def _rate(text: str) -> int:
    """Bytes a second: a number, with K, M or G behind it for 1024, 1024² and 1024³; 0 when it is empty."""
    if not text:
        return 0
    digits = text[:-1] if text[-1].upper() in _UNITS else text
    if not (digits.isascii() and digits.isdigit() and int(digits)):
        raise click.BadParameter(f"{text!r} is no number of bytes, as 500K or 2M.", param_hint="--limit-rate")
    return int(digits) * _UNITS.get(text[-1].upper(), 1)
