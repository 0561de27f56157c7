"""What each mode makes of signatures, from the files of a device's trust on."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from brickless.core import canonical
from brickless.core.canonical import JsonValue
from brickless.core.progress import Message
from brickless.core.signature import Rule
from brickless.core.state import State, parse_state
from brickless.device.config import Sources, load
from brickless.device.update import policy
from brickless.device.update.policy import ACCEPTED, Policy, judge, policy_of
from brickless.pvr import jws, signing
from brickless.testkit.certificates import code_signing

KEY = ec.generate_private_key(ec.SECP256R1())
STRANGER = ec.generate_private_key(ec.SECP256R1())
EVERYTHING, SOME = Rule(("**",), ("_sigs/x.json",)), Rule(("web/**",), ())
ENTRIES: dict[str, JsonValue] = {
    "#spec": "pantavisor-service-system@1",
    "note.json": {"a": 1},
    "web/run.json": {"name": "web", "config": "c.json"},
    "web/c.json": {},
}


class Signer:
    """A key that signs."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self.key = key

    @property
    def public_key(self) -> jws.PublicKey:
        return self.key.public_key()

    def sign(self, data: bytes) -> bytes:
        return jws.sign(self.key, data)


def state(rule: Rule | None, key: ec.EllipticCurvePrivateKey = KEY, first: datetime | None = None) -> State:
    """A state, signed by the rule if there is one, with a certificate that begins at `first` if that is given."""
    content = dict(ENTRIES)
    if rule is not None:
        chain = None if first is None else [code_signing(key, first)]
        content["_sigs/x.json"] = dict(signing.sign(ENTRIES, rule, Signer(key), chain=chain))
    return parse_state(canonical.dumps(content))


@pytest.fixture
def trust(tmp_path: Path) -> Path:
    public = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "pub.pem").write_bytes(public)
    return tmp_path


# What each mode says: nothing signed, some of it, all of it, some of it by a stranger.
REFUSED, OPEN = Message.BAD_SIGNATURE, Message.NOT_COVERED
TABLE = {
    "disabled": ("", "", "", ""),
    "lenient": ("", "", "", REFUSED),
    "audit": ("", "", "", REFUSED),
    "strict": (OPEN, OPEN, "", REFUSED),
}


@pytest.mark.parametrize("mode", sorted(TABLE))
def test_what_each_mode_refuses(trust: Path, mode: str) -> None:
    states = (state(None), state(SOME), state(EVERYTHING), state(SOME, STRANGER))
    verdicts = [judge(one, Policy(mode, str(trust), "ca"), dated=True).message for one in states]
    assert tuple(verdicts) == TABLE[mode]


def test_what_is_open_is_named(trust: Path) -> None:
    assert "note.json" in judge(state(SOME), Policy("strict", str(trust), "ca"), dated=True).detail
    assert "note.json" in judge(state(SOME), Policy("audit", str(trust), "ca"), dated=True).detail
    assert judge(state(SOME), Policy("lenient", str(trust), "ca"), dated=True) == ACCEPTED


@pytest.mark.parametrize("mode", ["audit", "lenient", "strict"])
def test_without_trust_on_the_device_a_signature_is_bad(tmp_path: Path, mode: str) -> None:
    verdict = judge(state(EVERYTHING), Policy(mode, str(tmp_path), "ca"), dated=True)
    assert verdict.message == Message.BAD_SIGNATURE
    assert "the public key is missing on this device" in verdict.detail


@pytest.mark.parametrize("mode", ["audit", "lenient", "strict"])
def test_a_malformed_signature_is_refused(trust: Path, mode: str) -> None:
    broken = parse_state(canonical.dumps({**ENTRIES, "_sigs/x.json": {"#spec": "pvs@2", "protected": "e30"}}))
    assert judge(broken, Policy(mode, str(trust), "ca"), dated=True).message == Message.BAD_SIGNATURE


def test_an_ended_certificate_is_refused_for_what_is_new_alone(trust: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = datetime.now(UTC) - timedelta(days=9001)
    one = code_signing(KEY, first)
    (trust / "ca.crt").write_bytes(one.public_bytes(serialization.Encoding.PEM))
    signed = state(EVERYTHING, first=first)
    strict = Policy("strict", str(trust), "ca")
    assert "has ended" in judge(signed, strict, dated=True).detail
    assert judge(signed, strict, dated=False) == ACCEPTED
    monkeypatch.setattr(time, "time", lambda: 86400.0)
    assert judge(signed, strict, dated=True) == ACCEPTED, "a clock that was never set proves nothing"


def test_a_certificate_that_has_not_begun_shows_a_clock_that_is_behind(trust: Path) -> None:
    first = datetime.now(UTC) + timedelta(days=30)
    (trust / "ca.crt").write_bytes(code_signing(KEY, first).public_bytes(serialization.Encoding.PEM))
    assert judge(state(EVERYTHING, first=first), Policy("strict", str(trust), "ca"), dated=True) == ACCEPTED


@pytest.mark.parametrize("name", ["../ca", "/etc/ca", ".hidden"])
def test_a_store_is_a_plain_name(trust: Path, name: str) -> None:
    verdict = judge(state(EVERYTHING), Policy("strict", str(trust), name), dated=True)
    assert "no plain name" in verdict.detail


def test_a_trust_that_cannot_be_read_refuses(trust: Path) -> None:
    (trust / "pub.pem").unlink()
    (trust / "pub.pem").mkdir()
    verdict = judge(state(EVERYTHING), Policy("lenient", str(trust), "ca"), dated=True)
    assert (verdict.message, "cannot be read" in verdict.detail) == (Message.BAD_SIGNATURE, True)
    (trust / "pub.pem").rmdir()
    (trust / "pub.pem").write_bytes(bytes((1 << 20) + 1))
    assert "larger than" in judge(state(EVERYTHING), Policy("lenient", str(trust), "ca"), dated=True).detail


def test_what_the_configuration_says(tmp_path: Path) -> None:
    file = tmp_path / "pantavisor.config"
    file.write_text("PV_SECUREBOOT_MODE=strict\nPV_SECUREBOOT_TRUSTSTORE=mine\n")
    weak = "pv_secureboot.mode=disabled PV_SECUREBOOT_CHECKSUM=0 PV_SYSTEM_ETCPANTAVISORDIR=/tmp PV_LOG_CAPTURE=0"
    config = load(Sources(environ={"PV_SECUREBOOT_MODE": "lenient"}, command_line=weak, file=str(file)))
    found = policy_of(config)
    assert (found.mode, found.store) == ("strict", "mine")
    assert found.folder == str(Path(config.text("PV_SYSTEM_ETCPANTAVISORDIR")) / policy.FOLDER)
    assert not found.folder.startswith("/tmp")
    assert config.flag("PV_SECUREBOOT_CHECKSUM")
    assert not config.flag("PV_LOG_CAPTURE"), "other words still count"
    assert any("PV_SECUREBOOT_MODE is strict" in problem for problem in config.problems)
    file.write_text("PV_SECUREBOOT_MODE=audit\n")
    assert policy_of(load(Sources(environ={}, command_line=weak, file=str(file)))).mode == "disabled"
