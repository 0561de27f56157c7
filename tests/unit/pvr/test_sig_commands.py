"""`pvr sig`: sign, verify, list; what is not covered is said, and what was changed is refused."""

from __future__ import annotations

import datetime
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from brickless.core.errors import HostileInputError
from brickless.pvr.commands.sig_download import _unpack


def write_key(folder: Path, name: str, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> list[str]:
    """A key, its self-signed certificate for code signing, its public key; the flags that name them."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(
        subject, subject, key.public_key(), x509.random_serial_number(), now - day, now + day
    )
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
    certificate = builder.add_extension(usage, critical=False).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    for kind, data in (("key", private), ("crt", certificate.public_bytes(pem)), ("pub", public)):
        (folder / f"{name}.{kind}").write_bytes(data)
    return ["--key", f"{folder}/{name}.key", "--x5c", f"{folder}/{name}.crt", "--cacerts", f"{folder}/{name}.crt"]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("keys")
    return {
        "rsa": write_key(folder, "rsa", rsa.generate_private_key(65537, 2048)),
        "p256": write_key(folder, "p256", ec.generate_private_key(ec.SECP256R1())),
        "p384": write_key(folder, "p384", ec.generate_private_key(ec.SECP384R1())),
        "other": write_key(folder, "other", ec.generate_private_key(ec.SECP256R1())),
    }


@pytest.fixture
def repo(pvr: Any, tree: Path) -> Path:
    pvr("init")
    for path, text in {"web/run.json": '{"n":1}', "web/root.squashfs": "squash", "web/src.json": "{}",
                       "_config/web/etc/x": "x", "webby.json": "{}"}.items():  # fmt: skip
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    pvr("add")
    pvr("commit")
    return tree


def sign(pvr: Any, flags: list[str], *args: str) -> None:
    pvr("sig", *flags, "add", *args)
    pvr("add")
    pvr("commit")


@pytest.mark.parametrize("kind", ["rsa", "p256", "p384"])
def test_a_part_is_signed_and_verified(kind: str, pvr: Any, repo: Path, keys: dict[str, list[str]]) -> None:
    sign(pvr, keys[kind], "--part", "web")
    document = json.loads((repo / "_sigs/web.json").read_bytes())
    assert list(document) == ["#spec", "protected", "signature"]
    found = pvr("sig", *keys[kind], "ls", "--json").json()
    assert found == {
        "protected": ["_config/web/etc/x", "web/root.squashfs", "web/run.json"],
        "excluded": ["_sigs/web.json", "web/src.json"],
        "notseen": ["#spec", "webby.json"],
    }
    public = ["--pubkey", keys[kind][1].removesuffix(".key") + ".pub"]
    assert pvr("sig", *public, "ls", "--json").json() == found
    tree = pvr("sig", *keys[kind], "ls", "--tree").out
    assert f"root.squashfs  [signed by web (CN={kind})]" in tree
    assert "webby.json  [NOT SIGNED]" in tree


def test_a_key_with_a_passphrase_signs(
    pvr: Any, repo: Path, keys: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = serialization.load_pem_private_key(Path(keys["p256"][1]).read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"open sesame")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    (tmp_path / "locked.key").write_bytes(pem)
    flags = ["--key", str(tmp_path / "locked.key"), *keys["p256"][2:]]
    assert "Set PVR_SIG_PASSPHRASE" in pvr("sig", *flags, "add", "--part", "web", code=127).err
    monkeypatch.setenv("PVR_SIG_PASSPHRASE", "wrong")
    assert "Is the passphrase the right one?" in pvr("sig", *flags, "add", "--part", "web", code=127).err
    monkeypatch.setenv("PVR_SIG_PASSPHRASE", "open sesame")
    sign(pvr, flags, "--part", "web")
    pvr("sig", *flags, "ls")
    # On a terminal it is asked for; a key without one is never asked about.
    monkeypatch.delenv("PVR_SIG_PASSPHRASE")
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda text, stream: asked.append(text) or "open sesame")
    sign(pvr, flags, "--part", "web")
    sign(pvr, keys["p256"], "--part", "web")
    assert len(asked) == 1


def test_what_was_changed_after_signing_is_refused(pvr: Any, repo: Path, keys: dict[str, list[str]]) -> None:
    sign(pvr, keys["rsa"], "--part", "web")
    (repo / "web/run.json").write_text('{"n":2}')
    pvr("commit")
    ran = pvr("sig", *keys["rsa"], "ls", code=13)
    assert "_sigs/web.json" in ran.err
    assert ran.out == ""
    assert "[DONE]" in pvr("sig", *keys["rsa"], "update").err
    assert pvr("sig", *keys["rsa"], "ls").code == 0


def test_a_key_that_nobody_trusts_is_refused(pvr: Any, repo: Path, keys: dict[str, list[str]]) -> None:
    sign(pvr, keys["other"], "--part", "web")
    pvr("sig", *keys["rsa"], "ls", code=13)
    pvr("sig", "--cacerts", "/nowhere", "ls", code=127)
    pvr("sig", "--cacerts", "_system_", "ls", code=127)
    pvr("sig", "--pubkey", "/nowhere", "ls", code=11)
    (repo / "no.pem").write_text("nothing")
    pvr("sig", "--pubkey", "no.pem", "ls", code=12)
    pvr("sig", *keys["other"], "ls", "nothere", code=125)


def test_raw_rules_flags_and_names(pvr: Any, repo: Path, keys: dict[str, list[str]]) -> None:
    flags = [*keys["rsa"][:2], "--x5c", "no"]
    out = pvr(
        "sig", *flags, "--output", "-", "add", "--raw", "skel", "-i", "webby.json", "-i", "#spec", "-e", "none"
    ).out
    assert json.loads(out)["#spec"] == "pvs@2"
    pvr("sig", *flags, "add", "--raw", "skel", "-i", "webby.json", "-i", "#spec", "-e", "none")
    pvr("add")
    pvr("commit")
    public = ["--pubkey", keys["rsa"][1].removesuffix(".key") + ".pub"]
    assert pvr("sig", *public, "ls", "skel", "--json").json()["protected"] == ["#spec", "webby.json"]
    with_sigs = pvr("sig", *public, "ls", "--with-sigs", "--json").json()
    assert with_sigs["sigs"][0]["#spec"] == "pvs@2"
    pvr("sig", *flags, "add", code=5)
    pvr("sig", *flags, "add", "--part", "a", "--raw", "b", code=5)
    pvr("sig", *flags, "update", "nothere", code=123)
    pvr("sig", "--key", "/nowhere", "add", "--part", "web", code=127)
    sign(pvr, flags, "--part", "web", "--noconfig")
    assert "_config/web/etc/x" in pvr("sig", *public, "ls", "web", "--json").json()["notseen"]


def test_a_payload_is_kept_when_asked_for(pvr: Any, repo: Path, keys: dict[str, list[str]]) -> None:
    pvr("sig", "--with-payload", *keys["rsa"], "add", "--part", "web")
    assert "payload" in json.loads((repo / "_sigs/web.json").read_bytes())


def test_no_signature_is_an_empty_object(pvr: Any, repo: Path) -> None:
    assert pvr("sig", "ls").out == "{}\n"


def packed(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_only_pem_files_come_out_of_a_key_archive() -> None:
    members = {
        "pvs/key.default.pem": b"k",
        "pvs/../../x.pem": b"x",
        "/pvs/y.pem": b"y",
        "other/z.pem": b"z",
        "pvs/run.sh": b"",
    }
    assert _unpack(packed(members), "url") == {"key.default.pem": b"k"}
    for bad in (b"", b"no tar", packed({"x": b""}), packed({f"pvs/{n}.pem": b"" for n in range(30)})):
        with pytest.raises(HostileInputError):
            _unpack(bad, "url")
    assert os.path.sep == "/"
