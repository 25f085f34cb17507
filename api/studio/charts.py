"""Charts as numbers for SVG: what a window held at each instant, and its limit."""

from typing import Any

from api.rest.views import time_text, usd

WIDTH, HEIGHT = 640, 120
DAY_MS = 24 * 3_600_000


def chart_of(
    window: str, days: int, spent: list[tuple[int, int]], limit: int, since_ms: int, now_ms: int
) -> dict[str, Any]:
    """The sum over the window of `days` at each instant since `since_ms`, or for twice the window's
    length until now if that is shorter.

    `spent` are times (milliseconds) and amounts (micro-USD), in any order. The line is a step line:
    a payment counts from its own instant until it leaves the window.
    """
    length = days * DAY_MS
    begin = max(since_ms, now_ms - 2 * length)
    span = max(1, now_ms - begin)
    changes = sorted(
        [(at, amount) for at, amount in spent] + [(at + length, -amount) for at, amount in spent]
    )
    steps, total, highest = [(begin, 0)], 0, 0
    for at, change in changes:
        if at > now_ms:
            break
        total += change
        if at <= begin:
            steps = [(begin, total)]
        else:
            steps.append((at, total))
        highest = max(highest, total)
    steps.append((now_ms, total))
    top = max(limit, highest) or 1
    points: list[str] = []
    before = 0.0
    for at, amount in steps:
        x = round((at - begin) / span * WIDTH, 1)
        y = round(HEIGHT - amount / top * (HEIGHT - 8), 1)
        if points:
            points.append(f"{x},{before}")
        points.append(f"{x},{y}")
        before = y
    return {
        "window": window,
        "limit_usd": usd(limit),
        "used_usd": usd(total),
        "from": time_text(begin),
        "points": " ".join(points),
        "limit_y": round(HEIGHT - limit / top * (HEIGHT - 8), 1),
    }
