"""Who signs: a key in a PEM file, any program, or a PKCS#11 token through OpenSC (docs/adr/0011-external-signers.md).

A program gets the signing input on its stdin and writes the signature to its stdout: raw bytes, for EC keys either
DER or r||s. Whatever it answers is verified against the public key before anybody sees it (`signing.sign`).
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from brickless.core.errors import UserError
from brickless.linux import process
from brickless.pvr import jws

SIGNER_TIMEOUT_S = 120.0
MAX_SIGNATURE_BYTES = 4096
_COORDINATE_BYTES = {"ES256": 32, "ES384": 48, "ES512": 66}
_MODULES = (
    "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so",
    "/usr/lib/x86_64-linux-gnu/p11-kit-proxy.so",
    "/usr/lib/aarch64-linux-gnu/p11-kit-proxy.so",
)


class FileSigner:
    """A private key in memory."""

    __slots__ = ("_key",)

    def __init__(self, key: jws.PrivateKey) -> None:
        self._key = key

    @property
    def public_key(self) -> jws.PublicKey:
        """The key's public half."""
        return self._key.public_key()

    def sign(self, data: bytes) -> bytes:
        """Sign in this process."""
        return jws.sign(self._key, data)


class CommandSigner:
    """A program of the user's: an HSM's tool, a signing service's client, `ssh` to the machine that has the key."""

    __slots__ = ("_argv", "_environment", "_hashed", "public_key")

    def __init__(
        self,
        argv: Sequence[str],
        public_key: jws.PublicKey,
        *,
        environment: Mapping[str, str] | None = None,
        hashed: bool = False,
    ) -> None:
        """Sign with `argv`; the algorithm is that of `public_key`. `environment` is added to the clean one.

        With `hashed` the program gets the hash of the data, as bytes, instead of the data.
        """
        self._argv = tuple(argv)
        self._hashed = hashed
        self._environment = dict(environment or {})
        self.public_key = public_key

    def sign(self, data: bytes) -> bytes:
        """Run the program. Raises ProcessError, UserError."""
        alg = jws.algorithm(self.public_key)
        answer = process.run(
            self._argv,
            purpose="signing",
            timeout_s=SIGNER_TIMEOUT_S,
            input=_hash(alg, data) if self._hashed else data,
            env={**self._environment, "PVR_SIGN_ALG": alg},
        ).stdout
        return raw_signature(alg, answer)


def _hash(alg: str, data: bytes) -> bytes:
    return hashlib.new(f"sha{alg.removeprefix('ES').removeprefix('RS')}", data).digest()


def raw_signature(alg: str, answer: bytes) -> bytes:
    """A program's answer in the form that a JWS has: r||s for EC keys, from that or from DER. Raises UserError."""
    if not answer or len(answer) > MAX_SIGNATURE_BYTES:
        raise UserError(
            "signer-answer-size",
            f"the signing program wrote {len(answer)} bytes, where a signature was expected",
            hint="It must write the bare signature to its standard output, and nothing else.",
        )
    size = _COORDINATE_BYTES.get(alg)
    if size is None or len(answer) == 2 * size:
        return answer
    try:
        r, s = decode_dss_signature(answer)
        return r.to_bytes(size) + s.to_bytes(size)
    except (ValueError, OverflowError) as error:
        raise UserError(
            "signer-answer-form", f"the signing program's answer is neither {alg}'s r||s nor DER", context=str(error)
        ) from error


def command_signer(command: str, public_key: jws.PublicKey, environment: Mapping[str, str]) -> CommandSigner:
    """Make a signer of a command line; it is split as a shell would, and no shell runs."""
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise UserError("signer-command", f"the signing command {command!r} cannot be split: {error}") from error
    if not argv:
        raise UserError("signer-command", "the signing command is empty")
    return CommandSigner(argv, public_key, environment=environment)


class Token(NamedTuple):
    """A PKCS#11 URI (RFC 7512), as far as it finds a key: `pkcs11:token=..;object=..;id=%01?module-path=..`."""

    module: str
    token: str
    label: str
    key_id: str
    pin_file: str

    @classmethod
    def parse(cls, uri: str) -> Token:
        """Read a URI. A PIN in it is refused: it would be in the process list and in the shell's history."""
        path, _, query = uri.removeprefix("pkcs11:").partition("?")
        values: dict[str, bytes] = {}
        for item in filter(None, [*path.split(";"), *query.split("&")]):
            key, equals, value = item.partition("=")
            if not equals or key in values:
                raise UserError("pkcs11-uri", f"the PKCS#11 URI has the item {item!r}, which is no single key=value")
            values[key] = _percent(value)
        if "pin-value" in values:
            raise UserError(
                "pkcs11-pin-in-uri",
                "a PIN in a PKCS#11 URI is seen by everybody on this machine",
                hint="Write it to a file and name that with pin-source=file:PATH, or set PVR_SIG_PIN.",
            )
        if "object" not in values and "id" not in values:
            raise UserError("pkcs11-uri", "the PKCS#11 URI names no key: give object=LABEL or id=%01")
        text = {key: value.decode("utf-8", "replace") for key, value in values.items()}
        return cls(
            text.get("module-path") or _default_module(),
            text.get("token", ""),
            text.get("object", ""),
            values.get("id", b"").hex(),
            text.get("pin-source", "").removeprefix("file:"),
        )

    def arguments(self) -> list[str]:
        """The options of `pkcs11-tool` that find the key."""
        found = ["--module", self.module]
        for option, value in (("--token-label", self.token), ("--label", self.label), ("--id", self.key_id)):
            if value:
                found += [option, value]
        return found


def token_signer(
    uri: str, *, environment: Mapping[str, str], pin: str = "", public_key: jws.PublicKey | None = None
) -> CommandSigner:
    """Make a signer of a key that never leaves its token. Raises UserError, ToolMissingError, ProcessError.

    The PIN (from `pin-source`, else `pin`) goes to the tool through its environment, not through its arguments;
    `environment` is what the token's module may need (its configuration's place). The public key is read from the
    token unless it is given (that of the certificate): OpenSC 0.23 cannot read those of EC keys.
    """
    process.require("pkcs11-tool", "opensc")
    token = Token.parse(uri)
    if token.pin_file:
        with open(token.pin_file, encoding="utf-8") as file:
            pin = file.read(256).strip()
    key = public_key or _token_key(token, environment)
    # Every token signs a given hash with ECDSA; few know the mechanisms that hash by themselves.
    hashed = isinstance(key, ec.EllipticCurvePublicKey)
    mechanism = ["--mechanism", "ECDSA", "--signature-format", "rs"] if hashed else ["--mechanism", "SHA256-RSA-PKCS"]
    # The tool reads and writes files by name; these two names are its own stdin and stdout.
    streams = ["--input-file", "/dev/stdin", "--output-file", "/dev/stdout"]
    argv = ["pkcs11-tool", *token.arguments(), "--sign", *mechanism, *streams]
    if pin:
        argv += ["--login", "--pin", "env:BRICKLESS_TOKEN_PIN"]
        environment = {**environment, "BRICKLESS_TOKEN_PIN": pin}
    return CommandSigner(argv, key, environment=environment, hashed=hashed)


def _token_key(token: Token, environment: Mapping[str, str]) -> jws.PublicKey:
    argv = ["pkcs11-tool", *token.arguments(), "--read-object", "--type", "pubkey"]
    der = process.run(
        argv, purpose="reading the token's public key", timeout_s=SIGNER_TIMEOUT_S, env=environment
    ).stdout
    try:
        key = serialization.load_der_public_key(der)
    except ValueError as error:
        raise UserError("pkcs11-public-key", "the token's public key cannot be read", context=str(error)) from error
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise UserError("pkcs11-key-kind", "the token's key is neither RSA nor EC")
    return key


def _default_module() -> str:
    for path in _MODULES:
        if os.path.exists(path):
            return path
    raise UserError(
        "pkcs11-module",
        "the PKCS#11 URI names no module, and p11-kit is not installed",
        hint="Add ?module-path=/usr/lib/.../libsofthsm2.so (or that of your token), or install p11-kit-modules.",
    )


def _percent(value: str) -> bytes:
    if not re.fullmatch(r"(?:[^%]|%[0-9A-Fa-f]{2})*", value):
        raise UserError("pkcs11-uri", f"the PKCS#11 URI has a broken escape in {value!r}")
    return unquote(value, encoding="latin-1").encode("latin-1") if "%" in value else value.encode()
