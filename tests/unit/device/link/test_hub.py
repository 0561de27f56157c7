"""The calls of the hub's interface against a hub that does as it is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from brickless.core.errors import HostileInputError
from brickless.device.link.http import Address, HubUnreachableError, Transport, Upload
from brickless.device.link.hub import Credentials, CredentialsRefusedError, Hub, HubRefusedError, retry_after_s
from brickless.testkit.hub_simulator import Fault, HubSimulator, Kind


def no_tls() -> Any:
    raise AssertionError("no TLS here")


@pytest.fixture
def simulator() -> Iterator[HubSimulator]:
    with HubSimulator() as running:
        running.auto_claim = True
        yield running


@pytest.fixture
def hub(simulator: HubSimulator) -> Iterator[Hub]:
    made = Hub(Address("http", simulator.host, simulator.port), Transport(1.0, no_tls, None, "Test/1"))
    found = made.register("")
    made.credentials = Credentials(found.id, found.prn, found.secret)
    yield made
    made.close()


def test_the_join_token_goes_into_its_header(simulator: HubSimulator) -> None:
    simulator.join_tokens["dG9rZW4="] = "me"
    made = Hub(Address("http", simulator.host, simulator.port), Transport(1.0, no_tls))
    assert made.register("dG9rZW4=").owner == "me"
    made.close()
    request = simulator.requests[-1]
    assert request.headers["pantahub-devices-auto-token-v1"] == "dG9rZW4="
    assert (request.path, request.body) == ("/devices/", b"")


def test_the_poll_is_the_one_that_the_field_knows(simulator: HubSimulator, hub: Hub) -> None:
    assert hub.steps() == []
    path = simulator.requests[-1].path
    assert path.endswith(
        "/steps?progress.status=%7B%22$in%22:%5B%22NEW%22,%22DOWNLOADING%22,%22INPROGRESS%22,%22TESTING%22,%22QUEUED%22%5D%7D"
    )


def test_one_login_serves_many_calls_and_an_expired_one_is_renewed_once(simulator: HubSimulator, hub: Hub) -> None:
    hub.steps()
    hub.user_meta()
    assert simulator.counted("POST", "/auth/login") == 1
    simulator.expire_tokens()
    hub.steps()
    assert simulator.counted("POST", "/auth/login") == 2


def test_a_hub_that_always_says_401_is_not_asked_for_ever(simulator: HubSimulator, hub: Hub) -> None:
    simulator.inject(Fault(Kind.STATUS, "/steps", number=401, times=None))
    with pytest.raises(HubRefusedError, match="401"):
        hub.steps()
    assert simulator.counted("GET", "/steps") == 2


def test_a_device_that_was_deleted_is_said(simulator: HubSimulator, hub: Hub) -> None:
    simulator.device.gone = True
    with pytest.raises(CredentialsRefusedError, match="does not know prn:::devices:/"):
        hub.steps()


def test_without_credentials_nothing_is_sent(simulator: HubSimulator) -> None:
    made = Hub(Address("http", simulator.host, simulator.port), Transport(1.0, no_tls))
    with pytest.raises(CredentialsRefusedError, match="not registered"):
        made.steps()
    assert simulator.requests == []


def test_a_redirect_takes_no_credentials_elsewhere(simulator: HubSimulator, hub: Hub) -> None:
    with HubSimulator() as elsewhere:
        simulator.inject(Fault(Kind.REDIRECT, "/user-meta", text=f"{elsewhere.url}/steal"))
        with pytest.raises(HubRefusedError, match="redirect to"):
            hub.user_meta()
        assert elsewhere.requests == []


def test_only_harmless_requests_are_repeated(simulator: HubSimulator, hub: Hub) -> None:
    hub.login()
    hub.retries = 1
    simulator.inject(Fault(Kind.RESET, "/steps", times=2), Fault(Kind.RESET, "/logs", method="POST", times=2))
    assert hub.steps() == []
    with pytest.raises(HubUnreachableError):
        hub.post_logs(b"[]")


def test_an_object_of_another_hash_is_not_taken(simulator: HubSimulator, hub: Hub) -> None:
    sha = simulator.add_object(b"x")
    assert hub.object_info(sha).size_bytes == 1
    with pytest.raises(HubRefusedError):
        hub.object_info("cd" * 32)


def test_an_upload_happens_once(simulator: HubSimulator, hub: Hub) -> None:
    import hashlib

    data = b"factory" * 100_000
    sha = hashlib.sha256(data).hexdigest()
    upload = Upload(len(data), lambda: iter([data[:1000], data[1000:]]))
    hub.upload_object("root.squashfs", sha, upload)
    assert simulator.objects[sha] == data
    hub.upload_object("root.squashfs", sha, upload)
    assert simulator.counted("PUT", "/local-s3/") == 1


def test_the_hub_cannot_send_us_to_a_less_secure_place(hub: Hub) -> None:
    with pytest.raises(HostileInputError, match="https"):
        hub.check_scheme(Address("https", "x", 443))


def test_a_trail_that_is_there_already_is_right(simulator: HubSimulator, hub: Hub) -> None:
    assert not hub.has_trail()
    hub.post_trail(b'{"#spec":"pantavisor-service-system@1"}')
    assert hub.has_trail()
    hub.post_trail(b'{"#spec":"pantavisor-service-system@1"}')


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5), ("0", 0), ("999999", 3600), ("", 0), ("-5", 0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0), ("٣", 0)],
)
def test_retry_after(text: str, seconds: int) -> None:
    assert retry_after_s({"retry-after": text}) == seconds
