"""Hashes of secrets and signatures of tokens."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from typing import Any

import jwt
from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from brickless.hub.adapters.keys import Keys
from brickless.hub.domain.errors import Forbidden, Unauthenticated
from brickless.hub.services.ports import Claims

# OWASP's second choice for Argon2id: 19 MiB, two passes, one lane; about 25 ms.
_MEMORY_KIB = 19 * 1024
_PASSES = 2
#: At most this many slow hashes at once: nothing else here takes as much memory and a whole core.
_AT_ONCE = 2
_FAST = "hmac-sha256$"
_MAX_SECRET_BYTES = 1024


class HashedSecrets:
    """`services.ports.Secrets`.

    Passwords and secrets that clients chose get Argon2id. Secrets that the hub generated have 77 bits, which no slow
    hash makes safer; they get an HMAC keyed with the hub's pepper, so that ten thousand devices can log in at once.
    """

    def __init__(self, pepper: bytes) -> None:
        self._pepper = pepper
        self._slots = asyncio.Semaphore(_AT_ONCE)
        # What an unknown name is compared with: the answer takes as long as for a known one.
        self._decoy = self._slow(secrets.token_hex(16))

    @staticmethod
    def _slow(secret: str) -> str:
        kdf = Argon2id(salt=secrets.token_bytes(16), length=32, iterations=_PASSES, lanes=1, memory_cost=_MEMORY_KIB)
        return kdf.derive_phc_encoded(secret.encode())

    @staticmethod
    def _slow_matches(secret: str, stored: str) -> bool:
        try:
            Argon2id.verify_phc_encoded(secret.encode(), stored)
        except InvalidKey:
            return False
        return True

    def _fast(self, secret: str, salt: str) -> str:
        digest = hmac.new(self._pepper, f"{salt}${secret}".encode(), hashlib.sha256).hexdigest()
        return f"{_FAST}{salt}${digest}"

    async def hash_password(self, password: str) -> str:
        """See `services.ports.Secrets.hash_password`."""
        async with self._slots:
            return await asyncio.to_thread(self._slow, password)

    async def hash_device_secret(self, secret: str, *, generated: bool) -> str:
        """See `services.ports.Secrets.hash_device_secret`."""
        return self._fast(secret, secrets.token_hex(8)) if generated else await self.hash_password(secret)

    async def verify(self, secret: str, stored: str) -> bool:
        """See `services.ports.Secrets.verify`."""
        if stored.startswith(_FAST):
            salt = stored[len(_FAST) :].partition("$")[0]
            return hmac.compare_digest(self._fast(secret, salt), stored)
        async with self._slots:
            matches = await asyncio.to_thread(self._slow_matches, secret, stored or self._decoy)
        return matches and bool(stored)

    def hash_token(self, token: str) -> str:
        """See `services.ports.Secrets.hash_token`."""
        return hmac.new(self._pepper, token.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()


class JwtSigner:
    """`services.ports.Signer`: RS256 for callers, HS256 for what the hub says to itself."""

    def __init__(self, keys: Keys) -> None:
        self._private = keys.token
        self._publics = [keys.token.public_key(), *([keys.previous] if keys.previous is not None else [])]
        self._seal = keys.seal

    def _purpose_key(self, purpose: str) -> bytes:
        # One key a purpose: a cursor can never pass for a password recovery.
        return hmac.new(self._seal, purpose.encode(), hashlib.sha256).digest()

    def bearer(self, claims: dict[str, object]) -> str:
        """See `services.ports.Signer.bearer`."""
        return jwt.encode(dict(claims), self._private, algorithm="RS256")

    def verify_bearer(self, token: str) -> dict[str, object]:
        """See `services.ports.Signer.verify_bearer`."""
        for key in self._publics:
            try:
                claims: dict[str, Any] = jwt.decode(
                    token, key, algorithms=["RS256"], options={"require": ["exp"], "verify_aud": False}
                )
            except jwt.InvalidSignatureError:
                continue
            except (jwt.PyJWTError, ValueError, RecursionError) as error:
                raise Unauthenticated(detail=f"bearer token refused: {type(error).__name__}") from error
            return claims
        raise Unauthenticated(detail="bearer token refused: signed by a key that is not ours")

    def object_url_token(self, claims: Claims, *, subject: str, issuer: str, now_s: int, life_s: int) -> str:
        """See `services.ports.Signer.object_url_token`."""
        payload = {
            "iss": issuer,
            "sub": subject,
            "aud": claims.storage_id,
            "iat": now_s,
            "exp": now_s + life_s,
            "DispositionName": claims.name,
            "Size": claims.size_bytes,
            "Method": claims.method,
            "Sha": claims.sha,
            "Owner": claims.owner,
            "Store": claims.store,
        }
        return jwt.encode(payload, self._purpose_key("object url"), algorithm="HS256")

    def verify_object_url(self, token: str) -> Claims:
        """See `services.ports.Signer.verify_object_url`."""
        found = self._decode(token, self._purpose_key("object url"))
        return Claims(
            str(found["Method"]), str(found["Sha"]), int(str(found["Size"])), str(found["DispositionName"]),
            str(found["aud"]), bool(found["Store"]), str(found["Owner"]),
        )  # fmt: skip

    def sealed(self, purpose: str, claims: dict[str, object], *, now_s: int, life_s: int) -> str:
        """See `services.ports.Signer.sealed`."""
        payload = {**claims, "iat": now_s, "exp": now_s + life_s}
        return jwt.encode(payload, self._purpose_key(purpose), algorithm="HS256")

    def open_sealed(self, purpose: str, token: str) -> dict[str, object]:
        """See `services.ports.Signer.open_sealed`."""
        return self._decode(token, self._purpose_key(purpose))

    @staticmethod
    def _decode(token: str, key: bytes) -> dict[str, object]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token, key, algorithms=["HS256"], options={"require": ["exp"], "verify_aud": False}
            )
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise Forbidden("The token is wrong or no longer valid", detail=type(error).__name__) from error
        return claims
