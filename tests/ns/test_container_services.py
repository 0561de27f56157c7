"""Services between real containers: sockets, callers that cannot lie, descriptors, headers, a hosted bus."""

from __future__ import annotations

import array
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from brickless.core.progress import Status
from brickless.core.services import BUS_TARGET
from brickless.core.state import parse_state
from brickless.device.control import graph
from brickless.device.xconnect import reach
from brickless.linux import cgroup, libc, mount
from brickless.testkit.dbus_client import BUS, DBusClient
from brickless.testkit.real_device import OwnNetwork, RealDevice

pytestmark = pytest.mark.needs("root", "lxc")
IDLE = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"
TARGET = "/run/services/api.sock"
TIMEOUT_S = 20.0
CLOCK = "org.example.Clock"


@pytest.fixture
def device(tmp_path: Path) -> Iterator[RealDevice]:
    with RealDevice(tmp_path) as one:
        yield one


def manifest(*exports: dict[str, object]) -> dict[str, object]:
    return {"#spec": "service-manifest-xconnect@1", "services": list(exports)}


def needs(kind: str, name: str = "api", target: str = TARGET, **more: str) -> dict[str, object]:
    return {"required": [{"name": name, "type": kind, "target": target, **more}]}


def pair(device: RealDevice, kind: str, **more: str) -> None:
    """A provider and a consumer that run, and the socket that appeared."""
    serve = device.container("give", IDLE)
    serve[f"{device.name('give')}/services.json"] = manifest({"name": "api", "type": kind, "socket": "/run/api.sock"})
    take = device.container("take", IDLE, services=needs(kind, **more))
    device.install("0", serve, take)
    device.boot()
    device.run("give", "take")
    device.until(lambda: device.inside("take", TARGET).is_socket(), "the socket in the consumer")


def join(pid: int) -> None:
    """Put this process where the container's are: the kernel then says that it is one of them."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, name, path = line.split(":", 2)
        base = "" if cgroup.layout() == "unified" else "/unified" if number == "0" else f"/{name.removeprefix('name=')}"
        procs = Path(f"{cgroup.ROOT}{base}{path}/cgroup.procs")
        if cgroup.PAYLOAD in path and procs.exists():
            procs.write_text(str(os.getpid()))


def within(device: RealDevice, short: str, work: Callable[[], str]) -> str:
    """Do something as a process of a container, while the device goes on."""
    pid = device.init(short)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            join(pid)
            libc.setns(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY), libc.CLONE_NEWNS)
            os.write(writer, work().encode())
        except OSError as error:
            os.write(writer, f"error {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    device.until(lambda: os.waitpid(child, os.WNOHANG)[0] == child, "the process in the container")
    with os.fdopen(reader, "rb") as stream:
        return stream.read().decode()


def call(data: bytes, path: str = TARGET, fds: tuple[int, ...] = ()) -> str:
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(TIMEOUT_S)
        one.connect(path)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        one.sendmsg([data], rights)
        one.shutdown(socket.SHUT_WR)
        out = b""
        while piece := one.recv(65536):
            out += piece
        return out.decode()


class Server(threading.Thread):
    """Listens in a container and answers each connection with what `answer` makes of it."""

    def __init__(self, pid: int, answer: Callable[[socket.socket], None], path: str = "/run/api.sock") -> None:
        super().__init__(daemon=True)
        self._listener = reach.listen(pid, path)
        self._listener.setblocking(True)
        self._answer = answer
        self.start()

    def run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                self._answer(client)


def echo(client: socket.socket) -> None:
    while data := client.recv(65536):
        client.sendall(data.upper())


def test_a_unix_service_carries_bytes_and_descriptors(device: RealDevice) -> None:
    pair(device, "unix")

    def read_the_file(client: socket.socket) -> None:
        data, control, _, _ = client.recvmsg(1024, socket.CMSG_SPACE(16))
        fd = array.array("i", control[0][2])[0]
        client.sendall(data + b" " + os.pread(fd, 100, 0))
        os.close(fd)

    Server(device.init("give"), read_the_file)

    def ask() -> str:
        memory = os.memfd_create("message")
        os.write(memory, b"in the file")
        return call(b"look", fds=(memory,))

    assert within(device, "take", ask) == "look in the file"


def test_much_data_flows_both_ways_without_being_held(device: RealDevice) -> None:
    pair(device, "unix")
    Server(device.init("give"), echo)

    def ask() -> str:
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(TIMEOUT_S)
            one.connect(TARGET)
            sender = threading.Thread(target=lambda: (one.sendall(b"x" * (8 << 20)), one.shutdown(socket.SHUT_WR)))
            sender.start()
            size = 0
            while piece := one.recv(1 << 16):
                assert piece.strip(b"X") == b""
                size += len(piece)
            sender.join()
            return str(size)

    assert within(device, "take", ask) == str(8 << 20)


def test_who_is_not_the_consumer_is_refused_by_the_kernel_s_word(device: RealDevice) -> None:
    pair(device, "unix")
    Server(device.init("give"), echo)
    assert within(device, "take", lambda: call(b"hello")) == "HELLO"
    # A process of another container, and one of the host, that found a way to the consumer's socket.
    path = str(device.inside("take", TARGET))
    pid = device.init("give")
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2] / 'src')!r})\n"
        f"from pathlib import Path\nimport socket, os\n"
        f"for line in Path('/proc/{pid}/cgroup').read_text().splitlines():\n"
        f"    number, name, path = line.split(':', 2)\n"
        f"    base = '/unified' if number == '0' else '/' + name.removeprefix('name=')\n"
        f"    procs = Path('/sys/fs/cgroup' + base + path + '/cgroup.procs')\n"
        f"    if 'lxc.payload.' in path and procs.exists(): procs.write_text(str(os.getpid()))\n"
        f"one = socket.socket(socket.AF_UNIX); one.settimeout(20); one.connect({path!r}); print(one.recv(100))\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as other:
        device.until(lambda: other.poll() is not None, "the other container's call")
        assert other.stdout is not None
        assert other.stdout.read() == b"b''\n"
    assert f"a connection from {device.name('give')} is refused" in device.log()
    answer: list[str] = []

    def from_the_host() -> None:
        try:
            answer.append(call(b"", path))
        except ConnectionError:  # it was closed before anything could be sent
            answer.append("")

    host = threading.Thread(target=from_the_host)
    host.start()
    device.until(lambda: not host.is_alive(), "the host's call")
    device.until(lambda: "a connection from the host is refused" in device.log(), "the refusal of the host")
    assert answer == [""]


def test_a_rest_service_hears_who_calls_and_not_who_claims_to(device: RealDevice) -> None:
    pair(device, "rest", role="reader")

    def show(client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(65536)
        body = head.replace(b"\r\n", b"|")
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))

    Server(device.init("give"), show)
    request = b"GET /x HTTP/1.1\r\nHost: a\r\nX-PV-Client: root\r\nx_pv_role: admin\r\nConnection: X-PV-Client\r\n\r\n"
    said = within(device, "take", lambda: call(request))
    assert f"X-PV-Client: {device.name('take')}|X-PV-Role: reader" in said
    assert "root" not in said
    assert "admin" not in said
    smuggled = (
        b"POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    )
    assert within(device, "take", lambda: call(smuggled)).startswith("HTTP/1.1 400 ")


def test_a_provider_s_link_out_of_itself_leads_nowhere(device: RealDevice) -> None:
    pair(device, "unix")
    trap = device.folder / "host.sock"
    with socket.socket(socket.AF_UNIX) as host:
        host.bind(str(trap))
        host.listen()
        device.inside("give", "/run/api.sock").symlink_to(trap)
        answer = within(device, "take", lambda: call(b"hello"))
        assert answer == "" or answer.startswith("error [Errno "), answer
        host.setblocking(False)
        with pytest.raises(BlockingIOError):
            host.accept()
    assert "No such file" in device.log()


def test_the_socket_is_there_again_when_either_side_starts_again_and_goes_with_the_link(device: RealDevice) -> None:
    pair(device, "unix")
    for short in ("take", "give"):
        pid = device.init(short)
        device.ask(op="restart", name=device.name(short))
        device.until(lambda short=short, pid=pid: device.containers()[short]["pid"] and device.are("STARTED", short))  # type: ignore[misc]  # defaults bind it now
        device.until(lambda: device.inside("take", TARGET).is_socket())
        assert device.init(short) != pid
    Server(device.init("give"), echo)
    assert within(device, "take", lambda: call(b"again")) == "AGAIN"
    state = parse_state(device.storage.state_bytes("0"))
    (link,) = graph.links(state, {device.name(short): device.init(short) for short in ("give", "take")})
    assert (link["consumer_pid"], link["provider_pid"]) == (device.init("take"), device.init("give"))
    assert (link["target"], link["role"]) == (TARGET, "any")


def test_a_required_service_that_nobody_provides_fails_the_update_with_its_reason(device: RealDevice) -> None:
    device.install("0", device.container("take", IDLE))
    device.install("1", device.container("take", IDLE, services=needs("unix", name="db")))
    device.boot()
    device.run("take")
    progress = device.update("1")
    assert progress.status is Status.ERROR
    assert "it requires the service db of type unix, which no container provides" in progress.logs
    device.run("take")


def test_a_drm_device_is_handed_on_and_no_other(device: RealDevice) -> None:
    serve = device.container("give", IDLE)
    exports = [{"name": name, "type": "drm", "socket": f"/dev/{name}"} for name in ("card0", "kmsg")]
    serve[f"{device.name('give')}/services.json"] = manifest(*exports)
    wanted = [{"name": name, "type": "drm", "target": f"/dev/got-{name}"} for name in ("card0", "kmsg")]
    device.install("0", serve)
    device.boot()
    device.run("give")
    os.mknod(device.inside("give", "/dev/card0"), 0o20666, os.makedev(226, 0))
    os.mknod(device.inside("give", "/dev/kmsg"), 0o20666, os.makedev(1, 11))
    device.install("1", serve, device.container("take", IDLE, services={"optional": wanted}))
    assert device.update("1").status in (Status.DONE, Status.UPDATED), device.log()
    device.until(lambda: device.inside("take", "/dev/got-card0").exists())
    assert device.inside("take", "/dev/got-card0").stat().st_rdev == os.makedev(226, 0)
    device.until(lambda: "/dev/kmsg of the provider is no DRM device" in device.log())
    assert not device.inside("take", "/dev/got-kmsg").exists()


def test_there_is_no_proxy_without_services(device: RealDevice) -> None:
    device.install("0", device.container("take", IDLE))
    device.boot()
    device.run("take")
    assert device.machine is not None
    assert device.machine._proxy is None


@pytest.mark.needs("dbus")
def test_the_hosted_bus_knows_roles_and_allows_what_manifests_say(tmp_path: Path) -> None:
    """In namespaces of its own: the bus has users in /etc/passwd and its socket in /run/pv."""
    with OwnNetwork(tmp_path):
        for name in ("upper", "work"):
            (tmp_path / name).mkdir()
        os.makedirs("/run/pv", exist_ok=True)
        mount.mount("tmpfs", "/run/pv", "tmpfs")
        layers = f"lowerdir=/etc,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
        mount.mount("overlay", "/etc", "overlay", options=layers)
        with RealDevice(tmp_path / "device") as device:
            hosted_bus(device)


def hosted_bus(device: RealDevice) -> None:
    owner = device.container("give", IDLE)
    owner[f"{device.name('give')}/services.json"] = manifest(
        {"type": "dbus", "bus": "system-bus", "owns": CLOCK, "role": "clock", "allow": ["viewer"]}
    )
    parts = [owner]
    for short, role in (("good", "viewer"), ("bad", "stranger")):
        wish = {"required": [{"name": "system-bus", "type": "dbus", "role": role}]}
        parts.append(device.container(short, IDLE, services=wish))
    device.install("0", *parts)
    device.boot()
    device.run("give", "good", "bad")
    device.until(lambda: all(device.inside(one, BUS_TARGET).is_socket() for one in ("give", "good", "bad")))
    device.until(lambda: Path("/run/pv/dbus/system_bus_socket").is_socket(), "the bus")
    uids = json.loads(Path(device.storage.root, "config/dbus-role-uids.json").read_text())
    assert uids == {"clock": 90000, "stranger": 90001, "viewer": 90002}
    # 1 is DBUS_REQUEST_NAME_REPLY_PRIMARY_OWNER.
    assert speak(device, "give", "own") == "uid 90000 1"
    assert speak(device, "good", "own") == "uid 90002 org.freedesktop.DBus.Error.AccessDenied"
    # Nobody owns the name any more.
    assert speak(device, "good", "call") == "uid 90002 org.freedesktop.DBus.Error.ServiceUnknown"
    with owner_of_the_clock(device):
        assert speak(device, "bad", "call") == "uid 90001 org.freedesktop.DBus.Error.AccessDenied"
        # The owner got this call, and hangs up instead of an answer.
        assert speak(device, "good", "call") == "uid 90002 org.freedesktop.DBus.Error.NoReply"


@contextmanager
def owner_of_the_clock(device: RealDevice) -> Iterator[None]:
    """A process of the provider that owns the name until it is called."""
    pid = device.init("give")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            join(pid)
            libc.setns(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY), libc.CLONE_NEWNS)
            client = DBusClient(BUS_TARGET)
            os.write(writer, client.call(BUS, "RequestName", CLOCK, 4).encode())
            client.wait_for_call()
        finally:
            os._exit(0)
    os.close(writer)
    device.until(lambda: select.select([reader], [], [], 0)[0], "the owner of the clock")
    assert os.read(reader, 10) == b"1"
    yield
    device.until(lambda: os.waitpid(child, os.WNOHANG)[0] == child, "the owner's end")
    os.close(reader)


def speak(device: RealDevice, short: str, what: str) -> str:
    """A tiny D-Bus client in the container: logs in as root, which it is not, and does one thing."""

    def talk() -> str:
        client = DBusClient(BUS_TARGET)
        uid = client.call(BUS, "GetConnectionUnixUser", client.name)
        answer = client.call(BUS, "RequestName", CLOCK, 4) if what == "own" else client.call(CLOCK, "Tick")
        return f"uid {uid} {answer}"

    return within(device, short, talk)
