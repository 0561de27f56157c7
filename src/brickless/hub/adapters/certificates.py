"""Client certificates that a TLS front end handed over: who issued them, and which device they name."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from brickless.hub.domain.errors import Forbidden, Malformed

_MAX_ROOTS = 16


class X509Certificates:
    """`services.ports_apps.Certificates`."""

    def roots(self, pem: bytes) -> int:
        """See `services.ports_apps.Certificates.roots`."""
        return len(self._roots(pem))

    @staticmethod
    def _roots(pem: bytes) -> list[x509.Certificate]:
        try:
            found = x509.load_pem_x509_certificates(pem)
        except ValueError as error:
            raise Malformed("The root of trust holds no PEM certificates") from error
        if len(found) > _MAX_ROOTS:
            raise Malformed(f"The root of trust holds more than {_MAX_ROOTS} certificates")
        if not all(map(_may_issue, found)):
            raise Malformed("The root of trust holds a certificate that may not issue others")
        return found

    def serial_of(self, pem: bytes, roots: bytes, *, now_ms: int) -> str:
        """See `services.ports_apps.Certificates.serial_of`."""
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            names = certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
        except ValueError as error:
            raise Malformed("The client certificate cannot be read") from error
        now = datetime.fromtimestamp(now_ms / 1000, UTC)
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise Forbidden("The client certificate is not valid now")
        if not any(_issued(certificate, root, now) for root in self._roots(roots)):
            raise Forbidden("The client certificate is not from a trusted root")
        return str(names[0].value) if len(names) == 1 else ""


def _may_issue(certificate: x509.Certificate) -> bool:
    try:
        extensions = certificate.extensions
    except ValueError:
        return False
    ca = [one.value.ca for one in extensions if isinstance(one.value, x509.BasicConstraints)]
    signs = [one.value.key_cert_sign for one in extensions if isinstance(one.value, x509.KeyUsage)]
    return ca == [True] and signs != [False]


def _issued(certificate: x509.Certificate, root: x509.Certificate, now: datetime) -> bool:
    if not root.not_valid_before_utc <= now <= root.not_valid_after_utc:
        return False
    try:
        certificate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
