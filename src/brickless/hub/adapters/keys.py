"""The hub's own keys: made at the first start in the data folder, readable by nobody else."""

from __future__ import annotations

import os
import secrets
from typing import NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from brickless.core.errors import BricklessError
from brickless.store.atomic import write_file
from brickless.store.lock import lock

_NAMES = ("token.pem", "seal.key", "pepper.key", "operator.secret")


class Keys(NamedTuple):
    """`token` signs bearer tokens; `seal` signs what only the hub reads; `pepper` keys the fast hashes.

    `previous` signed tokens before the last rotation: they stay valid until they expire. `operator` is the password of
    `saadmin`, who reads health and metrics.
    """

    token: rsa.RSAPrivateKey
    previous: rsa.RSAPublicKey | None
    seal: bytes
    pepper: bytes
    operator: str


def _read_or_make(path: str, make: bytes) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        write_file(path, make, mode=0o600)
        return make


def load(folder: str) -> Keys:
    """Read the keys of `folder`, making those that are missing. Raises BricklessError for a file that holds no key.

    A folder that has them all may be read-only, such as a mounted secret that many replicas share.
    """
    if all(os.path.exists(os.path.join(folder, name)) for name in _NAMES):
        return _load(folder)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    # Two replicas that start together for the first time must not make different keys.
    with lock(f"{folder}.lock", timeout_s=60):
        return _load(folder)


def _load(folder: str) -> Keys:
    path = os.path.join(folder, "token.pem")
    if not os.path.exists(path):
        write_file(path, _new_rsa(), mode=0o600)
    key = _read_rsa(path)
    before = os.path.join(folder, "token-previous.pem")
    previous = _read_rsa(before).public_key() if os.path.exists(before) else None
    seal = _read_or_make(os.path.join(folder, "seal.key"), secrets.token_bytes(32))
    pepper = _read_or_make(os.path.join(folder, "pepper.key"), secrets.token_bytes(32))
    if min(len(seal), len(pepper)) < 32:
        raise BricklessError(f"A key in {folder} is shorter than 32 bytes.", hint="Restore the folder from a backup.")
    operator = _read_or_make(os.path.join(folder, "operator.secret"), secrets.token_hex(24).encode())
    return Keys(key, previous, seal, pepper, operator.decode().strip())


def _read_rsa(path: str) -> rsa.RSAPrivateKey:
    with open(path, "rb") as file:
        pem = file.read()
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except ValueError as error:
        raise BricklessError(
            f"{path} holds no private key.", hint="Restore it, or remove it to log everybody out."
        ) from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise BricklessError(f"{path} must hold an RSA key: the wire's tokens are RS256.")
    return key


def rotate(folder: str) -> None:
    """New keys for tokens and for what the hub seals. Tokens that are out stay valid until they expire.

    Signed addresses, cursors and dashboard sessions end. The pepper stays: devices' secrets are hashed with it.
    """
    with lock(f"{folder}.lock", timeout_s=60):
        _load(folder)
        path = os.path.join(folder, "token.pem")
        with open(path, "rb") as file:
            write_file(os.path.join(folder, "token-previous.pem"), file.read(), mode=0o600)
        write_file(path, _new_rsa(), mode=0o600)
        write_file(os.path.join(folder, "seal.key"), secrets.token_bytes(32), mode=0o600)


def _new_rsa() -> bytes:
    # 2048 bits: the C client keeps the whole header in 1024 bytes, and the signature's length is the key's.
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
