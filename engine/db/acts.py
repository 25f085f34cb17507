"""The table of administrative acts: what the records tell of them, to be looked for."""

from sqlalchemy import Index

from engine.db.columns import Row
from engine.db.columns import big as _big
from engine.db.columns import place as _place
from engine.db.columns import text as _text


class Act(Row, table=True):
    """A record of no payment or intent: of which kind, when, and whose act. Its id is the record's.

    `actor` is a key, a session, `chain`, `ancestor` or `system` (`engine.ledger.acts`).
    """

    __tablename__ = "acts"
    __table_args__ = (Index("acts_by_workspace", "workspace_id", "id"),)
    id: int = _place()
    workspace_id: str = _text()
    time_ms: int = _big()
    kind: str = _text()
    actor: str = _text()
