"""Applications of third parties: which addresses and scopes they may use (contract section 6.1). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from brickless.hub.domain import scopes
from brickless.hub.domain.errors import Malformed
from brickless.hub.domain.jsontext import Value, text_field

TYPES = frozenset({"public", "confidential", "pkce"})
BASE_SERVICE = scopes.PREFIX.rstrip("/")
_BASE_IDS = frozenset(word for word, _ in scopes.BASE)
MAX_LOGO_BYTES = 15 * 1024
_MAX_LIST = 50
_MAX_URI_CHARS = 2000
_SCOPE_ID = re.compile(r"[a-zA-Z0-9._-]{1,64}\Z")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
#: Schemes that a browser would carry out instead of going there.
_NEVER = frozenset({"javascript", "data", "vbscript", "file", "about", "blob"})


class Scope(NamedTuple):
    """What an application may be granted, or offers to others. `service` is the PRN of who understands it."""

    id: str
    service: str
    description: str = ""
    required: bool = False

    @property
    def full(self) -> str:
        """The scope as tokens hold it."""
        return f"{self.service}/{self.id}"


@dataclass(frozen=True, slots=True)
class App:
    """A registered application. Only confidential ones have a secret; only a hash of it is stored."""

    id: str
    prn: str
    nick: str
    owner: str
    name: str
    logo: str
    type: str
    secret_hash: str
    redirect_uris: tuple[str, ...]
    scopes: tuple[Scope, ...]
    exposed_scopes: tuple[Scope, ...]
    created_ms: int
    modified_ms: int
    deleted_ms: int = 0


class AppRequest(NamedTuple):
    """A body of POST or PUT /apps."""

    type: str
    nick: str
    name: str
    logo: str
    redirect_uris: tuple[str, ...]
    scopes: tuple[Scope, ...]
    exposed_scopes: tuple[Scope, ...]


def slug(nick: str) -> str:
    """The part of a PRN that a nick becomes."""
    return re.sub(r"[^a-z0-9]+", "-", nick.lower()).strip("-")


def _list(body: dict[str, Value], name: str) -> list[Value]:
    found = body.get(name)
    if found is None:
        return []
    if not isinstance(found, list) or len(found) > _MAX_LIST:
        raise Malformed(f"{name!r} must be a list of at most {_MAX_LIST}")
    return found


def _scope(item: Value) -> Scope:
    if not isinstance(item, dict):
        raise Malformed("A scope is an object with id and service")
    found = text_field(item, "id", max_chars=64)
    if not _SCOPE_ID.match(found):
        raise Malformed("A scope's id has letters, digits, '.', '_' and '-'")
    return Scope(
        found,
        text_field(item, "service", max_chars=200),
        text_field(item, "description", max_chars=400),
        item.get("required") is True,
    )


def _redirect_uri(item: Value) -> str:
    if not isinstance(item, str) or not 0 < len(item) <= _MAX_URI_CHARS or not item.isprintable() or " " in item:
        raise Malformed("A redirect URI is a text without spaces")
    try:
        parts = urlsplit(item)
        host = parts.hostname
    except ValueError as error:
        raise Malformed(f"{item[:100]!r} is no URI") from error
    if not parts.scheme or parts.scheme.lower() in _NEVER or parts.fragment or "#" in item:
        raise Malformed(f"{item[:100]!r} cannot be redirected to: a scheme is needed, a fragment is not allowed")
    if parts.scheme in {"http", "https"} and (not host or parts.username is not None):
        raise Malformed(f"{item[:100]!r} needs a host, and no user name")
    return item


def parse_request(body: dict[str, Value]) -> AppRequest:
    """Check a registration. Raises Malformed for a type, list, address or logo that cannot be."""
    kind = text_field(body, "type", max_chars=16)
    if kind not in TYPES:
        raise Malformed(f"An application's type is one of {', '.join(sorted(TYPES))}")
    logo = text_field(body, "logo", max_chars=MAX_LOGO_BYTES)
    if len(logo.encode(errors="replace")) >= MAX_LOGO_BYTES:
        raise Malformed(f"A logo has less than {MAX_LOGO_BYTES} bytes")
    made = AppRequest(
        kind,
        text_field(body, "nick", max_chars=64),
        text_field(body, "name", max_chars=200),
        logo,
        tuple(map(_redirect_uri, _list(body, "redirect_uris"))),
        tuple(map(_scope, _list(body, "scopes"))),
        tuple(map(_scope, _list(body, "exposed_scopes"))),
    )
    if not made.scopes:
        raise Malformed("An application needs at least one scope")
    if not made.redirect_uris:
        raise Malformed("An application needs at least one redirect URI")
    return made


def usable(wanted: tuple[Scope, ...], own_prn: str, exposed: frozenset[str]) -> tuple[Scope, ...]:
    """The scopes as they are stored: base ones, ones that another application exposes, and the application's own.

    Raises Malformed when none is left.
    """
    kept = []
    for scope in wanted:
        if scope.service in {"", BASE_SERVICE} and scope.id in _BASE_IDS:
            kept.append(scope._replace(service=BASE_SERVICE))
        elif scope.service != BASE_SERVICE:
            kept.append(scope if scope.full in exposed else scope._replace(service=own_prn))
    if not kept:
        raise Malformed("None of the scopes exists")
    return tuple(kept)


def is_loopback(uri: str) -> bool:
    """Whether the address is on the machine of who calls, such as that of a command-line client."""
    parts = urlsplit(uri)
    return parts.scheme in {"http", "https"} and parts.hostname in _LOOPBACK


def _without_port(uri: str) -> tuple[str, str | None, str, str]:
    parts = urlsplit(uri)
    return parts.scheme, parts.hostname, parts.path, parts.query


def redirect_uri(app: App, asked: str) -> str:
    """Where to send the answer. Raises Malformed for an address that is not registered.

    Registered means letter for letter; on loopback the port is free, because a client takes whichever it gets (RFC
    8252, 7.3). Nothing asked means the only registered one.
    """
    if not asked:
        if len(app.redirect_uris) != 1:
            raise Malformed("A redirect_uri is needed: the application has several")
        return app.redirect_uris[0]
    if asked in app.redirect_uris:
        return asked
    checked = _redirect_uri(asked)
    if is_loopback(checked):
        for known in app.redirect_uris:
            if is_loopback(known) and _without_port(known) == _without_port(checked):
                return checked
    raise Malformed("The redirect_uri is not one of the application's")


def granted(app: App, asked: str) -> tuple[str, ...]:
    """The scopes of a request; none asked means the required ones. Raises Malformed for one that the app has not."""
    words = tuple(dict.fromkeys(asked.replace(",", " ").split()))
    known = {scope.full for scope in app.scopes}
    if not words:
        words = tuple(scope.full for scope in app.scopes if scope.required)
    if not words or not known.issuperset(words):
        raise Malformed("The application has not all of these scopes")
    return words
