"""`pvr sig download`: fetch the default developer keys."""

from __future__ import annotations

import io
import os
import tarfile

from brickless.core.errors import HostileInputError
from brickless.pvr import cli
from brickless.pvr.cli import option
from brickless.pvr.env import Env
from brickless.store import atomic

_MAX_MEMBERS = 20
_MAX_FILE_BYTES = 1 << 20


@cli.command("download", example="pvr sig download", failure=127)
@option("--url", envvar="PVR_SIG_CERTS_URL", default="", help="Where the archive is (default: --certs-url).")
def command(env: Env, url: str) -> None:
    """Fetch the developer keys into the configuration folder. They are public: for trying out, never for a product."""
    from brickless.pvr.http import Client

    source = url or env.parent["certs_url"]
    with Client(env) as client:
        data = client.call("GET", source, anonymous=True).expect(200, what="Fetching the developer keys").body
    files = _unpack(data, source)
    atomic.make_dirs(os.path.join(env.config_dir, "pvs"), mode=0o700)
    for name, content in files.items():
        mode = 0o600 if name.startswith("key") else 0o644
        atomic.write_file(os.path.join(env.config_dir, "pvs", name), content, mode=mode)
    env.warn("these keys are public: whoever wants can sign with them.")
    env.result({"files": sorted(files)}, (os.path.join(env.config_dir, "pvs", name) for name in sorted(files)))


def _unpack(data: bytes, source: str) -> dict[str, bytes]:
    """The files `pvs/*.pem` of the archive; nothing else of it is used, no path of it reaches the disk."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:*") as archive:
            for info in archive:
                folder, _, name = info.name.removeprefix("./").rpartition("/")
                if not info.isreg() or folder != "pvs" or not name.endswith(".pem") or name.startswith("."):
                    continue
                if info.size > _MAX_FILE_BYTES or len(found) >= _MAX_MEMBERS:
                    raise HostileInputError(f"{source} holds more than keys and certificates need.")
                content = archive.extractfile(info)
                found[name] = content.read() if content else b""
    except (tarfile.TarError, EOFError) as error:
        raise HostileInputError(f"{source} is no tar archive: {error}") from error
    if not found:
        raise HostileInputError(f"{source} holds no file pvs/*.pem.")
    return found
