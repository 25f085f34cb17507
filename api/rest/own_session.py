"""Which session a caller means, and whether it is theirs."""

from engine.engine import Engine
from engine.errors import NotFound
from engine.workspaces.access import Operator, SessionHolder

OWN = "self"
"""What the holder of a token may call its session."""


def session_of(engine: Engine, party: Operator | SessionHolder, named: str) -> str:
    """The id of the session that is named: of the operator's workspace, or the holder's own.

    Raises:
        NotFound: it is neither, or there is none.
    """
    if isinstance(party, Operator):
        return engine.sessions.get(party.workspace_id, named).id
    if named not in (OWN, party.session_id):
        raise NotFound("no such session", code="session_not_found")
    return party.session_id
