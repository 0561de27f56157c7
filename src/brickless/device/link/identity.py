"""Who this device is at its hub, on disk and in the hint files that people and containers read.

Credentials lie in `<S>/config`, in the `KEY=value` format of the reference: `unclaimed.config` until the device has an
owner, then `pantahub.config`. They are replaced as a whole and never leave the device (contracts/device.md 7.3).
"""

from __future__ import annotations

import os

from brickless.device import config as configuration
from brickless.device.config import Config
from brickless.device.link.http import Address
from brickless.device.link.hub import Credentials
from brickless.device.link.wire import Registration
from brickless.store import atomic

UNCLAIMED, CLAIMED = "unclaimed.config", "pantahub.config"
_KEYS = ("PH_CREDS_ID", "PH_CREDS_PRN", "PH_CREDS_SECRET")
_HINT_MODE = 0o644
_SECRET_MODE = 0o600


class Identity:
    """The credentials of this device and where they are kept."""

    __slots__ = ("_config", "_folder", "_run", "claimed")

    def __init__(self, config: Config, storage: str, run: str) -> None:
        self._config = config
        self._folder = os.path.join(storage, "config")
        self._run = run
        #: Whether the device had an owner when its credentials were last written.
        self.claimed = bool(config.text("PH_CREDS_PRN"))
        if not self.claimed:
            config.put_all(configuration.PH_CLIENT, configuration.lines(self._read(UNCLAIMED)))

    def _read(self, name: str) -> str:
        try:
            with open(os.path.join(self._folder, name), "rb") as file:
                return file.read(configuration.MAX_FILE_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def credentials(self) -> Credentials | None:
        """What to log in with; None: the device is not registered."""
        identity, prn, secret = (self._config.text(key) for key in _KEYS)
        if not prn or not secret:
            return None
        return Credentials(identity or prn.rpartition("/")[2], prn, secret)

    def save(self, registration: Registration) -> Credentials:
        """Keeps a new registration, as unclaimed; it survives a power cut, or the hub would have an orphan."""
        found = Credentials(registration.id, registration.prn, registration.secret)
        self._write(UNCLAIMED, found)
        self._config.put_all(configuration.PH_CLIENT, zip(_KEYS, found, strict=True))
        self.claimed = False
        return found

    def claim(self) -> None:
        """The device has an owner now: its credentials move to their place, the challenge is over."""
        found = self.credentials()
        if found is not None and not self.claimed:
            self._write(CLAIMED, found)
            atomic.discard(os.path.join(self._folder, UNCLAIMED))
            self.claimed = True
        self.hint("challenge", "")

    def _write(self, name: str, credentials: Credentials) -> None:
        kept = [
            line
            for line in self._read(name).splitlines()
            if line.partition("=")[0].strip() not in {*_KEYS, "creds.id", "creds.prn", "creds.secret"}
        ]
        lines = [*kept, *(f"{key}={value}" for key, value in zip(_KEYS, credentials, strict=True))]
        atomic.make_dirs(self._folder)
        atomic.write_file(os.path.join(self._folder, name), ("\n".join(lines) + "\n").encode(), mode=_SECRET_MODE)

    def hint(self, name: str, text: str) -> None:
        """Writes a hint file of the run directory (`device-id`, `challenge`, `pantahub-host`) when it changed."""
        path = os.path.join(self._run, name)
        try:
            with open(path, encoding="utf-8") as file:
                if file.read() == text:
                    return
        except FileNotFoundError:
            pass
        os.makedirs(self._run, exist_ok=True)
        atomic.write_file(path, text.encode(), mode=_HINT_MODE)

    def publish(self, address: Address, challenge: str) -> None:
        """Writes all hint files."""
        found = self.credentials()
        self.hint("device-id", found.id if found else "")
        self.hint("challenge", challenge)
        host = f"[{address.host}]" if ":" in address.host else address.host
        self.hint("pantahub-host", f"{address.scheme}://{host}:{address.port}")


def forget(folder: str) -> bool:
    """Take the credentials off the disk: the device registers as a new one. False when it had none.

    `folder` is `<S>/config`. What else stands in the files (where the hub is) stays.
    """
    known = {*_KEYS, "creds.id", "creds.prn", "creds.secret"}
    found = False
    for name in (CLAIMED, UNCLAIMED):
        path = os.path.join(folder, name)
        try:
            with open(path, "rb") as file:
                lines = file.read(configuration.MAX_FILE_BYTES).decode("utf-8", "replace").splitlines()
        except FileNotFoundError:
            continue
        kept = [line for line in lines if line.partition("=")[0].strip() not in known]
        had = any(line.partition("=")[2].strip() for line in lines if line not in kept)
        found = found or had
        if had:
            atomic.write_file(path, "".join(f"{line}\n" for line in kept).encode(), mode=_SECRET_MODE)
    return found
