"""Signing in at an OpenID provider: authorization code with PKCE (OpenID Connect Core 1.0, RFC 7636). Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from brickless.hub.domain.errors import Forbidden, Malformed

#: Signatures with a key pair only: with a shared secret, whoever verifies could also sign.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
SCOPES = "openid email profile"
#: How far the provider's clock may be off, in seconds.
LEEWAY_S = 60
_MAX_SUBJECT_CHARS = 255
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Provider:
    """The provider that the operator chose. `name` is what the button says; `sign_up`: strangers get an account."""

    issuer: str
    client_id: str
    client_secret: str
    name: str
    sign_up: bool


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What the provider's discovery document says."""

    authorize: str
    token: str
    keys: str


@dataclass(frozen=True, slots=True)
class Person:
    """Who the provider says that somebody is; `email` is empty unless the provider verified it."""

    subject: str
    email: str
    name: str


def check_address(address: str) -> None:
    """Raise Malformed for an address where passwords or codes could be read on their way."""
    parts = urlsplit(address)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise Malformed(f"{address[:100]!r} is no https address")


def endpoints(document: dict[str, object], issuer: str) -> Endpoints:
    """The endpoints of a discovery document. Raises Malformed when it is another issuer's, or names no safe address."""
    if document.get("issuer") != issuer:
        raise Malformed(f"The document says that its issuer is {document.get('issuer')!r}, not {issuer!r}")
    found = [str(document.get(name)) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
    for address in found:
        check_address(address)
    return Endpoints(*found)


def challenge(verifier: str) -> str:
    """The S256 challenge of a PKCE verifier."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def authorize_url(where: Endpoints, provider: Provider, *, callback: str, state: str, nonce: str, verifier: str) -> str:
    """Where the browser goes."""
    query = urlencode(
        {
            "response_type": "code",
            "client_id": provider.client_id,
            "redirect_uri": callback,
            "scope": SCOPES,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge(verifier),
            "code_challenge_method": "S256",
        }
    )
    return f"{where.authorize}{'&' if '?' in where.authorize else '?'}{query}"


def person(claims: dict[str, object], provider: Provider, *, nonce: str) -> Person:
    """Who the claims of a verified ID token name. Raises Forbidden when it was made for another sign-in or client."""
    if not hmac.compare_digest(str(claims.get("nonce", "")), nonce):
        raise Forbidden("The provider answered another sign-in")
    audience = claims.get("aud")
    if isinstance(audience, list) and len(audience) > 1 and claims.get("azp") != provider.client_id:
        raise Forbidden("The provider's token is for another client")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT_CHARS:
        raise Forbidden("The provider's token names nobody")
    email = claims.get("email")
    verified = claims.get("email_verified") is True
    name = claims.get("preferred_username") or claims.get("nickname") or claims.get("name") or ""
    return Person(subject, email if isinstance(email, str) and verified else "", str(name))


def nick_of(found: Person) -> str:
    """A nick for a new account: what the provider calls the person, in the letters that nicks have."""
    text = found.name or found.email.partition("@")[0] or "user"
    nick = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-")[:16]
    return nick if len(nick) >= 3 else f"user-{nick}".rstrip("-")
