"""The limits and lifetimes that an operator may change, with the defaults. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """Frozen for the life of the process. Names carry their unit."""

    token_life_s: int = 3600
    token_refresh_window_s: int = 24 * 3600
    anonymous_token_life_s: int = 300
    recovery_token_life_s: int = 3600
    signed_url_life_s: int = 2 * 3600
    cursor_life_s: int = 120
    sign_up: bool = True
    verify_email: bool = False
    #: The C client refuses answers beyond 2 MiB; a step holds its state once, the rest is small.
    max_state_bytes: int = 1024 * 1024
    max_object_bytes: int = 8 * 1024**3
    #: What an account without a subscription may have (domain.plans).
    default_plan: str = "UNLIMITED"
    max_log_body_bytes: int = 1024 * 1024
    max_log_entries: int = 2000
    rate_limits: bool = True
    failed_logins_per_minute: int = 20
    failed_claims_per_minute: int = 20
    registrations_per_minute: int = 120
    #: Networks in CIDR notation to which webhooks may go although they are private, and without TLS.
    webhook_networks: tuple[str, ...] = ()
