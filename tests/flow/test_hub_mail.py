"""Mail of the hub through a real SMTP server: verification and reset, verified TLS, refusals, outages, nothing lost."""

from __future__ import annotations

import asyncio
import re
import ssl
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from brickless.core.errors import UserError
from brickless.hub.adapters.mail import SmtpMailer, parse_server
from brickless.hub.services.ports import MailRefused
from brickless.testkit import smtp
from brickless.testkit.hub import Certificate, running_hub
from brickless.testkit.hub_client import Caller

ACCOUNT = {"email": "new@example.com", "nick": "newcomer", "password": "a good password"}


def context(certificate: Certificate) -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(certificate.cert_file, certificate.key_file)
    return made


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate(str(tmp_path / "smtp-tls"))


# The server's own notion of TLS knows STARTTLS only: with TLS from the first byte it believes that there is none.
@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")
@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "tls"])
def test_verification_and_reset_over_verified_tls_with_a_login(
    tmp_path: Path, certificate: Certificate, implicit: bool
) -> None:
    with smtp.server(tls=context(certificate), implicit=implicit, login=True) as mails:
        url = f"{'smtps' if implicit else 'smtp'}://{smtp.USER}:{quote(smtp.PASSWORD, safe='')}@127.0.0.1:{mails.port}"
        arguments = ["--verify-email", "--mail-from", "hub@example.com", "--mail-ca", certificate.ca_file]
        with (
            running_hub(
                str(tmp_path / "data"), arguments=arguments, environment={"BRICKLESS_HUB_MAIL_URL": url}
            ) as hub,
            httpx.Client(base_url=hub.url, timeout=30) as client,
        ):
            nobody = Caller(client)
            assert nobody.post("/auth/accounts", ACCOUNT).status_code == 200
            mail = mails.mails.get(timeout=60)
            assert (mail["To"], mail["From"], mail["Auto-Submitted"]) == (
                "new@example.com", "hub@example.com", "auto-generated",
            )  # fmt: skip
            login = {"username": "newcomer", "password": ACCOUNT["password"]}
            assert nobody.post("/auth/login", login).status_code == 401
            link = re.search(r"http\S+verify\S+", mail.get_content())
            assert link is not None
            assert client.get(link[0]).status_code == 200
            assert nobody.post("/auth/login", login).status_code == 200
            assert nobody.post("/auth/recover", {"email": "new@example.com"}).content == b"true"
            found = re.search(r"#token=(\S+)", mails.mails.get(timeout=60).get_content())
            assert found is not None
            assert nobody.post("/auth/password", {"token": found[1], "password": "another one"}).content == b"true"
            assert nobody.login("newcomer", "another one").token
            assert smtp.PASSWORD not in hub.log()
            assert found[1] not in hub.log()


def test_a_mail_outlives_an_outage_a_refusal_and_the_hub(tmp_path: Path) -> None:
    server = smtp.Server().start()
    server.stop()  # it has a port now, on which nobody listens
    arguments = ["--verify-email", "--mail-url", f"smtp://127.0.0.1:{server.port}"]
    with (
        running_hub(str(tmp_path / "data"), arguments=arguments) as hub,
        httpx.Client(base_url=hub.url, timeout=30) as client,
    ):
        assert Caller(client).post("/auth/accounts", ACCOUNT).status_code == 200
        while "a mail could not be sent" not in hub.log():
            client.get("/livez")
        hub.kill()
        server.answers = ["451 come again"]
        server.start()
        try:
            hub.start()
            mail = server.mails.get(timeout=120)
            assert mail["To"] == "new@example.com"
            assert server.refusals == 1
            assert server.mails.empty()
        finally:
            server.stop()


def test_what_cannot_be_delivered_is_said_once_and_given_up(tmp_path: Path) -> None:
    with smtp.server() as server:
        server.answers = ["550 no such person"]
        arguments = ["--verify-email", "--mail-url", f"smtp://127.0.0.1:{server.port}"]
        with (
            running_hub(str(tmp_path / "data"), arguments=arguments) as hub,
            httpx.Client(base_url=hub.url, timeout=30) as client,
        ):
            Caller(client).post("/auth/accounts", ACCOUNT)
            secret = (Path(hub.data_dir) / "keys" / "operator.secret").read_text()
            while "hub_mails_given_up_total 1" not in client.get("/metrics/", auth=("saadmin", secret)).text:
                continue
            assert "a mail is given up" in hub.log()
            assert server.mails.empty()


def send(url: str, ca_file: str = "") -> None:
    asyncio.run(SmtpMailer(parse_server(url, ca_file), "hub@example.com").send("a@example.com", "s", "t"))


@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "tls"])
def test_a_certificate_of_somebody_else_gets_no_mail(tmp_path: Path, certificate: Certificate, implicit: bool) -> None:
    stranger = Certificate(str(tmp_path / "stranger"))
    with smtp.server(tls=context(certificate), implicit=implicit) as server:
        url = f"{'smtps' if implicit else 'smtp'}://127.0.0.1:{server.port}"
        with pytest.raises(MailRefused, match="certificate verify failed"):
            send(url, stranger.ca_file)
        send(url, certificate.ca_file)
        assert server.mails.get(timeout=60)["Subject"] == "s"


def test_a_password_never_goes_in_clear(tmp_path: Path) -> None:
    with smtp.server() as server, pytest.raises(MailRefused, match="STARTTLS"):
        send(f"smtp://user:password@127.0.0.1:{server.port}")


@pytest.mark.parametrize("url", ["http://x", "smtp://", "smtp://host:port", "smtp://host/path", "smtp://h?x=1", "host"])
def test_what_names_no_server_is_refused_without_the_password(url: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_server(url.replace("//", "//u:sesame@", 1))
    assert "sesame" not in str(caught.value)
