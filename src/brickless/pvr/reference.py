"""What a repository argument means (pvr.md 3.1): a URL, an address, a local folder or archive, `user/device`."""

from __future__ import annotations

import ipaddress
import os
from typing import NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from brickless.core.errors import UserError
from brickless.core.fragment import Fragment

DEVICE_PORT = 12368
_DEVICE_PATH = "/cgi-bin/pvr"


class Reference(NamedTuple):
    """A resolved argument: `location` is a URL without fragment, or a path; `text` is the whole, fixed up."""

    remote: bool
    location: str
    fragment: Fragment
    text: str
    #: Where the newest revision is, when `location` is an older one by its number (`user/device/REV`).
    trail: str = ""

    @property
    def name(self) -> str:
        """What a clone of it is called: the last part of the path, or the device's address."""
        if not self.remote:
            base = os.path.basename(os.path.abspath(self.location))
            if base == ".pvr":
                return os.path.basename(os.path.dirname(os.path.abspath(self.location)))
            for suffix in (".pvrexport", ".tgz", ".tar.gz", ".tar.bz2", ".tar"):
                base = base.removesuffix(suffix)
            return base.removesuffix(".pvrexport")
        parts = urlsplit(self.trail or self.location)
        if parts.path.rstrip("/") in {"", _DEVICE_PATH}:
            return parts.hostname or "device"
        return parts.path.rstrip("/").rpartition("/")[2]


def resolve(text: str, *, repo_base: str) -> Reference:
    """Read a reference. Raises UserError when it is none."""
    location, hash_mark, raw_fragment = text.partition("#")
    fragment = Fragment.parse(unquote(raw_fragment))
    suffix = hash_mark + raw_fragment
    device = _device_url(location)
    if device:
        return Reference(True, device, fragment, device + suffix)
    if "://" in location:
        url = _url(text, location)
        return Reference(True, url, fragment, url + suffix)
    if location and "\0" not in location and os.path.exists(location):
        return Reference(False, location, fragment, os.path.abspath(location) + suffix)
    return _shorthand(text, location, fragment, suffix, repo_base)


def _url(text: str, location: str) -> str:
    try:
        parts = urlsplit(location)
        if parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0:
            return _fix_device_path(location)
        reason = "only http:// and https:// URLs with a host can be read"
    except ValueError as error:
        reason = str(error)
    raise UserError(
        "reference-scheme",
        f"{text!r} is no repository: {reason}.",
        hint="Give a URL, a path, an IP address, user/device or user/device/REV.",
    )


def _shorthand(text: str, location: str, fragment: Fragment, suffix: str, repo_base: str) -> Reference:
    segments = location.strip("/").split("/")
    if not location or location.startswith(("/", ".")):
        raise UserError(
            "reference-missing",
            f"{text!r} does not exist, and is neither a URL nor user/device.",
            hint="Give a URL, a path, an IP address, user/device or user/device/REV.",
        )
    if len(segments) == 1:
        raise UserError(
            "reference-no-device",
            f"The device nick is missing in {text!r}.",
            hint=f"Write user/device, as in me/{segments[0]}. Nothing on this disk has that name either.",
        )
    rev = segments.pop() if len(segments) == 3 and segments[2].isascii() and segments[2].isdigit() else ""
    if len(segments) > 2 or not all(segments):
        raise UserError(
            "reference-too-long",
            f"{text!r} is neither a path that exists nor of the form user/device.",
            hint="Give a URL, a path, an IP address, user/device or user/device/REV.",
        )
    trail = f"{repo_base}/{segments[0]}/{segments[1]}"
    url = f"{trail}/{rev}" if rev else trail
    return Reference(True, url, fragment, url + suffix, trail if rev else "")


def _device_url(location: str) -> str:
    """The URL of a device that was given by its bare address; empty for anything else."""
    try:
        address = ipaddress.ip_address(location.removeprefix("[").removesuffix("]"))
    except ValueError:
        return ""
    host = f"[{address}]" if address.version == 6 else str(address)
    return f"http://{host}:{DEVICE_PORT}{_DEVICE_PATH}"


def _fix_device_path(url: str) -> str:
    """A device's endpoint may be given without its path (newer clients accept that)."""
    parts = urlsplit(url)
    if parts.port == DEVICE_PORT and parts.path.rstrip("/") in {"", "/cgi-bin"}:
        return urlunsplit(parts._replace(path=_DEVICE_PATH))
    return url.rstrip("/") if not parts.query else url
