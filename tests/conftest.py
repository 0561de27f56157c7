"""The tier of a test is the folder it lies in; a skip needs a probed capability, and CI says which must be there."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from brickless.testkit import s3

TESTS = Path(__file__).parent
TIERS = ("unit", "contract", "flow", "ns", "vm", "chaos")
#: Where tools/go-tools puts what it builds.
GO_TOOLS = TESTS.parent / ".cache" / "bin"
SHARED = TESTS.parent.parent / "shared"


def _can_unshare() -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            import ctypes

            clone_newuser, clone_newns = 0x10000000, 0x00020000
            os._exit(0 if ctypes.CDLL(None).unshare(clone_newuser | clone_newns) == 0 else 1)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


# Each probe tests exactly what a test of that capability uses, never a user id.
PROBES: dict[str, Callable[[], bool]] = {
    "userns": _can_unshare,
    "root": lambda: os.access("/proc/1/environ", os.R_OK) and os.access("/dev/loop-control", os.W_OK),
    "lxc": lambda: shutil.which("lxc-start") is not None,
    "qemu": lambda: shutil.which("qemu-system-x86_64") is not None,
    "umoci": lambda: shutil.which("umoci") is not None,
    "skopeo": lambda: shutil.which("skopeo") is not None,
    "buildah": lambda: shutil.which("buildah") is not None and shutil.which("podman") is not None,
    "registry": lambda: shutil.which("docker-registry") is not None,
    "softhsm": lambda: shutil.which("softhsm2-util") is not None and shutil.which("pkcs11-tool") is not None,
    "verity": lambda: shutil.which("veritysetup", path="/usr/sbin:/sbin:/usr/bin") is not None,
    "postgresql": lambda: bool(glob.glob("/usr/lib/postgresql/*/bin/postgres")),
    "dbus": lambda: shutil.which("dbus-daemon") is not None,
    "nginx": lambda: shutil.which("nginx", path="/usr/sbin:/usr/bin") is not None,
    "s3": lambda: s3.program() is not None,
    "qemu-arm64": lambda: shutil.which("qemu-system-aarch64") is not None,
    "grub": lambda: shutil.which("grub-mkimage", path="/usr/bin:/usr/sbin") is not None,
    "grub-editenv": lambda: shutil.which("grub-editenv", path="/usr/bin:/usr/sbin") is not None,
    "fw-printenv": lambda: shutil.which("fw_printenv", path="/usr/bin:/usr/sbin:/sbin") is not None,
    "mkimage": lambda: shutil.which("mkimage") is not None,
    "mtools": lambda: shutil.which("mtype") is not None,
    "helm": (GO_TOOLS / "helm").exists,
    "compose": (GO_TOOLS / "compose").exists,
    "ipv6": _has_ipv6,
    "chromium": lambda: os.access("/usr/bin/chromium", os.X_OK),
    "shared": (SHARED / "fixtures" / "states").is_dir,
}

# A deadline for one example measures how busy the machine is, not the code.
settings.register_profile("house", deadline=None)
settings.load_profile("house")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts what it runs in the background so; programs under test would inherit it and never be stopped.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "needs(*capabilities): skip where a probed capability is missing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        relative = Path(item.fspath).relative_to(TESTS)
        if relative.parts[0] in TIERS:
            item.add_marker(getattr(pytest.mark, relative.parts[0]))


def pytest_runtest_setup(item: pytest.Item) -> None:
    # A hook, not a fixture: fixtures of a larger scope would be set up, and fail, before it.
    required = set(filter(None, os.environ.get("BRICKLESS_REQUIRE", "").split(",")))
    for marker in item.iter_markers("needs"):
        for capability in marker.args:
            if PROBES[capability]():
                continue
            message = f"this machine lacks the capability {capability!r}"
            if capability in required:
                pytest.fail(f"{message}, and BRICKLESS_REQUIRE says that it must be there")
            pytest.skip(message)


@pytest.fixture(scope="session")
def shared_fixtures() -> Path:
    """The real device states beside the checkout: read where they lie, never copied into the project."""
    return SHARED / "fixtures" / "states"
