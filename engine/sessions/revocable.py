"""Live sessions as far as it takes to name and end them, whatever else of their rows is damaged."""

from dataclasses import dataclass
from typing import Any

from engine.sessions.session import TIME_MAX_MS


@dataclass(frozen=True, slots=True)
class Revocable:
    """A live session, by its row alone. A text that is none is told as one, and an end that is none
    never comes."""

    id: str
    workspace_id: str
    type: str
    label: str | None
    agent_id: str
    state: str
    expires_ms: int


def revocable(row: Any) -> Revocable:
    """Of a row of the sessions table that has an id."""
    ends_ms = row.expires_ms if isinstance(row.expires_ms, int) else TIME_MAX_MS
    return Revocable(
        id=row.id,
        workspace_id=_text(row.workspace_id),
        type=_text(row.type),
        label=None if row.label is None else _text(row.label),
        agent_id=_text(row.agent_id),
        state=_text(row.state),
        expires_ms=min(max(0, ends_ms), TIME_MAX_MS),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ascii(value)
