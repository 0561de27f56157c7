"""Use cases of devices that prove who they are with a certificate (contract appendix A, section 1.8)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import replace
from urllib.parse import unquote_to_bytes

from brickless.hub.domain import identity as identities
from brickless.hub.domain import ownership, prn
from brickless.hub.domain.errors import Forbidden, Malformed, NotFound
from brickless.hub.domain.jsontext import Value, load_stored
from brickless.hub.domain.values import Device, Identity
from brickless.hub.services import audit
from brickless.hub.services.parts import Parts
from brickless.hub.services.ports_apps import Certificates


class Ownership:
    """Validation of ownership, and logins by certificate. `device_roots`: who issues the certificates of logins."""

    def __init__(self, parts: Parts, certificates: Certificates, device_roots: bytes = b"") -> None:
        self._parts = parts
        self._certificates = certificates
        self._device_roots = device_roots

    def of_token(self, body: Value) -> str:
        """The stored text of what a new join token asks of its devices. Raises Malformed."""
        mode = ownership.of_token(body)
        if mode and load_stored(mode).get("root_of_trust"):
            self._certificates.roots(_root(mode))
        return mode

    async def validate(self, caller: Identity, device_id: str, certificate: str) -> dict[str, Value]:
        """Prove whose device it is, or say that it is proved. `certificate`: URL-encoded PEM, from the TLS front end.

        Raises Malformed (400), NotFound (404), Forbidden (403) as the contract has it; strangers are refused first.
        """
        prn.require_id(device_id)
        parts = self._parts
        async with parts.db.write() as session:
            device = await session.devices.get(device_id)
            if device is None:
                raise NotFound("There is no such device")
            is_itself = caller.prn == device.prn
            if not device.ovmode:
                if is_itself and device.owner:
                    return ownership.NOT_NEEDED
                raise NotFound("Nobody asks this device to prove whose it is")
            if not is_itself and not (caller.is_person and caller.prn == device.owner):
                raise Forbidden("This device belongs to somebody else")
            if not ownership.is_unverified(device.ovmode):
                return ownership.shown(device.ovmode)
            self._prove(device, certificate, is_itself=is_itself)
            audit.about(device.owner)
            changed = replace(device, ovmode=ownership.completed(device.ovmode), modified_ms=parts.clock.now_ms())
            await session.devices.update(changed)
        parts.changed(device.owner, device_id)
        return ownership.shown(changed.ovmode)

    def _prove(self, device: Device, certificate: str, *, is_itself: bool) -> None:
        if load_stored(device.ovmode)["mode"] == ownership.MANUAL:
            if is_itself:
                raise Forbidden("The owner of the device validates it")
            return
        if not is_itself:
            raise Malformed("The device itself proves whose it is, with its certificate")
        if not certificate:
            raise Malformed("No client certificate came with the request")
        now_ms = self._parts.clock.now_ms()
        self._certificates.serial_of(unquote_to_bytes(certificate), _root(device.ovmode), now_ms=now_ms)

    async def login(self, certificate: str) -> str:
        """A token for the device that a certificate names. Raises Forbidden for anybody else."""
        if not self._device_roots or not certificate:
            raise Forbidden("No client certificate that this hub takes came with the request")
        parts = self._parts
        try:
            serial = self._certificates.serial_of(
                unquote_to_bytes(certificate), self._device_roots, now_ms=parts.clock.now_ms()
            )
        except Malformed as error:
            raise Forbidden(error.message) from error
        async with parts.db.read() as session:
            device = await session.devices.get(serial) if prn.is_id(serial) else None
        if device is None:
            raise Forbidden("The client certificate names no device of this hub")
        claims = identities.device_claims(device)
        life_s = parts.policy.token_life_s
        return parts.signer.bearer(identities.lifetime(claims, now_s=parts.now_s(), life_s=life_s))


def _root(ovmode: str) -> bytes:
    """The PEM bundle that a mode names."""
    try:
        return base64.b64decode(str(load_stored(ovmode)["root_of_trust"]), validate=True)
    except binascii.Error as error:
        raise Malformed("'ovmode.root_of_trust' must be base64 of PEM certificates") from error
