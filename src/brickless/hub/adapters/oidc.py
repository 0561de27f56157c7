"""The OpenID provider over HTTPS: its discovery document, its keys, and the exchange of a code for a verified token."""

from __future__ import annotations

import time
from typing import Any

import httpx
import jwt

from brickless.hub.domain import oidc
from brickless.hub.domain.errors import Forbidden, Unavailable
from brickless.hub.domain.oidc import Endpoints, Provider

_TIMEOUT_S = 10.0
_REQUIRED = ("exp", "iat", "sub", "aud", "iss")
_MAX_BYTES = 512 * 1024
_KEEP_S = 3600.0
#: An unknown key is looked up at most this often: a forged token must not make the hub call on and on.
_REFETCH_S = 60.0


class HttpProvider:
    """`services.ports_operators.OidcClient`."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._client = httpx.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False)
        self._endpoints: tuple[float, Endpoints] | None = None
        self._keys: tuple[float, dict[str, jwt.PyJWK]] = (float("-inf"), {})

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()

    async def _json(self, request: httpx.Request) -> dict[str, Any]:
        try:
            answer = await self._client.send(request)
            if len(answer.content) > _MAX_BYTES:
                raise ValueError("the answer is too large")
            value = answer.json()
        except (httpx.HTTPError, OSError, ValueError) as error:
            raise Unavailable("The sign-in provider cannot be reached", detail=f"{request.url}: {error}") from error
        if answer.status_code != 200 or not isinstance(value, dict):
            shown = value.get("error") if isinstance(value, dict) else ""
            raise Forbidden("The sign-in provider refused", detail=f"{request.url}: {answer.status_code} {shown}")
        return value

    async def endpoints(self) -> Endpoints:
        """See `services.ports_operators.OidcClient.endpoints`."""
        if self._endpoints is not None and self._endpoints[0] > time.monotonic():
            return self._endpoints[1]
        address = f"{self.provider.issuer.rstrip('/')}/.well-known/openid-configuration"
        document = await self._json(self._client.build_request("GET", address))
        found = oidc.endpoints(document, self.provider.issuer)
        self._endpoints = (time.monotonic() + _KEEP_S, found)
        return found

    async def claims(self, code: str, *, verifier: str, callback: str) -> dict[str, object]:
        """See `services.ports_operators.OidcClient.claims`."""
        where = await self.endpoints()
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": callback, "code_verifier": verifier}
        who = httpx.BasicAuth(self.provider.client_id, self.provider.client_secret)
        request = self._client.build_request("POST", where.token, data=form)
        answer = await self._json(next(who.auth_flow(request)))
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise Forbidden("The sign-in provider gave no token")
        return await self._verified(token, where)

    async def _verified(self, token: str, where: Endpoints) -> dict[str, object]:
        try:
            key = await self._key(jwt.get_unverified_header(token), where)
            claims: dict[str, object] = jwt.decode(
                token, key, algorithms=list(oidc.ALGORITHMS), audience=self.provider.client_id,
                issuer=self.provider.issuer, leeway=oidc.LEEWAY_S, options={"require": list(_REQUIRED)},
            )  # fmt: skip
        except jwt.PyJWTError as error:
            raise Forbidden("The sign-in provider's token is not valid", detail=str(error)) from error
        return claims

    async def _key(self, header: dict[str, Any], where: Endpoints) -> jwt.PyJWK:
        wanted = str(header.get("kid", ""))
        fetched_s, keys = self._keys
        if wanted not in keys and time.monotonic() - fetched_s > _REFETCH_S:
            document = await self._json(self._client.build_request("GET", where.keys))
            keys = {str(key.key_id or ""): key for key in jwt.PyJWKSet.from_dict(document).keys}
            self._keys = (time.monotonic(), keys)
        if not wanted and len(keys) == 1:
            return next(iter(keys.values()))  # a token may leave the key's name out where there is one key
        if wanted not in keys:
            raise Forbidden("The sign-in provider's token has an unknown key")
        return keys[wanted]
