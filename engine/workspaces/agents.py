"""The agent registry: ids are the operator's, and budgets hang on them."""

from dataclasses import dataclass

import sqlalchemy as sa

from engine.db.database import Database, Read
from engine.db.keys import Agent
from engine.db.tables import table
from engine.errors import InvalidInput
from engine.ledger.batch import Batch
from engine.ledger.stream import workspace_stream
from engine.ledger.writer import Writer

AGENT_ID_LENGTH_MAX = 128

_agents = table(Agent)


@dataclass(frozen=True, slots=True)
class AgentView:
    """A registered agent."""

    id: str
    name: str | None
    created_ms: int


def check_agent_id(agent_id: str, field: str = "agent_id") -> None:
    """Refuse an id that people could not tell from another.

    Raises:
        InvalidInput: empty, too long, or with characters that are not printable ASCII.
    """
    if not 0 < len(agent_id) <= AGENT_ID_LENGTH_MAX or not all(
        "!" <= character <= "~" for character in agent_id
    ):
        raise InvalidInput(
            field, f"must have 1 to {AGENT_ID_LENGTH_MAX} printable ASCII characters, no spaces"
        )
    if agent_id in (".", ".."):  # no client leaves them in the path that names a budget
        raise InvalidInput(field, "must be neither . nor ..")


def is_registered(read: Read, workspace_id: str, agent_id: str) -> bool:
    """Whether the workspace has an agent of this id."""
    known = sa.select(_agents.c.id).where(
        _agents.c.workspace_id == workspace_id, _agents.c.id == agent_id
    )
    return read(known).first() is not None


def ensure_agent(
    batch: Batch, workspace_id: str, agent_id: str, name: str | None, *, by: str | None
) -> bool:
    """Register an agent unless it is registered, by whomever; says whether it was new."""
    if is_registered(batch.read, workspace_id, agent_id):
        return False
    batch.insert(
        _agents,
        {
            "workspace_id": workspace_id,
            "id": agent_id,
            "name": name,
            "created_ms": batch.now_ms,
        },
    )
    told = {"agent_id": agent_id, "name": name, "by": by}
    batch.record(workspace_stream(workspace_id), "agent.registered", told)
    return True


class Agents:
    """Registers and lists agents."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer

    def register(
        self, workspace_id: str, agent_id: str, name: str | None, *, by: str | None = None
    ) -> bool:
        """Register an agent; registering it again changes nothing. Says whether it was new."""
        check_agent_id(agent_id)
        return self._writer.call(
            lambda batch: ensure_agent(batch, workspace_id, agent_id, name, by=by), workspace_id
        )

    def list(self, workspace_id: str) -> list[AgentView]:
        """All agents of a workspace, by id."""
        query = (
            sa.select(_agents.c.id, _agents.c.name, _agents.c.created_ms)
            .where(_agents.c.workspace_id == workspace_id)
            .order_by(_agents.c.id)
        )
        with self._database.reading() as connection:
            return [AgentView(*row) for row in connection.execute(query)]
