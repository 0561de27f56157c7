"""User metadata as files and as configuration; what is gone at the hub is gone here."""

from __future__ import annotations

from pathlib import Path

import pytest

from brickless.device.config import Config
from brickless.device.link.usermeta import UserMeta


@pytest.fixture
def said() -> list[str]:
    return []


def make(tmp_path: Path, config: Config, said: list[str]) -> UserMeta:
    trail = tmp_path / "trail"
    (trail / "web").mkdir(parents=True, exist_ok=True)
    (trail / "web/run.json").write_text("{}")
    return UserMeta(config, str(tmp_path / "cache"), str(tmp_path / "run"), str(trail), said.append)


def test_the_whole_set_is_mirrored(tmp_path: Path, said: list[str]) -> None:
    meta = make(tmp_path, Config(), said)
    meta.replace({"a": "1", "web.key": "v", "web/other": "w", "pvr-sdk.authorized_keys": "ssh-ed25519 AAA"})
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == [
        "a",
        "pvr-sdk.authorized_keys",
        "web.key",
        "web.other",
    ]
    assert (tmp_path / "run/user-meta/a").read_text() == "1"
    assert {p.name: p.read_text() for p in (tmp_path / "run/user-meta.web").iterdir()} == {"key": "v", "other": "w"}
    meta.replace({"a": "2"})
    assert [p.name for p in (tmp_path / "run/user-meta").iterdir()] == ["a"]
    assert (tmp_path / "run/user-meta/a").read_text() == "2"
    assert list((tmp_path / "run/user-meta.web").iterdir()) == []


def test_an_offline_device_keeps_what_was_set(tmp_path: Path, said: list[str]) -> None:
    make(tmp_path, Config(), said).replace({"updater.interval": "33"})
    config = Config()
    make(tmp_path, config, said).restore()
    assert config.seconds("PH_UPDATER_INTERVAL") == 33
    assert (tmp_path / "run/user-meta/updater.interval").read_text() == "33"


def test_configuration_comes_and_goes_with_its_key(tmp_path: Path, said: list[str]) -> None:
    config = Config()
    meta = make(tmp_path, config, said)
    meta.replace({"PH_UPDATER_INTERVAL": "33", "pantahub.log.push": "0"})
    assert config.seconds("PH_UPDATER_INTERVAL") == 33
    assert not config.flag("PV_LOG_PUSH")
    meta.replace({})
    assert config.seconds("PH_UPDATER_INTERVAL") == 5
    assert config.flag("PV_LOG_PUSH")


def test_a_bad_or_forbidden_value_is_reported_once_and_ignored(tmp_path: Path, said: list[str]) -> None:
    config = Config()
    meta = make(tmp_path, config, said)
    meta.replace({"PH_UPDATER_INTERVAL": "soon", "PH_CREDS_HOST": "evil.example"})
    assert config.seconds("PH_UPDATER_INTERVAL") == 5
    assert config.text("PH_CREDS_HOST") == "api.pantahub.com"
    assert len(said) == 2
    meta.replace({"PH_UPDATER_INTERVAL": "soon", "PH_CREDS_HOST": "evil.example", "x": "1"})
    assert len(said) == 2


def test_a_file_that_is_right_is_not_written_again(tmp_path: Path, said: list[str]) -> None:
    meta = make(tmp_path, Config(), said)
    meta.replace({"a": "1"})
    before = (tmp_path / "cache/a").stat().st_ino
    meta.replace({"a": "1", "b": "2"})
    assert (tmp_path / "cache/a").stat().st_ino == before
