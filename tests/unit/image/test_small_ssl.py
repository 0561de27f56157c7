"""The device's `ssl` against the standard library's: same peers, same refusals, same dates."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.image.test_stand_ins import load

from brickless.testkit.hub import Certificate

SMALL = load("ssl")
TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(str(tmp_path_factory.mktemp("tls")))


def client(module: ModuleType, authority: str | None) -> Any:
    context = module.SSLContext(module.PROTOCOL_TLS_CLIENT)
    context.minimum_version = module.TLSVersion.TLSv1_2
    context.verify_flags = module.VerifyFlags(context.verify_flags | 0x80000)
    if authority is not None:
        context.load_verify_locations(cafile=authority)
    return context


def meet(certificate: Certificate, serving: ModuleType, talk: Callable[[socket.socket], None], serve: Any) -> None:
    """`talk` as the client of a server made with the module `serving`, which does `serve` with its connection."""
    ours, theirs = socket.create_server(("127.0.0.1", 0)), []
    ours.settimeout(TIMEOUT_S)

    def run() -> None:
        context = serving.SSLContext(serving.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.cert_file, certificate.key_file)
        plain, _ = ours.accept()
        plain.settimeout(TIMEOUT_S)
        with suppress(OSError), context.wrap_socket(plain, server_side=True) as sock:
            theirs.append(serve(sock))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        talk(socket.create_connection(ours.getsockname(), timeout=TIMEOUT_S))
    finally:
        thread.join(TIMEOUT_S)
        ours.close()


def echo(sock: socket.socket) -> None:
    while data := sock.recv(1000):
        sock.sendall(data.upper())


@pytest.mark.parametrize(("ours", "theirs"), [(SMALL, ssl), (ssl, SMALL), (SMALL, SMALL)])
def test_they_talk_to_each_other(certificate: Certificate, ours: ModuleType, theirs: ModuleType) -> None:
    def talk(plain: socket.socket) -> None:
        with client(ours, certificate.ca_file).wrap_socket(plain, server_hostname="127.0.0.1") as sock:
            assert plain.fileno() == -1
            assert sock.gettimeout() == TIMEOUT_S
            assert sock.send(b"abc") == 3
            assert sock.recv(10) == b"ABC"
            sock.sendall(bytearray(b"x" * 100_000))
            found = 0
            while found < 100_000:
                found += len(sock.recv(65536))
            subject = sock.getpeercert()
            assert subject["subject"] == ((("commonName", "brickless test hub"),),)

    meet(certificate, theirs, talk, echo)


def test_the_certificate_is_described_as_there(certificate: Certificate) -> None:
    found = []
    for module in (ssl, SMALL):

        def talk(plain: socket.socket, module: ModuleType = module) -> None:
            with client(module, certificate.ca_file).wrap_socket(plain, server_hostname="localhost") as sock:
                found.append(sock.getpeercert())

        meet(certificate, ssl, talk, echo)
    assert found[0] == found[1]
    assert SMALL.cert_time_to_seconds(found[0]["notBefore"]) == ssl.cert_time_to_seconds(found[0]["notBefore"])


@pytest.mark.parametrize(("trusted", "name"), [(False, "localhost"), (True, "other.example"), (True, "10.9.9.9")])
def test_whom_the_real_one_refuses_it_refuses_for_the_same_reason(
    certificate: Certificate, trusted: bool, name: str
) -> None:
    codes = []
    for module in (ssl, SMALL):

        def talk(plain: socket.socket, module: ModuleType = module) -> None:
            context = client(module, certificate.ca_file if trusted else None)
            with pytest.raises(module.SSLCertVerificationError) as error:
                context.wrap_socket(plain, server_hostname=name)
            codes.append((error.value.verify_code, error.value.verify_message))

        meet(certificate, ssl, talk, echo)
    assert codes[0] == codes[1]
    assert codes[0][0]


def test_without_a_name_nothing_is_begun() -> None:
    with socket.socket() as plain, pytest.raises(ValueError, match="server_hostname"):
        client(SMALL, None).wrap_socket(plain)


def test_a_peer_without_tls_is_an_error_of_tls() -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
        with pytest.raises(SMALL.SSLError):
            client(SMALL, None).wrap_socket(here, server_hostname="localhost")


def test_an_end_without_a_farewell_is_an_end(certificate: Certificate) -> None:
    def cut(sock: ssl.SSLSocket) -> None:
        sock.recv(10)
        socket.socket(fileno=sock.detach()).close()

    def talk(plain: socket.socket) -> None:
        with client(SMALL, certificate.ca_file).wrap_socket(plain, server_hostname="localhost") as sock:
            sock.sendall(b"bye")
            assert sock.recv(10) == b""

    meet(certificate, ssl, talk, cut)


def test_nothing_goes_around_tls(certificate: Certificate) -> None:
    def talk(plain: socket.socket) -> None:
        with client(SMALL, certificate.ca_file).wrap_socket(plain, server_hostname="localhost") as sock:
            for way in (lambda: sock.sendmsg([b"x"]), lambda: sock.recv_into(bytearray(1)), sock.dup):
                with pytest.raises(NotImplementedError):
                    way()
            with pytest.raises(ValueError, match="flags"):
                sock.recv(1, socket.MSG_PEEK)

    meet(certificate, ssl, talk, echo)


@given(st.integers(0, 2**34))
def test_dates_of_certificates(seconds: int) -> None:
    text = time.strftime("%b %d %H:%M:%S %Y GMT", time.gmtime(seconds))
    assert SMALL.cert_time_to_seconds(text) == ssl.cert_time_to_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "Foo 1 00:00:00 2020 GMT", "Jan 1 00:00:00 2020 UTC", "Jan 1 24:00:00 2020 GMT"])
def test_what_is_no_date(text: str) -> None:
    for module in (SMALL, ssl):
        with pytest.raises(ValueError):  # noqa: PT011 - each says it in its own words
            module.cert_time_to_seconds(text)
