"""All keys of a workspace: its operators', its agents', and whether one of those may be used."""

from engine.clock import Clock
from engine.db.database import Database
from engine.ledger.writer import Writer
from engine.workspaces.agent_access import AgentAccess
from engine.workspaces.agent_keys import AgentKeys
from engine.workspaces.operator_keys import OperatorKeys


class Keys:
    """See the modules of its parts."""

    def __init__(self, database: Database, writer: Writer, stopwatch: Clock) -> None:
        self.operators = OperatorKeys(database, writer)
        self.agents = AgentKeys(database, writer)
        self.use = AgentAccess(database, writer, stopwatch)
