"""Refusals as answers (contract section 7): an id, a status, a message; the technical text is only logged."""

from __future__ import annotations

import logging
import time

from brickless.hub.domain import errors, jsontext
from brickless.hub.http.messages import Response

log = logging.getLogger("brickless.hub")

REALM = "pantahub services"

STATUS: dict[type[errors.Refusal], int] = {
    errors.Malformed: 400,
    errors.LoginFailed: 401,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.ScopeMissing: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Precondition: 412,
    errors.TooLarge: 413,
    errors.Unprocessable: 422,
    errors.RateLimited: 429,
    errors.Unavailable: 503,
    errors.NotModified: 304,
    errors.Unsupported: 501,
}


def framework(status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """The short form: routing, bearer authentication, crashes."""
    return Response(jsontext.struct({"Error": text}), status=status, headers=headers)


def challenge(auth_base: str, text: str = "Not Authorized") -> Response:
    """The 401 that tells a client where to log in; its bytes are part of the contract (section 1.1)."""
    return framework(401, text, (("WWW-Authenticate", f'JWT realm="{REALM}", ph-aeps="{auth_base}"'),))


def _scope_header(accepted: tuple[str, ...], auth_base: str) -> tuple[str, str]:
    value = (
        f'Bearer Realm="{REALM}", ph-aeps="{auth_base}", scope="{" ".join(accepted)}", error="insufficient_scope", '
        f'error_description="The request requires higher privileges than provided by the access token"'
    )
    return "WWW-Authenticate", value


def refused(error: errors.Refusal, *, auth_base: str, canonical: bool, route: str) -> Response:
    """The answer to a refusal; `canonical` sorts its keys, as /trails does."""
    if isinstance(error, errors.Unauthenticated):
        return challenge(auth_base, error.message or "Not Authorized")
    status = STATUS[type(error)]
    error_id = f"REST-ERR-ID-{time.time_ns()}"
    log.info("refused", extra={"error_id": error_id, "status": status, "route": route, "detail": error.detail})
    body: dict[str, object] = {"error": error_id}
    if error.message:
        body["msg"] = error.message
    body["code"] = status
    headers: tuple[tuple[str, str], ...] = ()
    if isinstance(error, errors.ScopeMissing):
        headers = (_scope_header(error.accepted, auth_base),)
    elif isinstance(error, errors.RateLimited):
        headers = (("Retry-After", str(error.retry_after_s)),)
    elif isinstance(error, errors.Unavailable):
        log.error("unavailable", extra={"error_id": error_id, "route": route, "detail": error.detail})
        headers = (("Retry-After", "5"),)
    if status == 304:
        return Response(status=status)
    made = jsontext.canonical_object(body.items()) if canonical else jsontext.struct(body)
    return Response(made, status=status, headers=headers)
