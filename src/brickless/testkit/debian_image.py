"""Real images of real programs, made from Debian packages without root, the same bytes every time.

`nginx_image` serves one versioned page on port 80 of whatever network it is given; its broken variant ends at once.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brickless.image import debian
from brickless.oci import tar
from brickless.oci.flatten import Flattener
from brickless.oci.layout import LayoutWriter
from brickless.oci.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Platform

GZIP, ZSTD, PLAIN = "gzip", "zstd", ""
BASE_PACKAGES = ("libc6", "libgcc-s1", "zlib1g")
NGINX_PACKAGES = ("libcrypt1", "libpcre2-8-0", "libssl3", "nginx", "nginx-common")
# What a server in a container never reads.
DROPPED = (
    "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/info", "usr/share/vim",
    "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/aarch64-linux-gnu/gconv", "etc/init.d", "etc/logrotate.d",
    "etc/default", "usr/lib/systemd", "usr/lib/locale", "var/log/nginx", "etc/nginx", "var/www",
)  # fmt: skip
MERGED_USR = ("bin", "lib", "lib64", "sbin")
NGINX_CONF = """user root root;
worker_processes 1;
error_log stderr notice;
pid /tmp/nginx.pid;
events { worker_connections 64; }
http {
  types { text/html html; }
  access_log off;
  client_body_temp_path /tmp/client;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  server { listen 80; root /srv/www; }
}
"""
USERS = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n"
GROUPS = "root:x:0:\nwww-data:x:33:\n"


@dataclass(frozen=True, slots=True)
class DebLayer:
    """A package's files as a layer."""

    deb: Path
    diff_id: str | None = None

    def chunks(self) -> Iterator[bytes]:
        """The package's tar stream. Raises `ProcessError` for a damaged package."""
        with debian.members(self.deb) as stream:
            while chunk := stream.read(1 << 20):
                yield chunk


@dataclass(frozen=True, slots=True)
class BytesLayer:
    """A tar archive in memory as a layer."""

    data: bytes
    diff_id: str | None = None

    def chunks(self) -> Iterator[bytes]:
        """The archive."""
        yield self.data


def archive(files: Mapping[str, str | bytes | tar.Entry]) -> bytes:
    """A small tar archive: a text is a file (0644), None-like entries are given whole; names end in / for folders."""
    blocks = []
    for name, value in files.items():
        if isinstance(value, tar.Entry):
            value.name = name.encode()
            blocks.append(tar.header(value))
        elif name.endswith("/"):
            blocks.append(tar.header(tar.Entry(name.encode(), tar.FOLDER, mode=int(value or "755", 8))))
        else:
            data = value.encode() if isinstance(value, str) else value
            blocks += [tar.header(tar.Entry(name.encode(), size=len(data))), data, tar.padding(len(data))]
    return b"".join(blocks) + tar.END


def symlink(target: str) -> tar.Entry:
    """An entry for `archive`."""
    return tar.Entry(b"", tar.SYMLINK, mode=0o777, link=target.encode())


def debian_layer(packages: Sequence[str], cache: Path, arch: str = "amd64") -> bytes:
    """The files of some packages (without what they depend on) as one layer with a merged /usr."""
    links = archive({f"usr/{name}/": "755" for name in MERGED_USR} | {n: symlink(f"usr/{n}") for n in MERGED_USR})
    with Flattener(keep_folder_links=True) as flattener:
        flattener.add(BytesLayer(links))
        for deb in debian.fetch(packages, cache, arch, closure=False):
            flattener.add(DebLayer(deb))
        flattener.exclude(DROPPED)
        return b"".join(flattener.tar_chunks())


def compress(data: bytes, how: str) -> tuple[bytes, str]:
    """A layer as it is stored, and its media type. No time, no name in it: the same bytes every time."""
    if how == GZIP:
        coder = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        return coder.compress(data) + coder.flush(), f"{OCI_LAYER}+gzip"
    if how == ZSTD:
        import zstandard

        return zstandard.ZstdCompressor(level=6).compress(data), f"{OCI_LAYER}+zstd"
    return data, OCI_LAYER


def write_image(
    layout: LayoutWriter,
    layers: Iterable[tuple[bytes, str]],
    config: Mapping[str, Any],
    *,
    platform: Platform | None = None,
) -> Descriptor:
    """Store an image of layers (uncompressed archive, compression) with this `config` member; its manifest."""
    import hashlib

    where = platform or Platform("linux", "amd64")
    descriptors, diff_ids = [], []
    for data, how in layers:
        diff_ids.append(f"sha256:{hashlib.sha256(data).hexdigest()}")
        descriptors.append(layout.add(*compress(data, how)))
    document = {
        "created": "1970-01-01T00:00:00Z",
        "architecture": where.architecture,
        "os": where.os,
        **({"variant": where.variant} if where.variant else {}),
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    stored = layout.add(_json(document), OCI_CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _descriptor(stored),
        "layers": [_descriptor(descriptor) for descriptor in descriptors],
    }
    written = layout.add(_json(manifest), OCI_MANIFEST)
    return Descriptor(OCI_MANIFEST, written.digest, written.size, where)


def nginx_image(dest: Path, page: str, cache: Path, *, arch: str = "amd64", broken: bool = False) -> Path:
    """Write an OCI layout of nginx that serves `page` at /; with `broken`, the process ends at once. Returns `dest`.

    Three layers (gzip, zstd, gzip), of which versions share the first two. `cache` is for packages (`image.debian`).
    """
    site = archive(
        {
            "./": "755",
            "etc/nginx/": "755",
            "etc/nginx/nginx.conf": NGINX_CONF,
            "etc/passwd": USERS,
            "etc/group": GROUPS,
            "srv/www/": "755",
            "srv/www/index.html": page,
            "root/": "700",
            "tmp/": "1777",
            "var/log/nginx/": "755",
            "var/lib/nginx/": "755",
            "run/": "755",
        }
    )
    directive = "daemon off;" + (" brickless_broken_on_purpose;" if broken else "")
    config = {
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Entrypoint": ["/usr/sbin/nginx"],
        "Cmd": ["-g", directive],
        "ExposedPorts": {"80/tcp": {}},
        "WorkingDir": "/",
        "StopSignal": "SIGQUIT",
        "Labels": {"org.opencontainers.image.title": "a versioned page"},
    }
    layers = [
        (debian_layer(BASE_PACKAGES, cache, arch), GZIP),
        (debian_layer(NGINX_PACKAGES, cache, arch), ZSTD),
        (site, GZIP),
    ]
    layout = LayoutWriter(dest)
    layout.finish([(write_image(layout, layers, config, platform=Platform("linux", arch)), "latest")])
    return dest


def _descriptor(descriptor: Descriptor) -> dict[str, Any]:
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def debian_layers(names: Sequence[str], cache: Path, *, closure: bool = True) -> list[tuple[bytes, str]]:
    """A Debian system of some packages, a third of them in each layer, each with its compression."""
    debs = debian.fetch(names, cache, closure=closure)
    layers: list[tuple[bytes, str]] = []
    for part in range(3):
        with Flattener(keep_folder_links=True) as flattener:
            for deb in debs[part::3]:
                flattener.add(DebLayer(deb))
            layers.append((b"".join(flattener.tar_chunks()), (GZIP, PLAIN, GZIP)[part]))
    return layers
