"""The system bus that the runtime hosts: `dbus-daemon` with a policy made from the manifests (device.md 5.11).

Nothing is allowed that no manifest says: a role owns the names that its container exports, and calls those whose
exports allow it. A role is a user of this device alone; its number stays the same for ever (`dbus-role-uids.json`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from brickless.core.services import BUS_SOCKET, BusPolicy
from brickless.store import atomic

FIRST_UID = 90000
PREFIX = "pv-dbus-"
UIDS = "config/dbus-role-uids.json"
UIDS_MAX_BYTES = 1 << 20
POLICY = "policy.d/pv-generated.conf"
PASSWD = "/etc/passwd"  # noqa: S105 - a file, no secret
DAEMON = "dbus-daemon"


class Places(NamedTuple):
    """Where the bus lies: its folder, its socket, the storage partition, the file of users."""

    folder: str = os.path.dirname(BUS_SOCKET)
    storage: str = "/storage"
    passwd: str = PASSWD


def assign_uids(roles: Iterable[str], storage: str) -> dict[str, int]:
    """A user number for each role; new ones are written down before they are used."""
    path = os.path.join(storage, UIDS)
    known = _read_uids(path)
    before = dict(known)
    for role in sorted(set(roles)):
        if role not in known:
            known[role] = max([FIRST_UID - 1, *known.values()]) + 1
    if known != before:
        atomic.make_dirs(os.path.dirname(path))
        atomic.write_file(path, json.dumps(known, sort_keys=True).encode())
    return known


def _read_uids(path: str) -> dict[str, int]:
    """The numbers so far; a damaged file counts as none: they are given anew, in the same order."""
    try:
        with open(path, "rb") as stream:
            value = json.loads(stream.read(UIDS_MAX_BYTES))
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(value, dict):
        return {}
    return {str(role): uid for role, uid in value.items() if isinstance(uid, int) and FIRST_UID <= uid < 1 << 31}


def config(places: Places) -> str:
    """The daemon's own configuration: deny, but for what every member of a bus needs."""
    return f"""<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={_escape(os.path.join(places.folder, os.path.basename(BUS_SOCKET)))}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Introspectable"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Properties"/>
    <deny send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"
          send_member="UpdateActivationEnvironment"/>
    <deny send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Monitoring"/>
  </policy>
  <include ignore_missing="no">{_escape(os.path.join(places.folder, POLICY))}</include>
</busconfig>
"""


def policy(policies: Iterable[BusPolicy]) -> str:
    """The generated part: one block a role."""
    blocks = []
    for one in policies:
        lines = [f'    <allow own="{_escape(name)}"/>' for name in one.owns]
        lines += [f'    <allow send_destination="{_escape(name)}"/>' for name in (*one.owns, *one.calls)]
        if lines:
            body = "\n".join(lines)
            blocks.append(f'  <policy user="{_escape(PREFIX + one.role)}">\n{body}\n  </policy>\n')
    return f"<busconfig>\n{''.join(blocks)}</busconfig>\n"


def _escape(text: str) -> str:
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(char, entity)
    return text


def write(policies: Iterable[BusPolicy], uids: Mapping[str, int], places: Places) -> str:
    """Write configuration, policy and users; returns the path of the configuration. Raises `OSError`."""
    os.makedirs(os.path.join(places.folder, os.path.dirname(POLICY)), mode=0o755, exist_ok=True)
    atomic.write_file(os.path.join(places.folder, POLICY), policy(policies).encode(), durable=False)
    path = os.path.join(places.folder, "system.conf")
    atomic.write_file(path, config(places).encode(), durable=False)
    _write_users(uids, places.passwd)
    return path


def _write_users(uids: Mapping[str, int], passwd: str) -> None:
    """The daemon knows users by name: each role has one, without a shell and without a password."""
    try:
        with open(passwd, encoding="utf-8") as stream:
            lines = [line for line in stream.read().splitlines() if not line.startswith(PREFIX)]
    except FileNotFoundError:
        lines = ["root:x:0:0:root:/root:/bin/false"]
    lines += [f"{PREFIX}{_user(role)}:x:{uid}:{uid}::/:/bin/false" for role, uid in sorted(uids.items())]
    atomic.write_file(passwd, "".join(f"{line}\n" for line in lines).encode(), durable=False)


def _user(role: str) -> str:
    return role.replace(":", "_").replace("\n", "_")
