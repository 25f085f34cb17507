"""What does not agree: a row, a column of it, what stands there and what the records make of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa

FINDINGS_MAX = 1_000
"""So many findings are listed; of any more only the number is known."""
Row = Mapping[Any, Any]
"""A row as it is stored, by the names of its columns."""
UNSAID: Any = object()
"""Stands in an expected row for what no record tells: the columns of `engine.fsck.unchecked`."""

_SHOWN_CHARACTERS_MAX = 200
_SECRETS = frozenset(
    (
        ("agent_keys", "prefix"),
        ("agent_keys", "secret_hash"),
        ("api_keys", "prefix"),
        ("api_keys", "secret_hash"),
        ("idempotency_keys", "sealed"),
        ("payment_intents", "secret_hash"),
        ("session_keys", "sealed"),
        ("sessions", "secret_hash"),
        ("sign_ins", "secret_hash"),
    )
)
"""Columns whose values are never shown."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One disagreement. `column` is empty where it is about the whole row.

    `found` is what the row holds and `expected` what it should, as text for people: bytes are in
    hexadecimal, long values are cut, and secrets are not shown.
    """

    table: str
    row: str
    column: str
    found: str
    expected: str
    says: str

    def to_json(self) -> dict[str, str]:
        """As `tallystick fsck --json` writes it."""
        return {name: getattr(self, name) for name in self.__slots__}


class Findings:
    """Collects findings, each once; of one column of a row the first is kept."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], Finding] = {}
        self.more = 0
        """How many there are beyond those that are listed."""

    def __iter__(self) -> Iterator[Finding]:
        return iter(sorted(self._found.values()))

    def __len__(self) -> int:
        return len(self._found)

    def add(
        self,
        table: str,
        row: Any,
        column: str = "",
        *,
        says: str,
        found: Any = None,
        expected: Any = None,
    ) -> None:
        """Note one; without a column both values are left empty unless they are given."""
        key = (table, row if isinstance(row, str) else str(row), column)
        if key in self._found:
            return
        if len(self._found) >= FINDINGS_MAX:
            self.more += 1
            return
        secret = (table, column) in _SECRETS
        values = ("(not shown)",) * 2 if secret else (shown(found), shown(expected))
        if not column and found is None and expected is None:
            values = ("", "")
        self._found[key] = Finding(*key, *values, says)

    def missing(self, table: str, row: Any, says: str) -> None:
        """A row is not there."""
        self.add(table, row, found="no row", expected="a row", says=says)

    def unexpected(self, table: str, row: Any, says: str) -> None:
        """A row is there that nothing led to."""
        self.add(table, row, found="a row", expected="no row", says=says)

    def compare(
        self,
        table: str,
        row: Any,
        expected: Mapping[str, Any],
        found: Row | None,
        *,
        by: str,
    ) -> None:
        """Compare a row with the one that there is by `by` (words, such as `record 7`)."""
        if found is None:
            self.missing(table, row, f"by {by} there is one")
            return
        for column, value in expected.items():
            if value is not UNSAID and not same(found[column], value):
                self.add(
                    table,
                    row,
                    column,
                    found=found[column],
                    expected=value,
                    says=f"by {by} it is another",
                )


def same(found: Any, expected: Any) -> bool:
    """Whether a stored value is exactly the expected one; a boolean may be stored as 0 or 1."""
    if isinstance(expected, bool):
        return found is expected or (type(found) is int and found == int(expected))
    return type(found) is type(expected) and bool(found == expected)


def shown(value: Any) -> str:
    """A value for people."""
    text = "null" if value is None else value.hex() if isinstance(value, bytes) else str(value)
    if len(text) > _SHOWN_CHARACTERS_MAX:
        return f"{text[:_SHOWN_CHARACTERS_MAX]}… ({len(text)} characters)"
    return text


@cache
def stored(of: sa.Table, prefix: str = "") -> tuple[sa.Label[Any], ...]:
    """The columns of a table as they are stored, whatever is in them, to be selected."""
    return tuple(
        sa.type_coerce(column, sa.types.NullType()).label(prefix + column.name)
        for column in of.columns
    )


def part(row: Mapping[Any, Any], prefix: str, of: sa.Table) -> dict[str, Any] | None:
    """The columns of one table in a row of several; None if the join found nothing there."""
    found = {column.name: row[prefix + column.name] for column in of.columns}
    return None if all(value is None for value in found.values()) else found
