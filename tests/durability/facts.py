"""What was asked, answered and recorded, side by side, in a temporary file and not in memory.

A long run knows of millions of payments. What was said of one and what was recorded of it are kept
as the same short texts, so that SQL finds what differs.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from tests.durability.payers import Question
from tests.ledger.oracle import Broken, require

CACHE_KIB = 64 * 1024

_SCHEMA = """
CREATE TABLE asked (key TEXT PRIMARY KEY, session TEXT, amount INT, hold INT) WITHOUT ROWID;
CREATE TABLE answered (
    place INTEGER PRIMARY KEY, key TEXT UNIQUE, payment TEXT UNIQUE, facts TEXT, firsts INT
);
CREATE TABLE closed (payment TEXT PRIMARY KEY, facts TEXT) WITHOUT ROWID;
CREATE TABLE refused (payment TEXT, state TEXT, PRIMARY KEY (payment, state)) WITHOUT ROWID;
CREATE TABLE decided (payment TEXT PRIMARY KEY, facts TEXT, allowed INT) WITHOUT ROWID;
CREATE TABLE ended (payment TEXT PRIMARY KEY, facts TEXT, state TEXT) WITHOUT ROWID;
"""

_DIFFERENT = {
    "said {}, recorded {}": """
        SELECT payment, answered.facts, decided.facts FROM answered LEFT JOIN decided
        USING (payment) WHERE place > :after AND decided.facts IS NOT answered.facts""",
    "said to have ended as {}, recorded {}": """
        SELECT payment, closed.facts, ended.facts FROM closed LEFT JOIN ended
        USING (payment) WHERE ended.facts IS NOT closed.facts""",
    "refused as {}, but it is {}": """
        SELECT payment, refused.state, ended.state FROM refused LEFT JOIN ended
        USING (payment) WHERE ended.state IS NOT refused.state""",
    "allowed is {}, its hold ended as {}": """
        SELECT payment, allowed, ended.state FROM decided LEFT JOIN ended
        USING (payment) WHERE allowed <> (ended.state IS NOT NULL)""",
}


class Facts:
    """One run. Every method raises `Broken` where two facts contradict each other."""

    def __init__(self) -> None:
        # Without a name SQLite makes a file of its own and removes it; nothing of it is to last.
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(
            f"PRAGMA journal_mode = OFF; PRAGMA cache_size = -{CACHE_KIB}; {_SCHEMA} BEGIN;"
        )

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """What a query finds."""
        return self._db.execute(sql, values).fetchall()

    def count(self, name: str) -> int:
        """How many rows a table has."""
        return int(self.rows(f"SELECT count(*) FROM {name}")[0][0])

    # What was said

    def asked(self, question: Question) -> None:
        """Somebody asks this; the same key never asks for anything else."""
        given = (question.key, question.session, question.amount, int(question.hold))
        self._once("asked", given, f"{question.key} is two questions")

    def answered(self, key: str, payment: str, facts: Sequence[Any], *, replayed: bool) -> bool:
        """Somebody heard this; returns whether nobody had before."""
        text = _text(facts)
        known = self.rows("SELECT payment, facts, firsts FROM answered WHERE key = ?", key)
        if not known:
            amount = self.rows("SELECT amount FROM asked WHERE key = ?", key)
            require(amount == [(facts[0],)], f"{key}: {amount} was asked for, not {facts[0]}")
            row = (key, payment, text, int(not replayed))
            try:
                self._db.execute(
                    "INSERT INTO answered (key, payment, facts, firsts) VALUES (?, ?, ?, ?)", row
                )
            except sqlite3.IntegrityError as taken:
                raise Broken(f"{key} and another key lead to {payment}") from taken
            return True
        [(*said, firsts)] = known
        require(said == [payment, text], f"{key}: {payment} {text}, but it was {said}")
        if not replayed:
            require(firsts == 0, f"{key}: decided twice")
            self._db.execute("UPDATE answered SET firsts = 1 WHERE key = ?", (key,))
        return False

    def closed(self, payment: str, facts: Sequence[Any]) -> None:
        """Somebody heard how it ended."""
        self._once("closed", (payment, _text(facts)), f"{payment} ended in two ways")

    def refused(self, payment: str, state: str) -> None:
        """Somebody heard that it cannot end in another way any more."""
        self._db.execute("INSERT OR IGNORE INTO refused VALUES (?, ?)", (payment, state))

    def unanswered(self) -> list[Question]:
        """What was asked, and nobody heard an answer."""
        found = self.rows("SELECT * FROM asked WHERE key NOT IN (SELECT key FROM answered)")
        return [Question(key, session, amount, bool(hold)) for key, session, amount, hold in found]

    def sample(self, places: Sequence[int]) -> list[Question]:
        """What was asked by those that were answered first, second, …, as `places` says."""
        find = "SELECT asked.* FROM answered JOIN asked USING (key) WHERE place = ?"
        found = [row for place in places for row in self.rows(find, place)]
        return [Question(key, session, amount, bool(hold)) for key, session, amount, hold in found]

    # What was recorded

    def decided(self, payment: str, facts: Sequence[Any], *, allowed: bool) -> None:
        """A record says so."""
        self._new("decided", (payment, _text(facts), int(allowed)), "was decided twice")

    def ended(self, payment: str, facts: Sequence[Any]) -> None:
        """A record says so; the first of the facts is the state."""
        self._new("ended", (payment, _text(facts), facts[0]), "ended twice")

    # Whether it is the same

    def check_answers(self, after: int) -> int:
        """Every answer behind the first `after` is recorded; returns how many there are in all."""
        self._same("said {}, recorded {}", after)
        return self.count("answered")

    def check(self) -> None:
        """Once all has ended: everything that was said is recorded, and everything recorded was
        asked for once and answered."""
        waiting = self.unanswered()
        require(not waiting, f"{len(waiting)} questions have no answer: {waiting[:3]}")
        self.check_answers(0)
        counts = self.count("decided"), self.count("answered")
        require(counts[0] == counts[1], f"one decision for each key: {counts}")
        for what in _DIFFERENT:
            self._same(what, 0)

    def _same(self, what: str, after: int) -> None:
        for payment, *facts in self._db.execute(_DIFFERENT[what] + " LIMIT 1", {"after": after}):
            raise Broken(f"{payment}: {what.format(*facts)}")

    def _once(self, table: str, row: Sequence[Any], otherwise: str) -> None:
        """Insert a row, or find the same there."""
        holes = ", ".join("?" * len(row))
        done = self._db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({holes})", row)
        if not done.rowcount:
            name = "key" if table == "asked" else "payment"
            [before] = self.rows(f"SELECT * FROM {table} WHERE {name} = ?", row[0])
            require(before == tuple(row), f"{otherwise}: {before[1:]} and {row[1:]}")

    def _new(self, table: str, row: Sequence[Any], otherwise: str) -> None:
        holes = ", ".join("?" * len(row))
        try:
            self._db.execute(f"INSERT INTO {table} VALUES ({holes})", row)
        except sqlite3.IntegrityError as again:
            raise Broken(f"{row[0]} {otherwise}") from again


def _text(facts: Sequence[Any]) -> str:
    return json.dumps(facts, separators=(",", ":"))
