"""What a use case refuses, as exceptions: the HTTP layer gives each kind its status, nothing here knows HTTP.

`message` is shown to the caller and must hold no secret; `detail` goes to the server's log only.
"""

from __future__ import annotations

from brickless.core.errors import BricklessError


class Refusal(BricklessError):  # noqa: N818 - a use case refuses, nothing went wrong in it
    """A request that the hub will not carry out. `message` may be empty: then the caller sees only the status."""

    def __init__(self, message: str = "", *, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail or message


class Malformed(Refusal):
    """The request cannot be understood: broken JSON, a bad id, an unknown field value."""


class LoginFailed(Refusal):
    """Unknown name or wrong password; the two are never told apart."""


class Unauthenticated(Refusal):
    """No valid token where one is needed."""


class Forbidden(Refusal):
    """The caller is known and may not do this."""


class ScopeMissing(Refusal):
    """The token's scopes do not include any of `accepted` (full scope strings)."""

    def __init__(self, accepted: tuple[str, ...]) -> None:
        super().__init__("The token's scopes do not allow this request")
        self.accepted = accepted


class NotFound(Refusal):
    """The thing does not exist, or exists and is none of the caller's business."""


class Conflict(Refusal):
    """The thing exists already, or is no longer in the state that the request presumes."""


class Precondition(Refusal):
    """A registration that breaks a rule (contract section 1.5: status 412)."""


class TooLarge(Refusal):
    """A body, a state or an account's storage beyond its limit."""


class Unprocessable(Refusal):
    """Understood and refused: a state that would fail on a device."""


class RateLimited(Refusal):
    """Too many attempts; `retry_after_s` says when the next one is worth making."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(Refusal):
    """Something that the hub itself needs does not answer: worth another try."""


class NotModified(Refusal):
    """The stored record is newer than the request (callbacks)."""


class Unsupported(Refusal):
    """A caller type that a service does not serve."""
