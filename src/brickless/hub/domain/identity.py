"""From the claims of a verified token to who calls, and back (contract section 1.2). Pure."""

from __future__ import annotations

from sys import intern

from brickless.hub.domain import ownership, scopes
from brickless.hub.domain.errors import Forbidden
from brickless.hub.domain.values import Account, CallerType, Device, Identity


def account_claims(account: Account, login: str, scope_list: tuple[str, ...] = (scopes.ALL,)) -> dict[str, object]:
    """The claims of an account's token; lifetime is added by whoever signs."""
    return {
        "id": login,
        "nick": account.nick,
        "prn": account.prn,
        "type": account.type,
        "roles": account.role,
        "scopes": " ".join(scope_list),
    }


def member_claims(org: Account, member: str, login: str, scope_list: tuple[str, ...]) -> dict[str, object]:
    """The claims of a member who acts for an organisation. His role is not among them: each call looks it up."""
    return {
        "id": login,
        "nick": org.nick,
        "prn": org.prn,
        "type": CallerType.USER.value,
        "roles": "user",
        "scopes": " ".join(scope_list),
        "actor": member,
    }


def device_claims(device: Device, scope_list: tuple[str, ...] = (scopes.ALL,)) -> dict[str, object]:
    """The claims of a device's token; `owner` is empty until somebody claims it, and until it proved whose it is."""
    unverified = ownership.is_unverified(device.ovmode)
    if unverified:
        scope_list = ownership.UNVERIFIED_SCOPES
    return {
        "id": device.prn,
        "nick": device.nick,
        "prn": device.prn,
        "owner": "" if unverified else device.owner,
        "type": CallerType.DEVICE.value,
        "roles": "device",
        "scopes": " ".join(scope_list),
    }


def anonymous_claims(prn: str, scope_list: tuple[str, ...]) -> dict[str, object]:
    """The claims of a throw-away visitor."""
    return {
        "id": prn,
        "nick": "anon",
        "prn": prn,
        "type": CallerType.USER.value,
        "roles": "user",
        "scopes": " ".join(scope_list),
    }


def lifetime(claims: dict[str, object], *, now_s: int, life_s: int, issued_s: int | None = None) -> dict[str, object]:
    """The claims with `exp` and `orig_iat`."""
    return {**claims, "exp": now_s + life_s, "orig_iat": now_s if issued_s is None else issued_s}


def _text(claims: dict[str, object], name: str) -> str:
    value = claims.get(name)
    return value if isinstance(value, str) else ""


def _seconds(claims: dict[str, object], name: str) -> int:
    value = claims.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def effective(outer: dict[str, object]) -> dict[str, object]:
    """The claims that count: those of `call-as` when an administrator acts as somebody else."""
    inner = outer.get("call-as")
    if not isinstance(inner, dict):
        return outer
    return {**inner, "exp": outer.get("exp"), "orig_iat": outer.get("orig_iat")}


def from_claims(outer: dict[str, object]) -> Identity:
    """The effective caller. With `call-as` an administrator acts as somebody else, and keeps being named in `nick`.

    A hub remembers one of these for each device, so what is equal in all of them is one string in memory.
    Raises Forbidden when the token names neither a caller nor a type.
    """
    claims = effective(outer)
    nick = _text(claims, "nick")
    if claims is not outer:
        nick = f"{_text(outer, 'nick') or '_unknown_'}==>{nick or '_unknown_'}"
    if not _text(claims, "prn") or not _text(claims, "type"):
        raise Forbidden("You need to be logged in")
    prn = _text(claims, "prn")
    return Identity(
        login=prn if _text(claims, "id") == prn else _text(claims, "id"),
        nick=nick,
        prn=prn,
        type=intern(_text(claims, "type")),
        role=intern(_text(claims, "roles")),
        owner=intern(_text(claims, "owner")),
        scopes=scopes.split(_text(claims, "scopes")),
        expires_s=_seconds(outer, "exp"),
        issued_s=_seconds(outer, "orig_iat"),
        actor=intern(_text(claims, "actor")),
    )
