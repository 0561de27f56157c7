"""Sends webhooks: to checked addresses only, without redirects, proxies or patience."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit

import httpx

from brickless.hub.domain.webhooks import Address, Network, reachable

_TIMEOUT_S = 10.0
_PORTS = {"http": 80, "https": 443}


class RefusedAddressError(OSError):
    """The name leads to an address to which no webhook may go."""


class HttpCourier:
    """`services.ports.Courier`.

    The name is resolved once, every address is checked, and the connection goes to one of those that were checked: a
    name that changes its mind between the check and the connection changes nothing.
    """

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._allowed: tuple[Network, ...] = tuple(map(ipaddress.ip_network, allowed))
        self._client = httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False, follow_redirects=False)

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()

    async def _resolved(self, host: str, port: int, scheme: str) -> Address:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
        for address in addresses:
            if not reachable(address, scheme, self._allowed):
                raise RefusedAddressError(
                    f"{host} leads to {address}, where no webhook may go; see --webhook-network"
                    if scheme == "https" or not address.is_global
                    else f"{host}: webhooks go over https"
                )
        return addresses[0]

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
        """See `services.ports.Courier.post`."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        try:
            async with asyncio.timeout(_TIMEOUT_S * 2):
                address = await self._resolved(
                    host, parts.port or (443 if parts.scheme == "https" else 80), parts.scheme
                )
                target = httpx.URL(url).copy_with(host=str(address))
                sent = {**headers, "host": parts.netloc}
                # The certificate is checked against the name, not against the address that it led to.
                request = self._client.build_request(
                    "POST", target, headers=sent, content=body, extensions={"sni_hostname": host}
                )
                answer = await self._client.send(request, stream=True)
                await answer.aclose()
        except (OSError, TimeoutError, httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            return 0, (str(error) or type(error).__name__)[:200]
        return answer.status_code, "" if answer.is_success else f"the receiver answered {answer.status_code}"
