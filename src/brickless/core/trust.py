"""What the signatures of a state amount to: each verified by the trust of a device, then what they cover together.

Contract: device.md 1.16. A member counts as covered only by a signature that has been verified over that very member;
what a header merely names, or leaves out by an exclude, is not (`unprotected`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from brickless.core import certificate, publickey
from brickless.core.canonical import JsonValue
from brickless.core.errors import HostileInputError
from brickless.core.publickey import PublicKey
from brickless.core.signature import (
    Coverage,
    Dialect,
    Signature,
    coverage,
    find_signatures,
    members,
    payload,
    payload_of_text,
    select,
    signing_input,
)
from brickless.core.state import State

MAX_SIGNATURES = 64
FOLDER = "_sigs/"
# Authors' notes, which no part of the runtime reads.
NOTES = frozenset({"src.json", "build.json"})
# The bootloader verifies the FIT before it starts it; a signature may leave it out (device.md 1.16).
BY_BOOTLOADER = frozenset({"bsp/pantavisor.fit"})


class Trust(NamedTuple):
    """Whom a device believes: contents of PEM files, b"" where there is none. `at_s`: the time, None to skip dates.

    `key` stands for signatures without certificates, `store` for those with them, `oem_store` for those of the OEM
    `oem_name`, which may cover nothing of the BSP and nothing of the OEM's own configuration.
    """

    key: bytes = b""
    store: bytes = b""
    oem_name: str = ""
    oem_store: bytes = b""
    at_s: float | None = None


def verified(state: State, trust: Trust) -> Coverage:
    """Verify every signature of a state; returns what they cover. Raises `HostileInputError` for the first bad one."""
    entries = members(state)
    found = find_signatures(state.entries)
    if len(found) > MAX_SIGNATURES:
        raise HostileInputError(f"the state has {len(found)} signatures, more than {MAX_SIGNATURES}")
    by_dialect: dict[Dialect, list[Signature]] = {Dialect.CLIENT: [], Dialect.DEVICE: []}
    for signature in found:
        by_dialect[_verify(signature, entries, state.raw, trust)].append(signature)
    return _together([coverage(entries, signatures, dialect) for dialect, signatures in by_dialect.items()], entries)


def unprotected(found: Coverage) -> tuple[str, ...]:
    """The members that may be changed without a signature breaking and that a device acts upon."""
    return tuple(path for path in found.unprotected if path not in BY_BOOTLOADER and not _is_note(path))


def _is_note(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return name in NOTES and "/" not in folder and not folder.startswith("_")


def _verify(signature: Signature, entries: Mapping[str, JsonValue], raw: bytes, trust: Trust) -> Dialect:
    """Verify one; returns in which dialect its patterns were meant. Raises `HostileInputError`."""
    try:
        if signature.x5c is None:
            keys = _bare_keys(trust)
        else:
            chain = [certificate.read(data) for data in signature.x5c]
            if _is_oem(chain, signature, entries, trust):
                keys = (certificate.leaf_key(chain, _there(trust.oem_store, "the OEM's trust store"), trust.at_s),)
            else:
                keys = (certificate.leaf_key(chain, _there(trust.store, "the trust store"), trust.at_s),)
        for dialect, data in _payloads(signature, entries, raw):
            signed = signing_input(signature, data)
            if any(publickey.verify_jws(key, signature.alg, signature.signature, signed) for key in keys):
                return dialect
    except HostileInputError as error:
        raise HostileInputError(f"{signature.path}: {error}") from error
    raise HostileInputError(f"{signature.path}: what it covers was changed, or another key made it")


def _bare_keys(trust: Trust) -> tuple[PublicKey, ...]:
    keys = certificate.public_keys(_there(trust.key, "the public key"))
    if not keys:
        raise HostileInputError("the file of the public key holds none")
    return keys


def _there(pem: bytes, what: str) -> bytes:
    if not pem:
        raise HostileInputError(f"{what} is missing on this device")
    return pem


def _is_oem(
    chain: Sequence[certificate.Certificate], signature: Signature, entries: Mapping[str, JsonValue], trust: Trust
) -> bool:
    """Whether a signature falls to the OEM's own trust store."""
    if not chain or not trust.oem_name or chain[0].common_names != (trust.oem_name,):
        return False
    covered = {path for dialect in Dialect for path in select(entries, signature.rule, dialect)[0]}
    return not any(path.startswith(("bsp/", f"{trust.oem_name}/")) for path in covered)


def _payloads(signature: Signature, entries: Mapping[str, JsonValue], raw: bytes) -> Iterator[tuple[Dialect, bytes]]:
    """The bytes that may have been signed: each says wholly which members it speaks of, and all that they say.

    Clients read patterns otherwise than devices of the field, and sign canonical text (device.md 1.16).
    """
    seen: set[bytes] = set()
    for dialect in Dialect:
        covered, _ = select(entries, signature.rule, dialect)
        for data in (payload(entries, covered), payload_of_text(raw, covered)):
            if data not in seen:
                seen.add(data)
                yield dialect, data


def _together(parts: Sequence[Coverage], entries: Mapping[str, JsonValue]) -> Coverage:
    by: dict[str, tuple[str, ...]] = {}
    excluded_by: dict[str, tuple[str, ...]] = {}
    for part in parts:
        for table, more in ((by, part.by), (excluded_by, part.excluded_by)):
            for path, names in more.items():
                table[path] = (*table.get(path, ()), *names)
    return Coverage(
        tuple(sorted(by)),
        tuple(sorted(excluded_by.keys() - by.keys())),
        tuple(sorted(entries.keys() - by.keys() - excluded_by.keys())),
        by,
        excluded_by,
    )
