"""Local control on a real kernel: a device without a hub, worked on from the shell of one of its containers.

One guest, booted once; the tests go on from one another, in this order.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from brickless.core.canonical import JsonValue
from brickless.image import factory, sdk, storage
from brickless.image.bsp import Bsp
from brickless.main.artefacts import GROUP_TIMEOUT_S, STABLE_S, Artefacts, Variant, write_site
from brickless.main.hubapi import wait_until
from brickless.main.lab import free_port
from brickless.store.objects import ObjectStore
from brickless.testkit import busybox
from brickless.twin.device import EmulatedDevice
from brickless.twin.qemu import Forward

pytestmark = [pytest.mark.needs("qemu"), pytest.mark.timeout(600)]
BOOT_TIMEOUT_S = 240.0
STEP_TIMEOUT_S = 180.0
SDK_PORT, PLAIN_PORT = 8080, 8081
SHELL = b"""#!/bin/sh
echo "Content-Type: text/plain"
echo
cat >/tmp/script.$$
sh /tmp/script.$$ 2>&1
echo "@exit $?"
"""
# Says by itself that it is ready: its goal is READY.
PLAIN = f"/bin/sh -c 'echo plain begins; pvcontrol signal ready; exec httpd -f -p {PLAIN_PORT} -h /www'"
CONFIG = {
    "PH_CREDS_HOST": "10.0.2.99",
    "PH_UPDATER_INTERVAL": "5",
}


class Guest:
    """The device, and shells in two of its containers."""

    def __init__(self, folder: Path, artefacts: Artefacts) -> None:
        self.folder = folder
        squashfs = sdk.rootfs(folder / "sdk.squashfs", artefacts.folder, {"www/cgi-bin/sh": SHELL})
        write_site(folder / "site.cpio", b"")
        board = artefacts.board(Variant.FACTORY, folder / "site.cpio")
        storage.build(
            folder / "disk.img",
            fill=lambda objects: self.fill(objects, board, squashfs, artefacts),
            size_mb=512,
            config=CONFIG,
        )
        self.ports = {"sdk": free_port(), "plain": free_port()}
        forwards = [Forward(self.ports["sdk"], SDK_PORT), Forward(self.ports["plain"], PLAIN_PORT)]
        self.twin = EmulatedDevice(folder, forwards=forwards)

    def fill(self, objects: ObjectStore, board: Bsp, squashfs: Path, artefacts: Artefacts) -> bytes:
        extra: dict[str, JsonValue] = {}
        serve = f"/bin/sh -c 'exec httpd -f -p {SDK_PORT} -h /www'"
        own: list[tuple[str, str, dict[str, JsonValue]]] = [
            ("sdk", serve, {"roles": ["mgmt"]}),
            ("plain", PLAIN, {"status_goal": "READY"}),
        ]
        for name, command, more in own:
            entries = busybox.container(objects, name, command, squashfs)
            run = entries[f"{name}/run.json"]
            assert isinstance(run, dict)
            run.update(more)
            extra.update(entries)
        groups = factory.stock_groups(timeout_s=2 * GROUP_TIMEOUT_S, stable_s=STABLE_S)
        return factory.revision(objects, board, artefacts.folder, groups=groups, extra=extra)

    def shell(self, script: str, where: str = "sdk") -> tuple[int, str]:
        """Run a script in a container; its exit status and what it wrote."""
        url = f"http://127.0.0.1:{self.ports[where]}/cgi-bin/sh"

        def answer() -> str | None:
            try:
                response = httpx.post(url, content=script.encode(), timeout=120.0, trust_env=False)
            except httpx.HTTPError:
                return None
            return response.text if "@exit " in response.text else None

        text = wait_until(answer, BOOT_TIMEOUT_S, f"the shell of {where} answers")
        output, _, code = text.rpartition("@exit ")
        return int(code), output

    def ok(self, script: str, where: str = "sdk") -> str:
        """Run a script that must succeed."""
        code, text = self.shell(script, where)
        assert code == 0, f"{script}: {code}: {text}{self.twin.console.tail()}"
        return text

    def value(self, command: str) -> Any:
        """What a pvcontrol command prints."""
        return json.loads(self.ok(f"pvcontrol {command}"))

    def wait_for_step(self, rev: str, *statuses: str) -> dict[str, Any]:
        """A revision's progress, once its status is one of these."""

        def there() -> dict[str, Any] | None:
            code, text = self.shell(f"pvcontrol steps show-progress {rev}")
            progress: dict[str, Any] = json.loads(text) if code == 0 else {}
            return progress if progress.get("status") in statuses else None

        return wait_until(there, STEP_TIMEOUT_S, f"{rev} is {' or '.join(statuses)}")

    def containers(self) -> Mapping[str, Mapping[str, Any]]:
        """The containers by name."""
        return {one["name"]: one for one in self.value("ls")}


@pytest.fixture(scope="module")
def guest(artefacts: Artefacts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    one = Guest(tmp_path_factory.mktemp("control"), artefacts)
    with one.twin:
        one.twin.wait_for("container plain READY", timeout_s=BOOT_TIMEOUT_S)
        yield one


def pvtx(guest: Guest, name: str, make: str, *, then: str = "local") -> str:
    """A transaction from the shell: `make` puts package files into the folder it is run in."""
    script = f"""set -e
export PVTXDIR=/tmp/pvtx
rm -rf /tmp/package && mkdir -p /tmp/package/objects && cd /tmp/package
add() {{ sum=$(sha256sum "$1" | cut -d' ' -f1); mv "$1" objects/$sum; echo $sum; }}
{make}
pvtx abort; pvtx begin current
tar -c json objects | gzip | pvtx add -
pvtx {then} {name}
"""
    return guest.ok(script).strip().splitlines()[-1]


PAGE = """echo "{text}" >page; sum=$(add page)
echo '{{"#spec":"pantavisor-service-system@1","_config/plain/www/page.txt":"'$sum'"}}' >json
"""


def test_01_the_device_says_that_it_is_ready(guest: Guest) -> None:
    """The container `plain` reached its goal READY by its own signal, over the socket."""
    meta = guest.value("devmeta ls")
    assert meta["pantavisor.status"] == "READY"
    assert meta["pantavisor.revision"] == "0"
    assert guest.containers()["plain"]["status"] == "READY"
    assert meta["storage"]["total"] > 0


def test_02_a_container_without_the_role_is_refused(guest: Guest) -> None:
    code, text = guest.shell("pvcontrol ls", "plain")
    assert (code, json.loads(text)) == (255, {"Error": "Request not sent from a mgmt platform"})
    assert guest.shell("pvcontrol cmd reboot", "plain")[0] == 255
    seen = guest.ok("ls /pantavisor", "plain").split()
    assert seen == ["device-meta", "logs", "pv-ctrl", "pv-ctrl-log", "user-meta"], "nothing of the host's"
    assert "pv-ctrl" in guest.ok("ls /pantavisor").split()


def test_03_no_container_can_pretend_to_be_another(guest: Guest) -> None:
    tries = """
for file in $(ls -d /sys/fs/cgroup/../cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null); do
    echo $$ >$file 2>/dev/null
done
pvcurl -s -H 'Host: localhost' -H 'X-Container: sdk' -H 'X-PV-Role: mgmt' --unix-socket /pantavisor/pv-ctrl \\
    http://localhost/containers
"""
    assert "Request not sent from a mgmt platform" in guest.ok(tries, "plain")


def test_04_a_container_is_stopped_and_started(guest: Guest) -> None:
    guest.ok("pvcontrol containers stop plain")
    wait_until(lambda: guest.containers()["plain"]["status"] == "STOPPED" or None, STEP_TIMEOUT_S, "plain stopped")
    assert guest.containers()["plain"]["user_stopped"] == "true"
    guest.ok("pvcontrol containers start plain")
    wait_until(lambda: guest.containers()["plain"]["status"] == "READY" or None, STEP_TIMEOUT_S, "plain runs again")
    assert guest.shell("pvcontrol containers stop network")[0] == 255, "its changes need a reboot"


def test_05_user_metadata_reach_their_container_alone(guest: Guest) -> None:
    guest.ok("pvcontrol usrmeta save plain.greeting hello; pvcontrol usrmeta save sdk.secret hidden")
    assert guest.ok("cat /pantavisor/user-meta/greeting", "plain") == "hello"
    assert guest.ok("ls /pantavisor/user-meta", "plain").split() == ["greeting"]
    guest.ok("pvcontrol usrmeta delete sdk.secret")


def test_06_configuration_by_metadata_and_back(guest: Guest) -> None:
    def delay() -> Any:
        return next(row for row in guest.value("conf ls") if row["key"] == "PV_UPDATER_COMMIT_DELAY")

    before = delay()
    assert before["modified"] == "pv conf file"
    guest.ok("pvcontrol usrmeta save PV_UPDATER_COMMIT_DELAY 3")
    assert delay() == {"key": "PV_UPDATER_COMMIT_DELAY", "value": "3", "modified": "metadata"}
    guest.ok("pvcontrol usrmeta delete PV_UPDATER_COMMIT_DELAY")
    assert delay() == before


def test_07_an_object_with_other_bytes_is_refused(guest: Guest) -> None:
    assert guest.shell(f"echo x >/tmp/x; pvcontrol objects put /tmp/x {'0' * 64}")[0] == 60
    assert guest.shell("pvcontrol steps put /tmp/x locals/x")[0] == 255


def test_07_what_containers_say_is_kept_for_them(guest: Guest) -> None:
    guest.ok("logger -t demo said in plain", "plain")
    assert "[plain] " in wait_until(
        lambda: ((found := guest.shell("cat /pantavisor/logs/demo", "plain")[1]).strip() and found) or None,
        STEP_TIMEOUT_S,
        "the line is in the container's own log",
    )
    assert "[demo]: said in plain" in guest.ok("cat /pantavisor/logs/0/plain/demo")
    assert "plain begins" in guest.ok("cat /pantavisor/logs/0/plain/lxc/console.log")
    assert guest.ok("ls /pantavisor/logs/0/pantavisor").split() == ["dmesg", "pantavisor.log"]


def test_08_pvtx_from_a_shell_changes_one_container_in_place(guest: Guest) -> None:
    mark = guest.twin.mark()
    rev = pvtx(guest, "page-1", PAGE.format(text="page one"))
    assert rev == "locals/page-1"
    assert guest.wait_for_step(rev, "DONE", "UPDATED", "ERROR", "WONTGO")["status"] == "DONE"
    assert guest.ok("cat /www/page.txt", "plain") == "page one\n"
    assert len(guest.twin.boots) == 1, "no reboot"
    guest.twin.wait_for("revision locals/page-1 started", timeout_s=1, since=mark)
    assert guest.value("devmeta ls")["pantavisor.revision"] == rev


def test_09_a_local_revision_means_local_mode_until_go_remote(guest: Guest) -> None:
    assert guest.value("devmeta ls")["pantavisor.mode"] == "local"
    guest.ok("pvcontrol cmd go-remote")
    assert guest.value("devmeta ls")["pantavisor.mode"] == "remote"
    guest.ok("pvcontrol cmd go-remote")


def test_10_a_bad_local_revision_is_rolled_back(guest: Guest) -> None:
    make = """echo 'lxc.rootfs.path = overlayfs:/volumes/plain/root.squashfs:/volumes/plain/lxc-overlay/upper
lxc.init.cmd = /bin/false' >conf; sum=$(add conf)
pvcontrol -f state steps get current
sed "s/.*\\(\\"plain.run.json\\":{[^}]*}[^}]*}[^}]*}\\).*/\\1/" state >run
squash=$(tr ',' '\\n' <state | grep plain/root.squashfs | cut -d'"' -f4)
echo '{"#spec":"pantavisor-service-system@1","plain/lxc.container.conf":"'$sum'","plain/root.squashfs":"'$squash'",\
"plain/run.json":{"#spec":"service-manifest-run@1","config":"lxc.container.conf","group":"app","name":"plain",\
"root-volume":"root.squashfs","storage":{"lxc-overlay":{"persistence":"boot"}},"type":"lxc","volumes":[]}}' >json
rm -f state run
"""
    rev = pvtx(guest, "broken", make)
    progress = guest.wait_for_step(rev, "ERROR", "DONE", "UPDATED", "WONTGO")
    assert progress["status"] == "ERROR"
    assert progress["status-msg"] in {"A container could not be started", "Status goal not reached"}
    wait_until(
        lambda: guest.value("devmeta ls")["pantavisor.revision"] == "locals/page-1" or None,
        STEP_TIMEOUT_S,
        "the revision of before runs",
    )
    assert guest.ok("cat /www/page.txt", "plain") == "page one\n"


def test_11_a_revision_that_lacks_an_object_ends_with_the_reason(guest: Guest) -> None:
    make = f"""echo '{{"#spec":"pantavisor-service-system@1","_config/plain/x":"{"1" * 64}"}}' >json"""
    rev = pvtx(guest, "lacking", make)
    progress = guest.wait_for_step(rev, "ERROR", "DONE", "UPDATED", "WONTGO")
    assert progress["status"] == "ERROR"
    assert "objects are missing" in progress["logs"]


def test_12_run_commit_reboots_and_is_a_trial(guest: Guest) -> None:
    boots = len(guest.twin.boots)
    rev = pvtx(guest, "page-2", PAGE.format(text="page two"), then="commit")
    guest.ok(f"pvcontrol cmd run-commit {rev}")
    wait_until(lambda: len(guest.twin.boots) > boots or None, STEP_TIMEOUT_S, "it reboots")
    assert guest.wait_for_step(rev, "DONE", "ERROR")["status"] == "DONE"
    assert guest.ok("cat /www/page.txt", "plain") == "page two\n"


def test_13_garbage_goes_and_what_counts_stays(guest: Guest) -> None:
    reclaimed = guest.value("storage gc")["reclaimed"]
    names = [row["name"] for row in guest.value("steps ls")]
    assert reclaimed > 0
    assert {"0", "locals/page-2"} <= set(names)
    assert "locals/broken" not in names


def test_14_make_factory_and_back_to_it(guest: Guest) -> None:
    guest.ok("pvcontrol cmd make-factory locals/page-2")
    assert guest.value("steps get 0") == guest.value("steps get locals/page-2")
    guest.ok("pvcontrol cmd run 0")
    assert guest.wait_for_step("0", "DONE", "ERROR")["status"] == "DONE"
    assert guest.ok("cat /www/page.txt", "plain") == "page two\n"


def test_15_slow_clients_hold_up_nobody(guest: Guest) -> None:
    script = """
for n in 1 2; do (printf 'GET /containers HTTP/1.1\\r\\n'; sleep 8) | pvcurl -s -X PUT -T - \\
    --unix-socket /pantavisor/pv-ctrl http://localhost/objects/x >/dev/null 2>&1 & done
pvcontrol ls >/dev/null
"""
    guest.ok(script)


def test_16_a_reboot_by_command_keeps_the_revision(guest: Guest) -> None:
    boots = len(guest.twin.boots)
    mark = guest.twin.mark()
    guest.ok("pvcontrol cmd reboot 'because the test says so'")
    guest.twin.wait_for("reboot on request: because the test says so", timeout_s=STEP_TIMEOUT_S, since=mark)
    wait_until(lambda: len(guest.twin.boots) > boots or None, STEP_TIMEOUT_S, "it reboots")
    guest.twin.wait_for("container plain READY", timeout_s=BOOT_TIMEOUT_S, since=mark)
    assert guest.value("devmeta ls")["pantavisor.revision"] == "0"


def test_17_poweroff_ends_it(guest: Guest) -> None:
    began_s = time.monotonic()
    guest.ok("pvcontrol cmd poweroff")
    reason = guest.twin.wait_off(STEP_TIMEOUT_S)
    assert reason == "guest-shutdown", f"after {time.monotonic() - began_s:.0f} s"
