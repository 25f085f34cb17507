"""Charts as numbers for SVG: what a window held at each instant, and its limit."""

from typing import Any

from api.rest.views import time_text, usd

WIDTH, HEIGHT = 640, 120
DAY_MS = 24 * 3_600_000


def begin_of(days: int, since_ms: int, now_ms: int) -> int:
    """Where the chart of a window of `days` begins: at `since_ms`, or twice the window's length ago
    if that is later."""
    return max(since_ms, now_ms - 2 * days * DAY_MS)


def step_of(begin_ms: int, now_ms: int) -> int:
    """What no chart of that time can show apart: a unit of its width, in milliseconds."""
    return max(1, (now_ms - begin_ms) // WIDTH)


def chart_of(
    window: str,
    days: int,
    spent: list[tuple[int, int]],
    *,
    limit: int,
    used: int,
    begin_ms: int,
    now_ms: int,
) -> dict[str, Any]:
    """The sum over the window of `days` at each instant from `begin_ms` until now, where it is
    `used`.

    `spent` are times (milliseconds) and amounts (micro-USD), in any order, from the window's length
    before the beginning on. The line is a step line: a payment counts from its own instant until it
    leaves the window.
    """
    length = days * DAY_MS
    span = max(1, now_ms - begin_ms)
    changes = sorted(
        [(at, amount) for at, amount in spent] + [(at + length, -amount) for at, amount in spent]
    )
    steps, total, highest = [(begin_ms, 0)], 0, used
    for at, change in changes:
        if at > now_ms:
            break
        total += change
        if at <= begin_ms:
            steps = [(begin_ms, total)]
        else:
            steps.append((at, total))
        highest = max(highest, total)
    steps.append((now_ms, used))
    top = max(limit, highest) or 1
    points: list[str] = []
    before = 0.0
    for at, amount in steps:
        x = round((at - begin_ms) / span * WIDTH, 1)
        y = round(HEIGHT - amount / top * (HEIGHT - 8), 1)
        if points:
            points.append(f"{x},{before}")
        points.append(f"{x},{y}")
        before = y
    return {
        "window": window,
        "limit_usd": usd(limit),
        "used_usd": usd(used),
        "from": time_text(begin_ms),
        "points": " ".join(points),
        "limit_y": round(HEIGHT - limit / top * (HEIGHT - 8), 1),
    }
