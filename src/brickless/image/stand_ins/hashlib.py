"""What a device gets as `hashlib`: the hashes that formats and protocols of ours name, by OpenSSL.

The standard library's tries a dozen algorithms when it is loaded. Same names, same objects.
"""

from __future__ import annotations

from _hashlib import new, openssl_md5, openssl_sha1, openssl_sha224, openssl_sha256, openssl_sha384, openssl_sha512

md5, sha1, sha224, sha256 = openssl_md5, openssl_sha1, openssl_sha224, openssl_sha256
sha384, sha512 = openssl_sha384, openssl_sha512
algorithms_guaranteed = frozenset({"md5", "sha1", "sha224", "sha256", "sha384", "sha512"})
algorithms_available = algorithms_guaranteed

__all__ = [
    "algorithms_available",
    "algorithms_guaranteed",
    "md5",
    "new",
    "sha1",
    "sha224",
    "sha256",
    "sha384",
    "sha512",
]
