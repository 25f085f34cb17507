"""When a client asks again by itself, and after how long."""

import random
from typing import Any

from tallystick.calls import Call
from tallystick.errors import ApiError

RETRIES = 2
"""How often a call is asked again by default."""
FIRST_PAUSE_S = 0.5
"""Doubled each time; up to a quarter more at random, so that not everybody comes back together."""
PAUSE_MAX_S = 30.0
"""A server that asks for a longer one is not asked again."""

_TOO_MANY_REQUESTS = 429
_jitter = random.SystemRandom()


def pause_s(call: Call[Any], error: ApiError, tried: int, retries: int) -> float | None:
    """How long to wait before `call` is asked again, which failed `tried` times; None: do not.

    What the server certainly did not do is asked again (`unreachable`, a 429), and what it may have
    done only where a second time changes nothing, as with an idempotency key.
    """
    not_done = error.code == "unreachable" or error.status == _TOO_MANY_REQUESTS
    if tried > retries or not (not_done or (error.is_unknown and not call.once)):
        return None
    pause = FIRST_PAUSE_S * 2 ** (tried - 1) * (1 + _jitter.random() / 4)
    if error.retry_after_s is not None:
        pause = max(pause, error.retry_after_s)
    return pause if pause <= PAUSE_MAX_S else None
