"""Budgets above the session: what an agent, or the whole workspace, may spend in all its sessions.

    workspace                    all sessions of the workspace
    agent:shopper                those of one registered agent, whichever its id

An agent that nobody registered has no budget: an id that can be made up would be a fresh one.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from engine.audit.canonical import encode
from engine.db.database import BUDGETS, Database, Read
from engine.db.tables import BudgetRow, table
from engine.errors import InvalidInput, NotFound
from engine.ledger.batch import Batch
from engine.ledger.budgets import read_limits, refound
from engine.ledger.stream import workspace_stream
from engine.ledger.writer import Writer
from engine.policy.budgets import BudgetLimits
from engine.workspaces.agents import is_registered

WORKSPACE_BUDGET = "workspace"
_AGENT = "agent:"

_budgets = table(BudgetRow)


@dataclass(frozen=True, slots=True)
class BudgetView:
    """A budget in force. `version` counts up with each change, also when it was cleared between."""

    id: str
    limits: BudgetLimits
    version: int
    updated_ms: int

    @property
    def agent_id(self) -> str | None:
        """Whose it is; None: the workspace's."""
        return self.id.removeprefix(_AGENT) if self.id.startswith(_AGENT) else None


def budget_id(agent_id: str | None) -> str:
    """The id of an agent's budget; without an agent, that of the workspace's."""
    return WORKSPACE_BUDGET if agent_id is None else _AGENT + agent_id


class Budgets:
    """Sets, clears and reads budgets; each change is a record of the workspace."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer

    def set(
        self, workspace_id: str, agent_id: str | None, limits: BudgetLimits, *, by: str
    ) -> BudgetView:
        """Put these limits in the place of all earlier ones. The same again change nothing.

        Raises:
            InvalidInput: there is no limit among them.
            NotFound: the workspace has no such agent.
        """
        if not limits.caps():
            raise InvalidInput("body", "names no limit; to lift a budget, clear it")
        return self._writer.call(
            lambda batch: self._set(batch, workspace_id, agent_id, limits, by),
            workspace_id,
            BUDGETS,
        )

    def clear(self, workspace_id: str, agent_id: str | None, *, by: str) -> None:
        """Lift a budget.

        Raises:
            NotFound: there is none.
        """
        self._writer.call(
            lambda batch: self._clear(batch, workspace_id, agent_id, by), workspace_id, BUDGETS
        )

    def get(self, workspace_id: str, agent_id: str | None) -> BudgetView:
        """The budget of an agent or, without one, of the workspace.

        Raises:
            NotFound: there is none.
        """
        with self._database.reading() as connection:
            return _found(connection.execute, workspace_id, budget_id(agent_id))

    def list(self, workspace_id: str) -> list[BudgetView]:
        """All budgets of a workspace, by id."""
        query = (
            sa.select(_budgets)
            .where(_budgets.c.workspace_id == workspace_id, _budgets.c.limits_json.is_not(None))
            .order_by(_budgets.c.id)
        )
        with self._database.reading() as connection:
            return [_view(row) for row in connection.execute(query).mappings()]

    def _set(
        self,
        batch: Batch,
        workspace_id: str,
        agent_id: str | None,
        limits: BudgetLimits,
        by: str,
    ) -> BudgetView:
        if agent_id is not None and not is_registered(batch.read, workspace_id, agent_id):
            raise NotFound("no such agent", code="agent_not_found")
        wanted = budget_id(agent_id)
        before = _row(batch.read, workspace_id, wanted)
        limits_json = encode(asdict(limits)).decode()
        if before is not None and before["limits_json"] == limits_json:
            return _view(before)
        version = 1 if before is None else before["version"] + 1
        values = {"limits_json": limits_json, "version": version, "updated_ms": batch.now_ms}
        if before is None:
            batch.insert(_budgets, {"workspace_id": workspace_id, "id": wanted, **values})
        else:
            batch.update(_changed(workspace_id, wanted, values))
        batch.record(
            workspace_stream(workspace_id),
            "budget.set",
            {
                "budget": wanted,
                "limits": asdict(limits),
                "version": version,
                "by": by,
            },
        )
        refound(batch, workspace_id, wanted, in_force=True)
        return BudgetView(wanted, limits, version, batch.now_ms)

    def _clear(self, batch: Batch, workspace_id: str, agent_id: str | None, by: str) -> None:
        wanted = budget_id(agent_id)
        row = _row(batch.read, workspace_id, wanted)
        if row is None or row["limits_json"] is None:
            raise NotFound("no such budget", code="budget_not_found")
        version = row["version"] + 1
        # The row stays, so that no version is ever given twice.
        values = {"limits_json": None, "version": version, "updated_ms": batch.now_ms}
        batch.update(_changed(workspace_id, wanted, values))
        batch.record(
            workspace_stream(workspace_id),
            "budget.cleared",
            {"budget": wanted, "version": version, "by": by},
        )
        refound(batch, workspace_id, wanted, in_force=False)


def _changed(workspace_id: str, wanted: str, values: Mapping[str, Any]) -> sa.Update:
    return (
        sa.update(_budgets)
        .where(_budgets.c.workspace_id == workspace_id, _budgets.c.id == wanted)
        .values(**values)
    )


def _row(read: Read, workspace_id: str, wanted: str) -> Mapping[Any, Any] | None:
    query = sa.select(_budgets).where(
        _budgets.c.workspace_id == workspace_id, _budgets.c.id == wanted
    )
    return read(query).mappings().first()


def _found(read: Read, workspace_id: str, wanted: str) -> BudgetView:
    row = _row(read, workspace_id, wanted)
    if row is None or row["limits_json"] is None:
        raise NotFound("no such budget", code="budget_not_found")
    return _view(row)


def _view(row: Mapping[Any, Any]) -> BudgetView:
    limits = read_limits(row["id"], row["limits_json"])
    return BudgetView(row["id"], limits, row["version"], row["updated_ms"])
