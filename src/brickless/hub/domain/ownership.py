"""How a device proves that it belongs to the account whose join token it used (contract appendix A). Pure.

A join token is one text on many devices, so it may leak. A token with a mode gives the account no working device until
ownership is validated: `tls` by a certificate from a root that the token names, `manual` by its owner.
"""

from __future__ import annotations

from brickless.core import canonical
from brickless.hub.domain import scopes
from brickless.hub.domain.errors import Malformed
from brickless.hub.domain.jsontext import Value, load_stored

TLS, MANUAL = "tls", "manual"
#: Modes without anything to prove.
_PLAIN = frozenset({"", "claim", "default"})
PENDING, COMPLETED = "pending", "completed"
NOT_NEEDED: dict[str, Value] = {"mode": "default", "status": "validation_not_needed"}
#: What an unverified device may do: look, and validate.
UNVERIFIED_SCOPES = (scopes.PREFIX + "all.readonly", scopes.PREFIX + "devices.validate")
MAX_ROOT_CHARS = 48 * 1024


def of_token(body: Value) -> str:
    """The mode that a join token asks for, as its stored text; empty for none. Raises Malformed."""
    if body is None:
        return ""
    if not isinstance(body, dict):
        raise Malformed("'ovmode' must be a JSON object")
    mode, root = body.get("mode", ""), body.get("root_of_trust", "")
    if not isinstance(mode, str) or mode not in {TLS, MANUAL} | _PLAIN:
        raise Malformed("'ovmode.mode' must be claim, default, tls or manual")
    if not isinstance(root, str) or len(root) > MAX_ROOT_CHARS:
        raise Malformed(f"'ovmode.root_of_trust' must be a string of at most {MAX_ROOT_CHARS} characters")
    if bool(root) != (mode == TLS):
        raise Malformed("'ovmode.root_of_trust' belongs to the mode tls, which needs it: base64 of PEM certificates")
    if mode in _PLAIN:
        return ""
    return canonical.dumps({"mode": mode, **({"root_of_trust": root} if root else {})}).decode()


def of_device(token_mode: str) -> str:
    """What a device begins with that used a token of this mode."""
    return canonical.dumps({**load_stored(token_mode), "status": PENDING}).decode() if token_mode else ""


def completed(ovmode: str) -> str:
    """The same, proved."""
    return canonical.dumps({**load_stored(ovmode), "status": COMPLETED}).decode()


def shown(ovmode: str, *, root: bool = False) -> dict[str, Value]:
    """What is told of it; the root of trust only with `root`."""
    return {key: value for key, value in load_stored(ovmode).items() if root or key != "root_of_trust"}


def is_unverified(ovmode: str) -> bool:
    """Whether the device still has to prove it."""
    return bool(ovmode) and load_stored(ovmode).get("status") != COMPLETED
