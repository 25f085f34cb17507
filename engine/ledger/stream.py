"""A stream: one chain of records in the audit log, and whom every row of it is about."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Stream:
    """A session's records, or those of its workspace; then `id` is the workspace's.

    Each row that tells of a session carries the session's type and label, so that no list, export
    or shard needs another table to say whose it is.
    """

    workspace_id: str
    id: str
    session_type: str | None = None
    label: str | None = None

    def columns(self) -> dict[str, Any]:
        """The columns that every row of the stream has in common, but for its id."""
        return {
            "workspace_id": self.workspace_id,
            "session_type": self.session_type,
            "label": self.label,
        }


SESSION_PREFIX = "sess_"
"""What begins like this is a session's stream."""
BUDGET_PREFIX = "budget/"
"""What begins like this is no stream of records but a budget, whose entries count up like them."""


def budget_stream(workspace_id: str, budget_id: str) -> str:
    """How a budget is called where streams are: no workspace or session has a slash in its id."""
    return f"{BUDGET_PREFIX}{workspace_id}/{budget_id}"


def workspace_stream(workspace_id: str) -> Stream:
    """The records about a workspace itself: its keys and agents."""
    return Stream(workspace_id, workspace_id)
