"""When a delivery is tried again. Pure; times are milliseconds since the epoch."""

from email.utils import parsedate_to_datetime

_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS

DELAYS_MS = (
    0,
    5_000,
    5 * _MINUTE_MS,
    30 * _MINUTE_MS,
    2 * _HOUR_MS,
    5 * _HOUR_MS,
    10 * _HOUR_MS,
    14 * _HOUR_MS,
    20 * _HOUR_MS,
    24 * _HOUR_MS,
)
"""How long after the attempt before it each attempt comes: those of Standard Webhooks, 1.0."""
ATTEMPTS_MAX = len(DELAYS_MS)
JITTER = 10
"""A delay is longer by at most one part in so many, so that what failed together is spread."""
RETRY_AFTER_MAX_MS = 24 * _HOUR_MS
"""No receiver can ask for a longer pause."""


def next_attempt_ms(
    attempts: int, now_ms: int, chance: float, retry_after_ms: int = 0
) -> int | None:
    """When the next attempt is due after `attempts` of them failed, the last one now.

    `chance`, at least 0 and below 1, is how much of the jitter is added. None: there is no other.
    """
    if attempts >= ATTEMPTS_MAX:
        return None
    delay_ms = DELAYS_MS[attempts]
    delay_ms += int(delay_ms / JITTER * chance)
    return now_ms + max(delay_ms, retry_after_ms)


def retry_after_ms(header: str | None, now_ms: int) -> int:
    """What a `Retry-After` (RFC 9110, 10.2.3) asks for: seconds or a date; 0 if it is neither."""
    if header is None:
        return 0
    text = header.strip()
    if text.isascii() and text.isdigit():
        wanted_ms = int(text) * 1000 if len(text) <= 10 else RETRY_AFTER_MAX_MS
    else:
        try:
            wanted_ms = int(parsedate_to_datetime(text).timestamp() * 1000) - now_ms
        except (ValueError, OverflowError, OSError):
            return 0
    return min(max(0, wanted_ms), RETRY_AFTER_MAX_MS)
