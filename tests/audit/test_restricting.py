"""Restrictions of sessions above, as records tell of them and as they are stored."""

from dataclasses import replace
from typing import Any

import pytest

from engine.audit.restricting import above_from_json, above_to_json, follow_above, inherited
from tests.audit.vector_sessions import grant

CASINO, HOURS = "never merchant casino", "only 09:00-17:00 UTC on Mon"


def told(ancestor_id: Any = "sess_a", restrictions: Any = (CASINO,)) -> dict[str, Any]:
    return {"ancestor_id": ancestor_id, "restrictions": list(restrictions)}


@pytest.mark.parametrize(
    ("granted", "binds"),
    [
        ((), True),
        ((CASINO,), True),
        ((HOURS,), True),
        ((CASINO, "only 09:00-17:01 UTC on Mon"), True),
        ((CASINO, HOURS), False),
        ((CASINO, "never merchant x", "only 10:00-11:00 UTC on Mon"), False),
    ],
)
def test_all_of_it_binds_unless_the_grant_asks_as_much(
    granted: tuple[str, ...], binds: bool
) -> None:
    below = replace(grant(), conditions=granted)
    assert inherited(below, (CASINO, HOURS)) == ((CASINO, HOURS) if binds else ())
    assert inherited(below, ()) == ()


def test_each_session_has_what_was_told_of_it_last() -> None:
    above = follow_above(follow_above({}, told()), told("sess_b", (HOURS,)))
    above = follow_above(above, told(restrictions=(CASINO, HOURS)))
    assert above == {"sess_a": (CASINO, HOURS), "sess_b": (HOURS,)}
    assert above_from_json(above_to_json(above)) == above
    assert follow_above(above, told("sess_b", ())) == {"sess_a": (CASINO, HOURS)}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ancestor_id": "sess_a"},
        {"ancestor_id": None, "restrictions": [HOURS]},
        {"ancestor_id": "sess_a", "restrictions": CASINO},
        told(),
        told("sess_b", ()),
    ],
)
def test_what_cannot_follow_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        follow_above({"sess_a": (CASINO,)}, body)


@pytest.mark.parametrize(
    "stored", ["", "x", "[]", '{"sess_a":[]}', '{"sess_a":"never"}', '{ "sess_a":["never"]}']
)
def test_what_is_not_stored_so_is_refused(stored: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (what is wrong is of many kinds)
        above_from_json(stored)
