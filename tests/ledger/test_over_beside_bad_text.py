"""Text that is no UTF-8 is the damage of a row, which SQLite stores, and not of the database."""

import pytest

from tests.ledger.test_over_beside_damage import Damage, check
from tests.world import World

STORES = ("sqlite",)  # PostgreSQL has no such text

NO_TEXT = "CAST(x'61ff' AS TEXT)"
PLACES = {
    "sessions.label": "id = ?",
    "sessions.metadata_json": "id = ?",
    "sessions.restrictions_json": "id = ?",
    "decisions.idempotency_key": "session_id = ? AND number = 3",
    "decisions.memo_json": "session_id = ? AND number = 3",
    "approvals.digest": "session_id = ?",
    "approvals.grants_json": "session_id = ?",
}


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_who_has_no_text_keeps_nobody_waiting(fresh: World, place: str, stopped: bool) -> None:
    table, _, column = place.partition(".")
    check(fresh, Damage(table, column, NO_TEXT, PLACES[place]), stopped=stopped)
