"""Whether each transition of a session was told exactly once, judged by rows alone.

    made                                            agent.session.created
    ended by somebody, also when its time was over  agent.session.revoked
    over by the clock                               agent.session.expired
    a limit over time has denied a payment          agent.session.limit_reached

The last one is told again once the window has freed what was denied. Sessions labelled `LIMITED`
may make so many payments an hour and are asked for more, and time passes by whole hours: so it is
told once in each hour in which one of them is denied.
"""

import contextlib
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

LIMITED = "limited"
PAYMENTS_PER_HOUR = 2
HOUR_MS = 3_600_000
ENDED = {
    "active": {(0, 0)},
    "expired": {(0, 1)},
    "revoked": {(1, 0), (1, 1)},  # what has expired can be revoked all the same
}
"""How often a session in this state was told to be revoked, and to have expired."""


def wrong_transitions(file: Path, began_ms: int) -> list[str]:
    """What was told too often or not at all; hours are counted from `began_ms`."""
    told, reached = _told(file, began_ms)
    found = []
    with contextlib.closing(sqlite3.connect(file)) as raw:
        sessions = dict(raw.execute("SELECT id, state FROM sessions").fetchall())
        denied = raw.execute(
            "SELECT session_id, decided_ms FROM decisions WHERE state = 'denied' AND label = ?",
            (LIMITED,),
        ).fetchall()
    for session_id, state in sessions.items():
        created, *ended = (told[session_id, name] for name in ("created", "revoked", "expired"))
        if created != 1 or tuple(ended) not in ENDED[state]:
            found.append(f"{session_id} is {state} and was told {created} and {ended} times")
    found += [f"{each} is told of and not there" for each, _ in told if each not in sessions]
    expected = {(each, _hour(at_ms, began_ms)) for each, at_ms in denied}
    for each, hour in sorted(expected | reached.keys()):
        if (count := reached[each, hour]) != ((each, hour) in expected):
            found.append(f"{each} was told {count} times of a limit in hour {hour}")
    return found


def transitions(file: Path) -> dict[str, int]:
    """How many there were of each kind."""
    told, reached = _told(file, 0)
    kinds: Counter[str] = Counter()
    for (_, name), count in told.items():
        kinds[name] += count
    return {**kinds, "limit_reached": reached.total()}


def _told(file: Path, began_ms: int) -> tuple[Counter[tuple[str, str]], Counter[Any]]:
    """Events about a session by its id and the event's name; of a reached limit, by the hour."""
    query = (
        "SELECT event, json_extract(payload_json, '$.session_id'), created_ms FROM outbox "
        "WHERE event LIKE 'agent.session.%'"
    )
    with contextlib.closing(sqlite3.connect(file)) as raw:
        rows = raw.execute(query).fetchall()
    told: Counter[tuple[str, str]] = Counter()
    reached: Counter[Any] = Counter()
    for event, session_id, at_ms in rows:
        name = event.rpartition(".")[2]
        if name == "limit_reached":
            reached[session_id, _hour(at_ms, began_ms)] += 1
        else:
            told[session_id, name] += 1
    return told, reached


def _hour(at_ms: int, began_ms: int) -> int:
    return (at_ms - began_ms) // HOUR_MS
