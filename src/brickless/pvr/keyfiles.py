"""Keys and certificates from the files and settings of `pvr sig` (pvr.md 1.9, 5.2, 5.3)."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Sequence
from typing import Any

from cryptography import x509

from brickless.core.canonical import JsonValue, dumps, loads
from brickless.core.errors import BricklessError
from brickless.pvr import jws, signers, signing
from brickless.pvr.env import Env
from brickless.pvr.errors import CommandError
from brickless.store.repo import Repository
from brickless.store.tree import write_beneath

KEY_MISSING = 127
PUBKEY_MISSING = 11
PUBKEY_BROKEN = 12
_MAX_PEM_BYTES = 4 << 20


def signer(env: Env) -> tuple[signing.Signer, Sequence[x509.Certificate] | None]:
    """Who signs, and the chain for the header (None: leave it out)."""
    flags = env.parent
    chain = _chain(flags)
    environment = dict(os.environ)
    if flags["signer"]:
        return signers.command_signer(flags["signer"], _public_key(flags, chain), environment), chain
    if flags["key"].startswith("pkcs11:"):
        public = chain[0].public_key() if chain else None
        key = public if isinstance(public, jws.PublicKey) else None
        pin = environment.pop("PVR_SIG_PIN", "")
        return signers.token_signer(flags["key"], environment=environment, pin=pin, public_key=key), chain
    pem = _read(flags["key"], "signing key", KEY_MISSING)
    private = jws.load_private_key(pem, name=flags["key"], passphrase=_passphrase(pem, flags["key"], environment))
    return signers.FileSigner(private), chain


def _passphrase(pem: bytes, name: str, environment: dict[str, str]) -> bytes | None:
    """The passphrase of a key that has one: PVR_SIG_PASSPHRASE, else a question on a terminal."""
    if b"ENCRYPTED" not in pem:
        return None
    known = environment.get("PVR_SIG_PASSPHRASE", "")
    if not known and sys.stdin.isatty():
        known = getpass.getpass(f"Passphrase of {name}: ", stream=sys.stderr)
    return known.encode() or None


def trust(env: Env) -> signing.Trust:
    """Whom to believe: the keys of --pubkey, else the certificates of --cacerts."""
    flags = env.parent
    if flags["pubkey"]:
        pem = _read(flags["pubkey"], "public key", PUBKEY_MISSING)
        try:
            return signing.Trust(keys=tuple(jws.load_public_keys(pem, name=flags["pubkey"])))
        except BricklessError as error:
            raise CommandError(PUBKEY_BROKEN, error.message, context=error.context, hint=error.hint) from error
    if flags["cacerts"] == "_system_":
        raise CommandError(KEY_MISSING, "--cacerts _system_ is not supported anymore.", hint="Name a PEM file.")
    pem = _read(flags["cacerts"], "CA certificates", KEY_MISSING)
    return signing.Trust(roots=tuple(jws.load_certificates(pem, name=flags["cacerts"])))


def read_signature(path: str) -> JsonValue:
    """A signature's file. Strict: two readers of it must not see two documents. Raises HostileInputError."""
    with open(path, "rb") as file:
        return loads(file.read(_MAX_PEM_BYTES), strict=True)


def write_signature(env: Env, repo: Repository, path: str, document: dict[str, JsonValue]) -> None:
    """Put a signature into the working tree, or where --output says instead."""
    data = dumps(document)
    output = env.parent["output"]
    if output == "-":
        env.out(data.decode())
    elif output:
        from brickless.store.atomic import write_file

        write_file(os.path.abspath(output), data)
    else:
        write_beneath(repo.dir, path, data)


def _chain(flags: dict[str, Any]) -> Sequence[x509.Certificate] | None:
    if flags["x5c"] == "no":
        return None
    return jws.load_certificates(_read(flags["x5c"], "certificate chain", KEY_MISSING), name=flags["x5c"])


def _public_key(flags: dict[str, Any], chain: Sequence[x509.Certificate] | None) -> jws.PublicKey:
    if flags["pubkey"]:
        return jws.load_public_keys(_read(flags["pubkey"], "public key", PUBKEY_MISSING), name=flags["pubkey"])[0]
    key = chain[0].public_key() if chain else None
    if not isinstance(key, jws.PublicKey):
        raise CommandError(
            KEY_MISSING,
            "The public key of the signing program is not known.",
            hint="Give its certificate with --x5c, or the key itself with --pubkey.",
        )
    return key


def _read(path: str, what: str, code: int) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_PEM_BYTES)
    except OSError as error:
        raise CommandError(
            code,
            f"The {what} {path} cannot be read: {error.strerror}.",
            hint="Name yours (see `pvr sig --help`), or fetch the developer keys with `pvr sig download`.",
        ) from error
