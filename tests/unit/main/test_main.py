"""The `brickless` command's grammar, what it says, and how it waits."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from brickless.core.errors import UserError
from brickless.main import imagecmd, lab
from brickless.main.artefacts import CERTIFICATE, write_site
from brickless.main.cli import brickless
from brickless.main.hubapi import HubApi, HubError, wait_until
from brickless.main.talk import Talk
from brickless.main.up import Interrupted, interruptible
from brickless.testkit.certificates import Authority


def test_help_names_the_commands_and_their_options() -> None:
    runner = CliRunner()
    said = runner.invoke(brickless, ["--help"]).output
    assert all(word in said for word in ("up", "demo", "hub"))
    assert "--state" in runner.invoke(brickless, ["demo", "--help"]).output


def test_an_unknown_command_is_a_mistake() -> None:
    assert CliRunner().invoke(brickless, ["dmeo"]).exit_code == 2


def test_only_what_the_runtime_says_is_shown_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (False, True):
        talk = Talk(verbose=verbose)
        talk.console("one", "[    0.1] Linux version 6.1")
        talk.console("one", "brickless: pid1 up")
    said = capsys.readouterr().err
    assert said.count("pid1 up") == 2
    assert said.count("Linux version") == 1


def test_an_interrupt_unwinds_and_leaves_the_handlers_as_they_were() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGTERM"), interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_waiting_ends_with_an_answer_or_with_an_error_that_says_for_what() -> None:
    answers = iter([None, None, "yes"])
    assert wait_until(lambda: next(answers), 10, "it says yes") == "yes"
    with pytest.raises(HubError, match="did not happen within 0 s that it says yes"):
        wait_until(lambda: None, 0, "it says yes")


def test_a_hub_that_is_not_there() -> None:
    with pytest.raises(HubError, match="does not answer POST /auth/login"):
        HubApi(f"http://127.0.0.1:{lab.free_port()}", "user1", "user1")


def test_the_archive_of_an_installation_holds_its_certificate(tmp_path: Path) -> None:
    write_site(tmp_path / "site.cpio", b"-----BEGIN CERTIFICATE-----\n")
    data = (tmp_path / "site.cpio").read_bytes()
    assert CERTIFICATE.encode() in data
    assert b"-----BEGIN CERTIFICATE-----" in data


def test_images_need_a_known_board_and_known_keys(tmp_path: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(brickless, ["image", "--board", "toaster", "--out", "x"]).exit_code == 2
    for pair in ("PV_NONSENSE=1", "PH_CREDS_HOST", "=x"):
        result = runner.invoke(
            brickless,
            ["image", "--board", "pc", "--out", str(tmp_path / "x"), "--config", pair, "--cache", str(tmp_path)],
        )
        assert result.exit_code == 2
        assert "is no KEY=VALUE" in result.output
    assert "Example:" in runner.invoke(brickless, ["image", "--help"]).output
    assert "Example:" in runner.invoke(brickless, ["twin", "--help"]).output


def test_a_twin_needs_a_clone(tmp_path: Path) -> None:
    result = CliRunner().invoke(brickless, ["twin", str(tmp_path), "--board", "pc", "--cache", str(tmp_path)])
    assert result.exit_code == 2
    assert "is not a pvr repository" in result.output


def test_whom_a_device_is_to_trust_for_signatures(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority").ca_file
    assert imagecmd.trust_file(authority) == (f"{imagecmd.TRUST}/ca-certificates.crt", authority.read_bytes())
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    (tmp_path / "key.pem").write_bytes(
        public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    assert imagecmd.trust_file(tmp_path / "key.pem")[0] == f"{imagecmd.TRUST}/pub.pem"
    for bad, words in (
        (b"text", "neither"),
        (b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "use it"),
    ):
        (tmp_path / "bad").write_bytes(bad)
        with pytest.raises(UserError, match=words):
            imagecmd.trust_file(tmp_path / "bad")


def test_what_only_the_initramfs_may_say() -> None:
    given = {"PV_SECUREBOOT_MODE": "strict", "PH_CREDS_HOST": "hub.example"}
    assert imagecmd.system_settings(given) == {"PV_SECUREBOOT_MODE": "strict"}
