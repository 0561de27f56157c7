"""`pvr sig`: the group of the signature commands and the flags that they share (pvr.md 1.9)."""

from __future__ import annotations

import os
from types import MappingProxyType
from typing import Any

import click

from brickless.pvr.cli import Entry, Group, option
from brickless.pvr.env import Env

CERTS_URL = "https://gitlab.com/pantacor/pv-developer-ca/-/raw/master/pvs/pvs.defaultkeys.tar.gz?inline=false"
_HERE = "brickless.pvr.commands.sig_"
COMMANDS = MappingProxyType(
    {
        "add": Entry(_HERE + "add", ("a",), "Sign a part of the committed state."),
        "update": Entry(_HERE + "update", ("up",), "Sign again what existing signatures cover."),
        "ls": Entry(_HERE + "ls", ("list",), "Verify signatures and list what they cover."),
        "download": Entry(_HERE + "download", (), "Fetch the default developer keys."),
    }
)


@click.command(cls=Group, name="sig", registry=COMMANDS, example="pvr sig --key key.pem --x5c chain.pem add --part web")
@option("--key", "-k", envvar="PVR_SIG_KEY", default="", help="Private key, PEM; or pkcs11:URI of a key in a token.")
@option("--signer", envvar="PVR_SIG_COMMAND", default="", help="Program that signs its stdin, instead of a key.")
@option("--x5c", "-x", envvar="PVR_X5C_PATH", default="", help="Certificate chain, PEM; `no` leaves it out.")
@option("--pubkey", "-p", envvar="PVR_SIG_PUBKEY", default="", help="Verify with these public keys, PEM.")
@option("--cacerts", "-c", envvar="PVR_SIG_CACERTS", default="", help="Verify with these certificates, PEM.")
@option("--certs-url", envvar="PVS_CERTS_URL", default=CERTS_URL, help="Where the default developer keys are.")
@option("--with-payload", is_flag=True, envvar="PVS_SIG_WITH_PAYLOAD", help="Put what is signed into the signature.")
@option(
    "--output",
    envvar="PVS_SIG_OUTPUT",
    default="",
    help="Write the signature there, not into _sigs; - is standard output.",
)
@click.pass_obj
def command(env: Env, /, **flags: Any) -> None:
    """Sign parts of the committed state, and verify signatures.

    A signature lies in _sigs/NAME.json; add and commit it like any other file.
    """
    folder = os.path.join(env.config_dir, "pvs")
    flags["key"] = flags["key"] or os.path.join(folder, "key.default.pem")
    flags["x5c"] = flags["x5c"] or os.path.join(folder, "x5c.default.pem")
    flags["cacerts"] = flags["cacerts"] or os.path.join(folder, "cacerts.default.pem")
    env.parent = flags
