"""Network interfaces by ioctl (netdevice(7)): up, address, names. What a container runtime needs, without `ip`."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
SIOCSIFADDR = 0x8916
SIOCSIFNETMASK = 0x891C
SIOCBRADDBR = 0x89A0
IFF_UP = 0x1
IFF_RUNNING = 0x40
IFNAMSIZ = 16
SYS_CLASS_NET = "/sys/class/net"


def _name(interface: str) -> bytes:
    name = os.fsencode(interface)
    if not name or len(name) >= IFNAMSIZ or b"/" in name or b"\0" in name:
        raise OSError(errno.EINVAL, f"not a name of a network interface: {interface!r}")
    return name


def flags_request(interface: str, flags: int) -> bytes:
    """`struct ifreq` with flags."""
    return struct.pack("16sH22x", _name(interface), flags)


def address_request(interface: str, address: str) -> bytes:
    """`struct ifreq` with an IPv4 address."""
    return struct.pack("16sHH4s16x", _name(interface), socket.AF_INET, 0, socket.inet_aton(address))


def _ioctl(number: int, request: bytes, tried: str) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
        try:
            return fcntl.ioctl(door.fileno(), number, request)
        except OSError as error:
            raise OSError(error.errno, f"{os.strerror(error.errno or 0)} ({tried})") from error


def flags(interface: str) -> int:
    """The interface's IFF_ flags."""
    answer = _ioctl(SIOCGIFFLAGS, flags_request(interface, 0), f"flags of {interface}")
    return int(struct.unpack_from("H", answer, IFNAMSIZ)[0])


def up(interface: str) -> None:
    """Bring the interface up; no harm when it is."""
    request = flags_request(interface, flags(interface) | IFF_UP)
    _ioctl(SIOCSIFFLAGS, request, f"bring {interface} up")


def set_address(interface: str, address: str, netmask: str) -> None:
    """Give the interface one IPv4 address, e.g. `10.0.3.1`, `255.255.255.0`."""
    _ioctl(SIOCSIFADDR, address_request(interface, address), f"give {interface} the address {address}")
    _ioctl(SIOCSIFNETMASK, address_request(interface, netmask), f"give {interface} the netmask {netmask}")


def add_bridge(bridge: str) -> bool:
    """Make a bridge; False when it exists."""
    try:
        _ioctl(SIOCBRADDBR, _name(bridge).ljust(IFNAMSIZ, b"\0"), f"make the bridge {bridge}")
    except OSError as error:
        if error.errno == errno.EEXIST:
            return False
        raise
    return True


def interfaces() -> list[str]:
    """Names of the interfaces of this network namespace."""
    return sorted(name for _, name in socket.if_nameindex())
