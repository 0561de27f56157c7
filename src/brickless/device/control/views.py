"""What a container sees below /pantavisor when it may not manage the device: a folder of its own, bound as a whole.

    <R>/public.<C>/pv-ctrl                          a hard link to the control socket
    <R>/public.<C>/{logs,user-meta,device-meta}     empty: mount points for the container's own views

A folder, not single files: a socket that is made anew by a supervisor that was started again appears in it at once,
where a bound file would for ever be the old one.
"""

from __future__ import annotations

import os

from brickless.device.control.places import CONTROL

PUBLIC = "public."
FOLDERS = ("logs", "user-meta", "device-meta")


def prepare(run: str, container: str) -> str:
    """Make a container's folders; returns that which it sees. Raises OSError."""
    public = os.path.join(run, PUBLIC + container)
    for folder in FOLDERS:
        os.makedirs(os.path.join(public, folder), exist_ok=True)
    for meta in ("user-meta", "device-meta"):
        os.makedirs(os.path.join(run, f"{meta}.{container}"), exist_ok=True)
    _link(run, public)
    return public


def refresh(run: str) -> None:
    """Show the new control socket to the containers that run already."""
    for name in os.listdir(run):
        if name.startswith(PUBLIC):
            _link(run, os.path.join(run, name))


def _link(run: str, public: str) -> None:
    source, target = os.path.join(run, CONTROL), os.path.join(public, CONTROL)
    if os.path.lexists(target):
        if os.path.exists(source) and os.path.samefile(source, target):
            return
        os.unlink(target)
    if os.path.exists(source):
        os.link(source, target)
