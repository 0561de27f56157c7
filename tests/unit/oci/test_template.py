"""`lxc.container.conf` byte by byte and `run.json` value by value against the golden vectors; what LXC cannot say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from brickless.core.errors import UserError
from brickless.oci.template import Era, effective_group, init_command, render_lxc, render_run

VECTORS = Path(__file__).parents[3] / "spec/vectors/app-template"
ERAS = {"036": Era.R036, "037-28": Era.D037}
SRC = {"#spec": "service-manifest-src@1", "name": "web", "template": "builtin-lxc-docker"}


def vector(name: str) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    value = json.loads((VECTORS / f"{name}.input.json").read_text())
    return value["Source"], value["Docker"], value["EffectiveGroup"]


@pytest.mark.parametrize("name", ["web", "maximal"])
@pytest.mark.parametrize("era", list(ERAS))
def test_lxc_conf_has_the_golden_bytes(name: str, era: str) -> None:
    src, docker, group = vector(name)
    golden = (VECTORS / f"{name}.lxc.container.conf.{era}").read_text()
    assert render_lxc(src, docker, group=group, era=ERAS[era]) == golden


@pytest.mark.parametrize("name", ["web", "maximal"])
@pytest.mark.parametrize("era", list(ERAS))
def test_run_json_has_the_golden_values(name: str, era: str) -> None:
    src, docker, group = vector(name)
    text = (VECTORS / f"{name}.run.json.{era}").read_text().partition("\n---- err")[0]
    # The reference joins several volumes by a literal backslash-n, which is no JSON: what was meant counts.
    golden = json.loads(text.replace(",\\n", ","))
    assert render_run(src, docker, group=group, era=ERAS[era]) == golden


def test_the_newest_order_has_tmpfs_before_resolv_conf() -> None:
    src, docker, _ = vector("web")
    text = render_lxc(src, docker)
    assert text is not None
    old = render_lxc(src, docker, era=Era.D037)
    assert old is not None
    assert hashlib.sha256(old.encode()).hexdigest().startswith("1c2e68a418c22e932f851bf6e44ca704")
    assert sorted(text.splitlines()) == sorted(old.splitlines())
    assert text.index("tmpfs run") < text.index("/etc/resolv.conf") < text.index("docker--etc-x")


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "expected"),
    [
        (["/e", "x"], ["c0", "c1", "c2"], '/e "x" "c0""c1""c2"'),
        (["/e", "x"], "c", '/e "x" "c"'),
        (["/e", "x"], None, '/e "x"'),
        ([""], ["c0", "c1"], ' "c0""c1"'),
        ("/run me", ["ignored"], "/run me"),
        (None, ["c0", "c1", "c 2"], 'c0 "c1" "c 2"'),
        ([], "start", "start"),
        (None, None, "/sbin/init"),
        ([], [], "/sbin/init"),
        (["/e"], ['say "hi"'], "/e 'say \"hi\"'"),
        (["/e"], ["back\\slash"], '/e "back\\slash"'),
        (["/e"], [""], '/e ""'),
    ],
)
def test_init_command(entrypoint: Any, cmd: Any, expected: str) -> None:
    assert init_command(entrypoint, cmd) == expected


@pytest.mark.parametrize(
    ("docker", "message"),
    [
        ({"Entrypoint": ["/e", "a\"b'c"]}, "both kinds of quotes"),
        ({"Entrypoint": ["/my program"]}, "LXC cannot start such a name"),
        ({"Cmd": ["sh", "-c", "one\ntwo"]}, "cannot hold a line break"),
        ({"Env": ["A=1\nlxc.hook.start = /evil"]}, "cannot hold a line break"),
        ({"WorkingDir": "/x\nlxc.cap.drop ="}, "cannot hold a line break"),
        ({"StopSignal": "SIGTERM\n"}, "is no signal"),
        ({"User": "nginx"}, "was not resolved"),
    ],
)
def test_what_lxc_cannot_say_is_refused(docker: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        render_lxc(SRC, docker)


def test_user_and_stop_signal_appear_only_when_the_image_has_them() -> None:
    plain = render_lxc(SRC, {"Cmd": ["/x"], "User": "", "StopSignal": ""})
    assert plain is not None
    assert "uid" not in plain
    assert "signal" not in plain
    root = render_lxc(SRC, {"Cmd": ["/x"], "User": "root"})
    assert root == plain
    src = {**SRC, "docker_user": {"user": "nginx", "uid": 101, "gid": 102}}
    text = render_lxc(src, {"Cmd": ["/x"], "User": "nginx", "StopSignal": "QUIT"})
    assert text is not None
    assert "lxc.init.uid = 101\nlxc.init.gid = 102\nlxc.signal.halt = SIGQUIT\n" in text
    numbers = render_lxc(SRC, {"Cmd": ["/x"], "User": "33:44"})
    assert numbers is not None
    assert "lxc.init.uid = 33\nlxc.init.gid = 44\n" in numbers


def test_blanks_in_volumes_are_escaped_as_in_fstab() -> None:
    text = render_lxc(SRC, {"Cmd": ["/x"], "Volumes": {"/my data": {}}})
    assert text is not None
    assert "lxc.mount.entry = /volumes/web/docker--my\\040data my\\040data none bind,rw,create=dir 0 0\n" in text


@pytest.mark.parametrize("args", [{"PV_RUNLEVEL": "data"}, {"PV_STATUS_GOAL": "MOUNTED"}])
def test_an_app_without_a_process_has_no_lxc_conf(args: dict[str, str]) -> None:
    src = {**SRC, "args": {**args, "PV_ROLES": ["mgmt"]}, "exports": ["/a"], "logs": [{"file": "/x"}]}
    assert render_lxc(src, {}) is None
    run = render_run(src, {}, group="data")
    assert not {"config", "type", "roles", "exports", "logs"} & set(run)
    assert run["group"] == "data"


def test_newer_arguments_reach_run_json() -> None:
    args = {
        "PV_NETWORK_POOL": "p",
        "PV_NETWORK_MAC": "aa",
        "PV_SERVICES_REQUIRED": [{"name": "db"}],
        "PV_AUTO_RECOVERY": {"policy": "on-failure"},
        "PV_EXTRA_VOLUMES": "a,b",
    }
    run = render_run({**SRC, "args": args}, {})
    assert run["network"] == {"pool": "p", "hostname": "web", "mac": "aa"}
    assert run["services"] == {"required": [{"name": "db"}]}
    assert run["auto_recovery"] == {"policy": "on-failure"}
    assert run["volumes"] == ["a", "b"]
    assert json.loads(json.dumps(run)) == run


def test_config_of_src_json_overrides_but_null_does_not() -> None:
    src = {**SRC, "config": {"Cmd": ["/other"], "WorkingDir": None}}
    text = render_lxc(src, {"Cmd": ["/x"], "WorkingDir": "/w"})
    assert text is not None
    assert "lxc.init.cmd = /other\nlxc.init.cwd = /w\n" in text


def test_effective_group() -> None:
    groups = [{"name": "data"}, {"name": "app"}]
    assert effective_group(SRC, groups) == "app"
    assert effective_group({**SRC, "args": {"PV_GROUP": "root"}}, groups) == "root"
    assert effective_group({**SRC, "args": {"PV_RUNLEVEL": "root"}}, groups) is None
    assert effective_group(SRC, []) is None


@pytest.mark.parametrize(("template", "message"), [("", "empty template"), ("x", "no handler for x")])
def test_other_templates_are_refused(template: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        render_lxc({**SRC, "template": template}, {})
