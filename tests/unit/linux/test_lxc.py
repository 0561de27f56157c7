"""The configuration that LXC gets, what its monitors report, and what /proc says of a container's init."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from brickless.linux import lxc
from brickless.linux.lxc import Injected, Line

OWN = """
# made by a template
lxc.rootfs.path = overlayfs:/volumes/web/root.squashfs:/volumes/web/lxc-overlay/upper
lxc.init.cmd = /usr/sbin/nginx -g "daemon off;"
lxc.cgroup.devices.deny = a
lxc.cgroup.devices.allow = c 1:3 rwm
lxc.signal.halt = SIGQUIT
"""


def finalize(text: str = OWN, **changes: object) -> dict[str, list[str]]:
    add = Injected(name="web", hostname="web", console_log="/logs/console.log")._replace(**changes)
    found: dict[str, list[str]] = {}
    for line in lxc.finalize(lxc.parse_config(text), add):
        found.setdefault(line.key, []).append(line.value)
    return found


def test_nothing_that_the_container_set_is_overruled() -> None:
    lines = finalize(OWN + "lxc.uts.name = mine\nlxc.apparmor.profile = strict\n")
    assert lines["lxc.uts.name"] == ["mine"]
    assert lines["lxc.apparmor.profile"] == ["strict"]
    assert lines["lxc.init.cmd"] == ['/usr/sbin/nginx -g "daemon off;"']


def test_the_config_overlay_is_the_first_lower_directory() -> None:
    assert finalize(lower="/configs/web")["lxc.rootfs.path"] == [
        "overlayfs:/configs/web:/volumes/web/root.squashfs:/volumes/web/lxc-overlay/upper"
    ]


def test_a_root_that_is_no_overlay_stays() -> None:
    lines = finalize("lxc.rootfs.path = dir:/volumes/web/root\n", lower="/configs/web")
    assert lines["lxc.rootfs.path"] == ["dir:/volumes/web/root"]


def test_version_1_control_groups_are_dropped_where_there_are_none() -> None:
    lines = finalize(unified=True)
    assert "lxc.cgroup.devices.allow" not in lines
    assert lines["lxc.cgroup2.devices.allow"] == ["a"]


def test_version_1_control_groups_stay_where_they_are_mounted() -> None:
    lines = finalize(unified=False)
    assert lines["lxc.cgroup.devices.allow"] == ["c 1:3 rwm"]
    assert "lxc.cgroup2.devices.allow" not in lines


def test_what_is_injected_is_there() -> None:
    lines = finalize(environment=("container=pv-app",), mounts=("/run/pv pantavisor none bind,ro,create=dir 0 0",))
    assert lines["lxc.environment"] == ["container=pv-app"]
    assert lines["lxc.mount.entry"] == ["/run/pv pantavisor none bind,ro,create=dir 0 0"]
    assert lines["lxc.uts.name"] == ["web"]
    assert lines["lxc.console.logfile"] == ["/logs/console.log"]


def test_rendered_lines_parse_back() -> None:
    lines = lxc.parse_config(OWN)
    assert lxc.parse_config(lxc.render(lines)) == lines


def test_a_line_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match="line 2 is no"):
        lxc.parse_config("lxc.uts.name = a\nnonsense\n")


@pytest.mark.parametrize(
    ("value", "number"),
    [("SIGQUIT", signal.SIGQUIT), ("9", 9), ("SIGRTMIN+3", signal.SIGRTMIN + 3)],
)
def test_halt_signals(value: str, number: int) -> None:
    assert lxc.halt_signal([Line("lxc.signal.halt", value)]) == number


def test_the_halt_signal_of_lxc_is_sigpwr() -> None:
    assert lxc.halt_signal([]) == signal.SIGPWR


@pytest.mark.parametrize("value", ["", "0", "9999", "SIGNONSENSE", "SIGRTMIN+x"])
def test_bad_halt_signals(value: str) -> None:
    with pytest.raises(ValueError, match="is no signal"):
        lxc.halt_signal([Line("lxc.signal.halt", value)])


def message(kind: int, name: str, value: int) -> bytes:
    return lxc.MESSAGE.pack(kind, name.encode(), value)


def test_the_fifo_reports_whole_messages_in_order(tmp_path: Path) -> None:
    fifo = lxc.Fifo("/var/lib/lxc", run_dir=str(tmp_path))
    try:
        assert fifo.path == f"{tmp_path}//var/lib/lxc/monitor-fifo"
        assert fifo.read() == []
        with open(fifo.path, "wb", buffering=0) as writer:
            writer.write(message(0, "web", 2) + message(2, "web", 7 << 8))
            writer.write(message(0, "db", 0)[:100])
        assert fifo.read() == [lxc.Event("web", lxc.Kind.STATE, lxc.State.RUNNING), lxc.Event("web", 2, 7 << 8)]
        with open(fifo.path, "wb", buffering=0) as writer:
            writer.write(message(0, "db", 0)[100:])
        assert fifo.read() == [lxc.Event("db", lxc.Kind.STATE, lxc.State.STOPPED)]
    finally:
        fifo.close()


@pytest.mark.parametrize(
    ("status", "words"),
    [(7 << 8, "exit status 7"), (0, "exit status 0"), (signal.SIGSEGV, "signal SIGSEGV"), (None, "unknown")],
)
def test_exits_in_words(status: int | None, words: str) -> None:
    assert words in lxc.describe_exit(status)


def proc_entry(proc: Path, pid: int, parent: int, ns: str, caught: int = 0) -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "stat").write_text(f"{pid} (a (b) c) S {parent} " + " ".join(["0"] * 17) + " 4711 0\n")
    (folder / "status").write_text(f"Name:\tx\nNSpid:\t{ns}\nSigCgt:\t{caught:016x}\n")


def test_init_is_the_child_that_is_first_in_its_namespace(tmp_path: Path) -> None:
    proc_entry(tmp_path, 100, 1, "100")
    proc_entry(tmp_path, 101, 100, "101 1")
    proc_entry(tmp_path, 102, 100, "102")
    proc_entry(tmp_path, 103, 101, "103 2")
    assert lxc.init_pid(100, str(tmp_path)) == 101
    assert lxc.init_pid(101, str(tmp_path)) == 103
    assert lxc.init_pid(999, str(tmp_path)) is None
    assert lxc.start_time(101, str(tmp_path)) == 4711


def test_a_signal_is_of_use_only_where_it_is_handled(tmp_path: Path) -> None:
    proc_entry(tmp_path, 101, 100, "101 1", caught=1 << (signal.SIGTERM - 1))
    assert lxc.catches(101, signal.SIGTERM, str(tmp_path))
    assert not lxc.catches(101, signal.SIGPWR, str(tmp_path))
    assert not lxc.catches(999, signal.SIGPWR, str(tmp_path))


def test_this_process_is_found_in_proc() -> None:
    assert lxc.start_time(os.getpid()) is not None
    assert int(lxc.status_field(os.getpid(), "Pid")) == os.getpid()


def test_the_tail_of_a_log_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 5000 + b"\nlast words\n")
    assert lxc.tail(str(log), max_bytes=20).endswith("last words")
    assert len(lxc.tail(str(log), max_bytes=20)) <= 20
    assert lxc.tail(str(tmp_path / "nosuch")) == ""


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("/sbin/init", ["/sbin/init"]),
        ('/docker-entrypoint.sh "nginx""-g""daemon off;"', ["/docker-entrypoint.sh", "nginx", "-g", "daemon off;"]),
        (' "-a""b c"', ["-a", "b c"]),
        ("sh -c 'echo \"hi\"'", ["sh", "-c", 'echo "hi"']),
        ("a\\b  c", ["a\\b", "c"]),
        ('sh "" x', ["sh", "", "x"]),
        ('say"x y"', ['say"x', 'y"']),
        ('"whole value"', ["whole", "value"]),
        ("", []),
    ],
)
def test_the_command_is_split_as_the_fields_liblxc_does(value: str, words: list[str]) -> None:
    lines = [lxc.Line("lxc.init.cmd", "/overruled"), lxc.Line("lxc.init.cmd", value)]
    assert lxc.init_command(lines) == words


def test_a_quote_without_an_end_is_an_error() -> None:
    with pytest.raises(ValueError, match="a quote does not end"):
        lxc.init_command([lxc.Line("lxc.init.cmd", 'sh "-c')])
