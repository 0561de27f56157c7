"""Credentials on disk: there after a power cut, in the field's format, readable to their owner only."""

from __future__ import annotations

import stat
from pathlib import Path

from brickless.device.config import Sources, load
from brickless.device.link.http import Address
from brickless.device.link.identity import Identity
from brickless.device.link.wire import Registration

ID = "0123456789abcdef01234567"
FOUND = Registration(ID, f"prn:::devices:/{ID}", "s3cret", "", "a-b-c")


def identity(tmp_path: Path) -> Identity:
    config = load(Sources(environ={}, file=str(tmp_path / "none"), storage=str(tmp_path)))
    return Identity(config, str(tmp_path), str(tmp_path / "run"))


def test_a_registration_survives_until_and_after_the_claim(tmp_path: Path) -> None:
    first = identity(tmp_path)
    assert first.credentials() is None
    first.save(FOUND)
    unclaimed = tmp_path / "config/unclaimed.config"
    assert stat.S_IMODE(unclaimed.stat().st_mode) == 0o600

    second = identity(tmp_path)
    assert second.credentials() == (ID, FOUND.prn, "s3cret")
    assert not second.claimed
    second.claim()
    assert not unclaimed.exists()
    claimed = tmp_path / "config/pantahub.config"
    assert stat.S_IMODE(claimed.stat().st_mode) == 0o600
    assert claimed.read_text() == f"PH_CREDS_ID={ID}\nPH_CREDS_PRN={FOUND.prn}\nPH_CREDS_SECRET=s3cret\n"

    third = identity(tmp_path)
    assert third.claimed
    assert third.credentials() == (ID, FOUND.prn, "s3cret")


def test_other_lines_of_the_file_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "config/pantahub.config"
    path.parent.mkdir()
    path.write_text("PH_CREDS_HOST=hub.example\ncreds.secret=old\nPH_CREDS_PRN=\n# mine\n")
    found = identity(tmp_path)
    found.save(FOUND)
    found.claim()
    lines = path.read_text().splitlines()
    assert lines[:2] == ["PH_CREDS_HOST=hub.example", "# mine"]
    assert "PH_CREDS_SECRET=s3cret" in lines
    assert not any("old" in line for line in lines)


def test_a_partition_that_the_reference_wrote(tmp_path: Path) -> None:
    path = tmp_path / "config/pantahub.config"
    path.parent.mkdir()
    path.write_text(f"creds.prn=prn:::devices:/{ID}\ncreds.secret=abc\ncreds.id={ID}\ncreds.host=hub.example\n")
    assert identity(tmp_path).credentials() == (ID, f"prn:::devices:/{ID}", "abc")


def test_hints_for_people(tmp_path: Path) -> None:
    found = identity(tmp_path)
    found.save(FOUND)
    found.publish(Address("https", "2001:db8::1", 443), "a-b-c")
    run = tmp_path / "run"
    assert (run / "device-id").read_text() == ID
    assert (run / "challenge").read_text() == "a-b-c"
    assert (run / "pantahub-host").read_text() == "https://[2001:db8::1]:443"
    found.claim()
    assert (run / "challenge").read_text() == ""
