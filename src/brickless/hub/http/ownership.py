"""The routes of devices that have a certificate (contract appendix A, section 1.8).

A header says which certificate the TLS front end saw, so it counts only on connections from `--trusted-proxies`.
"""

from __future__ import annotations

from brickless.hub.domain import scopes
from brickless.hub.http.messages import Request, Response, ok
from brickless.hub.http.router import Route
from brickless.hub.services.ownership import Ownership

_HEADERS = ("ssl-client-cert", "Pantahub-TLS-Client-Cert")


def certificate_of(request: Request) -> str:
    """The client's certificate as a trusted front end passed it on: URL-encoded PEM; empty without one."""
    if not request.from_trusted_proxy:
        return ""
    return next((value for name in _HEADERS if (value := request.header(name))), "")


class OwnershipRoutes:
    """Handlers. Whoever makes /devices and /auth puts these routes beside its own."""

    def __init__(self, ownership: Ownership) -> None:
        self.ownership = ownership

    def of_devices(self) -> tuple[Route, ...]:
        """The routes below /devices."""
        summary = "Prove whose device it is"
        return (Route("POST", "{id}/ownership/validate", self.validate, scopes.DEVICES_VALIDATE, summary=summary),)

    def of_auth(self) -> tuple[Route, ...]:
        """The routes below /auth."""
        return (Route("POST", "x509/login", self.login, public=True, summary="A device's token for its certificate"),)

    async def validate(self, request: Request) -> Response:
        """POST /devices/{id}/ownership/validate."""
        found = await self.ownership.validate(request.caller, request.params["id"], certificate_of(request))
        return ok(found)

    async def login(self, request: Request) -> Response:
        """POST /auth/x509/login."""
        return ok({"token": await self.ownership.login(certificate_of(request))})
