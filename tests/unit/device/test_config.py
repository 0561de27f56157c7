"""Layers, types, origins and reports of the runtime's configuration; the reference page is what the table says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickless.device import config
from brickless.device.config import Config, ConfigError, Sources, load, parse
from brickless.device.config_keys import KEYS
from brickless.device.config_reference import reference

ROOT = Path(__file__).parents[3]


def test_the_reference_page_is_made_from_the_table() -> None:
    assert (ROOT / "docs/reference/configuration.md").read_text() == reference(), (
        "run: python -m brickless.device.config_reference > docs/reference/configuration.md"
    )


def test_every_default_is_allowed_by_its_own_type() -> None:
    for key in KEYS.values():
        if key.default:
            parse(key.name, key.default)


def test_no_two_keys_share_an_old_name() -> None:
    aliases = [alias for key in KEYS.values() for alias in key.aliases]
    assert len(aliases) == len(set(aliases))
    assert not set(aliases) & set(KEYS)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("PV_CONTROL_REMOTE", "yes", True),
        ("PV_CONTROL_REMOTE", "OFF", False),
        ("PH_UPDATER_INTERVAL", "5", 5),
        ("PH_UPDATER_INTERVAL", "2min", 120),
        ("PV_POWER_WAKE_INTERVAL", "1h", 3600),
        ("PV_LOG_DIR_MAXSIZE", "16m", 16 * 1024**2),
        ("PV_LOG_SERVER_OUTPUTS", "filetree, stdout", ("filetree", "stdout")),
        ("PV_STORAGE_MNTPOINT", "/data", "/data"),
        ("PV_SECUREBOOT_MODE", "strict", "strict"),
        ("PH_CREDS_HOST", "2001:db8::1", "2001:db8::1"),
    ],
)
def test_good_values(name: str, text: str, value: object) -> None:
    assert parse(name, text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PV_CONTROL_REMOTE", "maybe"),
        ("PH_UPDATER_INTERVAL", "0"),
        ("PH_UPDATER_INTERVAL", "-5"),
        ("PH_UPDATER_INTERVAL", "5 days"),
        ("PH_UPDATER_INTERVAL", "٥"),
        ("PH_UPDATER_INTERVAL", ""),
        ("PH_UPDATER_INTERVAL", "9" * 20),
        ("PV_STORAGE_MNTPOINT", "relative"),
        ("PV_STORAGE_MNTPOINT", "/a/../b"),
        ("PV_SECUREBOOT_MODE", "off"),
        ("PH_CREDS_HOST", "a\nb"),
        ("PH_CREDS_HOST", "x" * 5000),
        ("NO_SUCH_KEY", "1"),
    ],
)
def test_bad_values_say_what_would_be_right(name: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(name, text)
    assert name in str(caught.value)


def test_a_bad_secret_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("PH_CREDS_SECRET", "hush\x00hush")
    assert "hush" not in str(caught.value)


@given(st.sampled_from(sorted(KEYS)), st.text(max_size=40))
def test_any_text_is_a_value_or_a_config_error(name: str, text: str) -> None:
    try:
        value = parse(name, text)
    except ConfigError:
        return
    assert parse(name, config.render(value)) == value or not text.strip()


def _write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_later_levels_win_and_say_where_they_come_from(tmp_path: Path) -> None:
    _write(tmp_path / "s/config/pantahub.config", "PH_UPDATER_INTERVAL=10\nPH_CREDS_HOST=hub.example\n")
    _write(tmp_path / "rev/oem/default.config", "PH_UPDATER_INTERVAL=20\nPV_LOG_LEVEL=3\n")
    got = load(
        Sources(
            environ={"PH_CREDS_PORT": "12366", "HOME": "/root", "PV_OEM_NAME": "oem"},
            command_line="console=ttyS0 pv_rev=3 pv_try= PV_STORAGE_DEVICE=/dev/vda ph_updater.interval=30",
            file=_write(tmp_path / "pantavisor.config", "# comment\n\nPV_LOG_LEVEL = 1\n"),
            storage=str(tmp_path / "s"),
            revision_dir=str(tmp_path / "rev"),
        )
    )
    assert got.setting("PH_UPDATER_INTERVAL") == (30, config.PH_CMDLINE)
    assert got.setting("PH_CREDS_HOST") == ("hub.example", config.PH_CONF)
    assert got.setting("PH_CREDS_PORT") == (12366, config.ENV)
    assert got.setting("PV_LOG_LEVEL") == (3, config.OEM)
    assert got.setting("PV_STORAGE_DEVICE") == ("/dev/vda", config.PV_CMDLINE)
    assert got.setting("PV_WDT_TIMEOUT") == (15, config.DEFAULT)
    assert got.problems == ["ph cmdline: updater.interval is the old name of PH_UPDATER_INTERVAL"]


def test_a_key_on_a_level_that_may_not_set_it_is_reported_and_ignored(tmp_path: Path) -> None:
    path = _write(tmp_path / "pantavisor.config", "PH_CREDS_HOST=elsewhere\nPV_LOG_LEVEL=nine\nwhat\n")
    got = load(Sources(environ={}, file=path))
    assert got.text("PH_CREDS_HOST") == "api.pantahub.com"
    assert got.integer("PV_LOG_LEVEL") == 0
    assert len(got.problems) == 3
    assert "PH_CREDS_HOST may not be set there" in got.problems[0]


def test_a_policy_that_is_named_but_missing_is_reported(tmp_path: Path) -> None:
    environ = {"PV_POLICY": "prod", "PV_SYSTEM_ETCPANTAVISORDIR": str(tmp_path)}
    missing = load(Sources(environ=environ, file=str(tmp_path / "none")))
    assert "prod.config is missing" in missing.problems[0]
    _write(tmp_path / "policies/prod.config", "debug.shell=0\nsecureboot.mode=strict\n")
    found = load(Sources(environ=environ, file=str(tmp_path / "none")))
    assert found.setting("PV_SECUREBOOT_MODE") == ("strict", config.POLICY)
    assert not found.flag("PV_DEBUG_SHELL")


@pytest.mark.parametrize("name", ["../../etc/shadow", ".hidden", "a/b"])
def test_a_policy_name_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    got = load(Sources(environ={"PV_POLICY": name}, file=str(tmp_path / "none")))
    assert "not a plain name" in got.problems[0]


def test_user_meta_sets_running_keys_and_taking_it_away_restores() -> None:
    got = Config()
    got.put(config.PH_CMDLINE, "PH_UPDATER_INTERVAL", "60")
    got.put(config.META, "updater.interval", "7")
    assert got.setting("PH_UPDATER_INTERVAL") == (7, config.META)
    with pytest.raises(ConfigError):
        got.put(config.META, "PH_CREDS_HOST", "evil.example")
    with pytest.raises(ConfigError):
        got.put(config.META, "sysctl.kernel.modules_disabled", "1")
    got.drop(config.META, "updater.interval")
    assert got.seconds("PH_UPDATER_INTERVAL") == 60


def test_secrets_are_hidden_where_all_is_listed() -> None:
    got = Config()
    got.put(config.PH_CONF, "PH_CREDS_SECRET", "hush")
    assert got.text("PH_CREDS_SECRET") == "hush"
    shown = {key.name: text for key, text, _ in got.entries()}
    assert shown["PH_CREDS_SECRET"] == "(hidden)"
    assert shown["PH_CREDS_ID"] == ""


def test_kernel_settings(tmp_path: Path) -> None:
    got = Config()
    got.put_all(config.PV_CONF, [("PV_SYSCTL_KERNEL_CORE_PATTERN", "core"), ("sysctl.net.ipv4.ip_forward", "1")])
    assert got.sysctls == {"kernel_core_pattern": "core", "net.ipv4.ip_forward": "1"}
    pattern = _write(tmp_path / "kernel/core_pattern", "")
    forward = _write(tmp_path / "net/ipv4/ip_forward", "")
    assert [config.sysctl_path(name, str(tmp_path)) for name in got.sysctls] == [pattern, forward]
    assert config.sysctl_path("kernel_none", str(tmp_path)) is None
    got.put_all(config.PV_CONF, [("sysctl.../../etc/passwd", "x")])
    assert "not the name of a kernel setting" in got.problems[-1]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"=" * 1000, b"A" * 100_000], ids=["bytes", "equals", "huge"])
def test_a_broken_file_never_stops_the_load(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pantavisor.config"
    path.write_bytes(content)
    got = load(Sources(environ={}, file=str(path)))
    assert got.problems
    assert got.integer("PH_CREDS_PORT") == 443
