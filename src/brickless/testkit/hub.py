"""The real hub as a process on free loopback ports: started, waited for, killed, started again on the same data."""

from __future__ import annotations

import os
import select
import ssl
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

import brickless
from brickless.linux.process import PIPE, Process, spawn

READY_TIMEOUT_S = 60.0
_READY = b"hub: ready "


class Certificate:
    """A certificate authority of one certificate for loopback and for the emulated network, as PEM files."""

    def __init__(
        self, folder: str, *, hosts: Sequence[str] = ("localhost", "127.0.0.1", "10.0.2.100", "10.0.2.2")
    ) -> None:
        os.makedirs(folder, exist_ok=True)
        self.cert_file = os.path.join(folder, "hub-cert.pem")
        self.key_file = os.path.join(folder, "hub-key.pem")
        #: What a client must trust: the certificate signs itself.
        self.ca_file = self.cert_file
        key = ec.generate_private_key(ec.SECP256R1())
        with open(self.key_file, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(
                key.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
            )
        with open(self.cert_file, "wb") as file:
            file.write(_self_signed(key, hosts).public_bytes(serialization.Encoding.PEM))


def _self_signed(key: ec.EllipticCurvePrivateKey, hosts: Sequence[str]) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "brickless test hub")])
    names: list[x509.GeneralName] = []
    for host in hosts:
        numeric = host.replace(".", "").isdigit() or ":" in host
        names.append(x509.IPAddress(ip_address(host)) if numeric else x509.DNSName(host))
    now = datetime.now(UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A device's clock may be behind: emulated ones start where the image was built.
        .not_valid_before(now - timedelta(days=3650))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
    )
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return builder.add_extension(usage, critical=True).sign(key, hashes.SHA256())


class HubProcess:
    """A hub of its own process. `url` and `tls_url` are set while it runs; the data stays when it is killed."""

    def __init__(
        self,
        data_dir: str,
        *,
        tls: Certificate | None = None,
        demo_accounts: bool = True,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.certificate = tls
        self.url = ""
        self.tls_url = ""
        self.process: Process | None = None
        self._log_file = f"{data_dir.rstrip('/')}.log"
        self.arguments = list(arguments)
        self.environment = dict(environment or {})
        if demo_accounts:
            self.arguments.append("--demo-accounts")
        self._ports = ("0", "0")

    @property
    def port(self) -> int:
        """The HTTP port."""
        return int(self.url.rpartition(":")[2])

    @property
    def tls_port(self) -> int:
        """The HTTPS port."""
        return int(self.tls_url.rpartition(":")[2])

    def log(self) -> str:
        """What it logged, over all its starts."""
        with open(self._log_file) as file:
            return file.read()

    def start(self) -> HubProcess:
        """Start it, on the ports that it had before, and wait until it accepts connections."""
        argv = [sys.executable, "-m", "brickless.hub", "--data", self.data_dir, "--port", self._ports[0]]
        if self.certificate is not None:
            argv += ["--tls-port", self._ports[1], "--tls-cert", self.certificate.cert_file]
            argv += ["--tls-key", self.certificate.key_file]
        environment = {"PYTHONPATH": os.path.dirname(os.path.dirname(brickless.__file__)), **self.environment}
        with open(self._log_file, "ab") as log:
            self.process = spawn([*argv, *self.arguments], purpose="the hub", stdout=PIPE, stderr=log, env=environment)
        addresses = self.until_ready().split()
        self.url, self.tls_url = addresses[0], addresses[1] if len(addresses) > 1 else ""
        self._ports = (str(self.port), str(self.tls_port) if self.tls_url else "0")
        return self

    def until_ready(self) -> str:
        """Wait until it says that it accepts connections, at its start and again after a SIGHUP; what it said."""
        process = self.process
        if process is None or process.stdout is None:
            raise RuntimeError("the hub does not run, or was started without its output")
        stdout = process.stdout
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        line = b""
        while not line.endswith(b"\n"):
            left_s = deadline_s - time.monotonic()
            readable = select.select([stdout], [], [], max(0.0, left_s))[0]
            chunk = os.read(stdout.fileno(), 4096) if readable else b""
            if not chunk:
                process.stop()
                raise process.failure(self.log().encode())
            line += chunk
        if not line.startswith(_READY):
            raise RuntimeError(f"the hub said {line!r} instead of that it is ready")
        return line[len(_READY) :].decode().strip()

    def kill(self) -> None:
        """SIGKILL: what was acknowledged must be on the disk."""
        self._end(graceful=False)

    def stop(self) -> int:
        """SIGTERM, and wait for its end; returns the exit status."""
        return self._end(graceful=True)

    def _end(self, *, graceful: bool) -> int:
        if self.process is None:
            return 0
        if graceful:
            self.process.terminate()
            code = self.process.wait(30)
        else:
            code = self.process.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None
        return code

    def tls_context(self) -> ssl.SSLContext:
        """A client's context that trusts this hub and nobody else."""
        if self.certificate is None:
            raise RuntimeError("this hub has no TLS port")
        return ssl.create_default_context(cafile=self.certificate.ca_file)


@contextmanager
def running_hub(
    data_dir: str,
    *,
    tls: bool = False,
    demo_accounts: bool = True,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[HubProcess]:
    """A hub that runs in the block. `arguments` are those of `python -m brickless.hub`."""
    certificate = Certificate(f"{data_dir.rstrip('/')}-tls") if tls else None
    hub = HubProcess(
        data_dir, tls=certificate, demo_accounts=demo_accounts, arguments=arguments, environment=environment
    ).start()
    try:
        yield hub
    finally:
        hub.kill()
