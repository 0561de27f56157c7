"""`--verify`: taken is only what is signed whole; and the manual pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

KEY = rsa.generate_private_key(65537, 2048)


@pytest.fixture
def keys(tmp_path: Path) -> tuple[str, str]:
    private, public = tmp_path / "key.pem", tmp_path / "pub.pem"
    private.write_bytes(
        KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return str(private), str(public)


@pytest.fixture
def signed(pvr: Any, tree: Path, tmp_path: Path, keys: tuple[str, str]) -> Path:
    """A repository with a signed container, and one that nobody signed."""
    pvr("init")
    for name in ("web", "loose"):
        (tree / name).mkdir()
        (tree / name / "run.json").write_text(json.dumps({"name": name}))
    pvr("add")
    pvr("commit")
    pvr("sig", "--key", keys[0], "--x5c", "no", "add", "--part", "web")
    pvr("add")
    pvr("commit")
    return tree


@pytest.fixture
def other(pvr: Any, signed: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "other"
    folder.mkdir()
    pvr("-C", str(folder), "init")
    return folder


def test_a_signed_part_is_taken_and_an_unsigned_one_is_not(
    pvr: Any, signed: Path, other: Path, keys: tuple[str, str]
) -> None:
    before = (other / ".pvr/json").read_bytes()
    for fragment in ("", "#loose", "#web,loose"):
        ran = pvr("--verify", keys[1], "-C", str(other), "get", f"{signed}{fragment}", code=3)
        assert "nobody signed" in ran.err
        assert (other / ".pvr/json").read_bytes() == before
    pvr("--verify", keys[1], "-C", str(other), "get", f"{signed}#web,_sigs/web.json")
    assert "web/run.json" in json.loads((other / ".pvr/json").read_text())


def test_a_changed_part_is_not_taken(pvr: Any, signed: Path, other: Path, keys: tuple[str, str]) -> None:
    (signed / "web/run.json").write_text('{"name":"web","roles":["mgmt"]}')
    pvr("commit")
    ran = pvr("--verify", keys[1], "-C", str(other), "merge", f"{signed}#web", code=3)
    assert "do not verify" in ran.err
    pvr("-C", str(other), "merge", f"{signed}#web")


def test_an_export_is_verified_before_it_replaces_the_state(
    pvr: Any, signed: Path, other: Path, keys: tuple[str, str], tmp_path: Path
) -> None:
    pvr("export", str(tmp_path / "x.tgz"))
    before = (other / ".pvr/json").read_bytes()
    assert "nobody signed" in pvr("--verify", keys[1], "-C", str(other), "import", str(tmp_path / "x.tgz"), code=3).err
    assert (other / ".pvr/json").read_bytes() == before


def test_trust_that_cannot_be_read_is_no_trust(pvr: Any, signed: Path, other: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for name in ("missing.pem", "empty.pem"):
        pvr("--verify", str(tmp_path / name), "-C", str(other), "get", f"{signed}#web", code=3)


def test_sig_ls_strict_fails_for_what_nobody_signed(pvr: Any, signed: Path, keys: tuple[str, str]) -> None:
    pvr("sig", "--pubkey", keys[1], "ls")
    assert "loose/run.json" in pvr("sig", "--pubkey", keys[1], "ls", "--strict", code=13).err


def test_every_command_has_a_manual_page_that_man_reads(pvr: Any, tree: Path) -> None:
    from brickless.pvr.root import COMMANDS

    pages = pvr("manpages", "man1", "--json").json()["pages"]
    assert {f"pvr-{name}.1" for name in COMMANDS} <= set(pages)
    assert {"pvr.1", "pvr-sig-add.1", "pvr-device-logs.1", "pvr-app-add.1"} <= set(pages)
    for name in pages:
        text = (tree / "man1" / name).read_text()
        assert text.startswith(".TH ")
        assert ".SH OPTIONS" in text
        assert ".SH EXAMPLE" in text
        requests = {line.split()[0] for line in text.splitlines() if line.startswith(".")}
        assert requests <= {".TH", ".SH", ".TP", ".PP", ".B", ".BR", ".nf", ".fi"}, name
