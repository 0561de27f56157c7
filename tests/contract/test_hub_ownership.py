"""Devices that prove whose they are: join tokens with a mode, certificates through a front end (appendix A)."""

from __future__ import annotations

import base64
import os
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from brickless.linux.process import spawn
from brickless.testkit.hub import Certificate, HubProcess, running_hub
from brickless.testkit.hub_client import SPEC, Caller, DeviceCaller, claimed_device

Key = ec.EllipticCurvePrivateKey
HEADER = "ssl-client-cert"


class Authority:
    """A certificate authority of a factory."""

    def __init__(self, name: str, *, ca: bool = True) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._signed(self.name, self.key, ca=ca)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def bundle(self) -> str:
        return base64.b64encode(self.pem).decode()

    def _signed(self, subject: x509.Name, key: Key, *, ca: bool, days: int = 1) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=2)).not_valid_after(now + timedelta(days=days))
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        return builder.sign(self.key, hashes.SHA256())

    def device(self, serial: str = "0001", *, days: int = 1) -> tuple[bytes, Key]:
        """A device's certificate, PEM, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, serial)])
        return self._signed(subject, key, ca=False, days=days).public_bytes(serialization.Encoding.PEM), key


FACTORY, STRANGER = Authority("factory"), Authority("factory")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    folder = tmp_path_factory.mktemp("hub")
    (folder / "ca.pem").write_bytes(FACTORY.pem)
    arguments = ["--no-rate-limits", "--trusted-proxies", "127.0.0.1", "--device-ca", str(folder / "ca.pem")]
    with running_hub(str(folder / "data"), arguments=arguments) as running:
        yield running


@pytest.fixture(scope="module")
def client(hub: HubProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=hub.url, timeout=30) as made:
        yield made


@pytest.fixture(scope="module")
def owner(client: httpx.Client) -> Caller:
    return Caller(client).login("user1", "user1")


def sent(pem: bytes) -> dict[str, str]:
    return {HEADER: quote(pem)}


def made_by(owner: Caller, ovmode: dict[str, str]) -> DeviceCaller:
    """A device that used a join token of this mode."""
    token = owner.post("/devices/tokens", {"ovmode": ovmode}).json()["token"]
    answer = Caller(owner.client).post("/devices/", headers={"Pantahub-Devices-Auto-Token-V1": token})
    answer.raise_for_status()
    return DeviceCaller(owner.client, answer.json()).logged_in()


def validate(caller: Caller, device: DeviceCaller, **options: Any) -> httpx.Response:
    return caller.post(f"/devices/{device.id}/ownership/validate", **options)


def test_a_certificate_of_the_tokens_root_opens_the_account(owner: Caller) -> None:
    device = made_by(owner, {"mode": "tls", "root_of_trust": FACTORY.bundle})
    record = owner.get(f"/devices/{device.id}").json()
    assert record["ownership_unverified"] is True
    assert record["ovmode"] == {"mode": "tls", "status": "pending"}
    assert list(record)[-2:] == ["ownership_unverified", "ovmode"]
    assert device.get(f"/devices/{device.id}").json()["owner"] == owner.claims["prn"]
    assert device.claims["owner"] == ""
    assert device.post("/trails/", {"#spec": SPEC}).status_code == 403
    assert device.post("/logs/", [{"msg": "not from here"}]).status_code == 403
    pem, _ = FACTORY.device()
    answer = validate(device, device, headers=sent(pem))
    assert (answer.status_code, answer.json()) == (200, {"mode": "tls", "status": "completed"})
    assert validate(device, device).json()["status"] == "completed"
    assert owner.get(f"/devices/{device.id}").json()["ownership_unverified"] is False
    device.logged_in().start_trail()
    assert device.post("/logs/", [{"msg": "from here"}]).status_code == 200


def test_no_other_certificate_does(owner: Caller) -> None:
    device = made_by(owner, {"mode": "tls", "root_of_trust": FACTORY.bundle})
    pem, _ = FACTORY.device()
    late, _ = FACTORY.device(days=-1)
    foreign, _ = STRANGER.device()  # the name of its issuer is the same
    for headers, status in (
        ({}, 400), ({HEADER: "x"}, 400), ({HEADER: quote(FACTORY.pem[:100])}, 400),
        (sent(foreign), 403), (sent(late), 403), (sent(STRANGER.pem), 403),
    ):  # fmt: skip
        assert validate(device, device, headers=headers).status_code == status, headers
    assert validate(owner, device, headers=sent(pem)).status_code == 400
    other = Caller(owner.client).login("user2", "user2")
    assert validate(other, device, headers=sent(pem)).status_code == 403
    sibling = claimed_device(owner)
    assert validate(sibling, device, headers=sent(pem)).status_code == 403
    assert owner.get(f"/devices/{device.id}").json()["ovmode"]["status"] == "pending"


def test_a_header_of_a_client_itself_proves_nothing(tmp_path: Path, owner: Caller) -> None:
    with running_hub(str(tmp_path / "data")) as hub, httpx.Client(base_url=hub.url) as client:
        device = made_by(Caller(client).login("user1", "user1"), {"mode": "tls", "root_of_trust": FACTORY.bundle})
        pem, _ = FACTORY.device()
        assert validate(device, device, headers=sent(pem)).status_code == 400


def test_its_owner_validates_a_device_by_hand(owner: Caller) -> None:
    device = made_by(owner, {"mode": "manual"})
    other = Caller(owner.client).login("user2", "user2")
    assert [validate(caller, device).status_code for caller in (device, other)] == [403, 403]
    assert validate(owner, device).json() == {"mode": "manual", "status": "completed"}
    device.logged_in().start_trail()


def test_nothing_to_prove(owner: Caller) -> None:
    device = claimed_device(owner)
    assert validate(device, device).json() == {"mode": "default", "status": "validation_not_needed"}
    assert validate(owner, device).status_code == 404
    unclaimed = DeviceCaller(owner.client, Caller(owner.client).post("/devices/").json()).logged_in()
    assert validate(unclaimed, unclaimed).status_code == 404
    assert owner.post("/devices/x/ownership/validate").status_code == 400
    assert owner.post(f"/devices/{'0' * 24}/ownership/validate").status_code == 404
    plain = made_by(owner, {"mode": "default"})
    assert "ovmode" not in owner.get(f"/devices/{plain.id}").json()
    plain.start_trail()


@pytest.mark.parametrize(
    "ovmode",
    [
        1, {"mode": "other"}, {"mode": "tls"}, {"mode": "tls", "root_of_trust": "no base64!"}, {"mode": 1},
        {"mode": "tls", "root_of_trust": base64.b64encode(b"no pem").decode()},
        {"mode": "tls", "root_of_trust": Authority("no CA", ca=False).bundle},
        {"mode": "manual", "root_of_trust": FACTORY.bundle}, {"mode": "tls", "root_of_trust": "A" * 60_000},
    ],
)  # fmt: skip
def test_modes_that_cannot_work_are_refused(owner: Caller, ovmode: Any) -> None:
    assert owner.post("/devices/tokens", {"ovmode": ovmode}).status_code == 400


def test_a_join_token_keeps_its_mode(owner: Caller) -> None:
    made = owner.post("/devices/tokens", {"ovmode": {"mode": "tls", "root_of_trust": FACTORY.bundle}}).json()
    again = owner.get(f"/devices/tokens/{made['id']}").json()
    assert again["ovmode"] == {"mode": "tls", "root_of_trust": FACTORY.bundle}


def test_a_device_logs_in_with_its_certificate(owner: Caller) -> None:
    device = claimed_device(owner)
    nobody = Caller(owner.client)
    pem, _ = FACTORY.device(device.id)
    answer = nobody.post("/auth/x509/login", headers={"Pantahub-TLS-Client-Cert": quote(pem)})
    assert answer.status_code == 200
    assert Caller(owner.client, answer.json()["token"]).get(f"/devices/{device.id}").json()["id"] == device.id
    for refused in (STRANGER.device(device.id), FACTORY.device("0" * 24), FACTORY.device("user1"), FACTORY.device(" ")):
        assert nobody.post("/auth/x509/login", headers=sent(refused[0])).status_code == 403
    assert nobody.post("/auth/x509/login").status_code == 403
    owner.delete(f"/devices/{device.id}").raise_for_status()
    assert nobody.post("/auth/x509/login", headers=sent(pem)).status_code == 403


@pytest.mark.needs("nginx")
def test_through_a_real_front_end(hub: HubProcess, owner: Caller, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    front = Certificate(str(tmp_path / "front"))
    config = f"""daemon off; worker_processes 1; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}
{"user root;" if os.geteuid() == 0 else ""}
http {{ access_log off; server {{
  listen 127.0.0.1:{port} ssl; ssl_certificate {front.cert_file}; ssl_certificate_key {front.key_file};
  ssl_verify_client optional_no_ca;
  location / {{ proxy_pass {hub.url}; proxy_set_header ssl-client-cert $ssl_client_escaped_cert; }}
}} }}"""
    (tmp_path / "nginx.conf").write_text(config)
    pem, key = FACTORY.device()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "device.pem").write_bytes(pem + private)
    device = made_by(owner, {"mode": "tls", "root_of_trust": FACTORY.bundle})
    trust = ssl.create_default_context(cafile=front.ca_file)
    with spawn(["nginx", "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)], purpose="nginx") as process:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                if process.poll() is not None:
                    raise process.failure() from None
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trust) as client:
            forged = Caller(client, device.token)
            assert validate(forged, device, headers=sent(pem)).status_code == 400  # nginx replaces what clients say
        trust.load_cert_chain(tmp_path / "device.pem")
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trust) as client:
            answer = validate(Caller(client, device.token), device)
            assert (answer.status_code, answer.json()["status"]) == (200, "completed")
