"""What a client does beside sessions and payments: what operators set, watch and decide."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from tallystick import calls
from tallystick.calls import Answer, Call, query_of
from tallystick.defaults import PAGE_MAX
from tallystick.exchange import part
from tallystick.fields import BudgetFields
from tallystick.intents import Intents
from tallystick.keys import AgentKeys, OperatorKeys
from tallystick.pages import each_of_pages
from tallystick.webhooks import Webhooks

if TYPE_CHECKING:
    from tallystick.answers import (
        ActAnswer,
        AgentAnswer,
        AnalyticsAnswer,
        AnchorAnswer,
        ApprovalAnswer,
        ApprovalsPage,
        BacktestAnswer,
        BudgetAnswer,
        DeploymentAnswer,
        ExplainedPayment,
        PaymentAnswer,
        ReconciliationAnswer,
        ReconciliationState,
        RegisteredAgent,
        ResumedChain,
    )

REPLAY_TIMEOUT_S = 600.0
"""What replays a session's log, or reads a chain, takes longer the more there is of it."""


class Oversight(ABC):
    """Part of `Client`. Every method may raise `ApiError`."""

    @abstractmethod
    def ask(self, call: Call[Answer]) -> Answer:
        """Ask the server."""

    def deployment(self) -> "DeploymentAnswer":
        """The chain, the contracts and the log of the server."""
        return self.ask(Call("GET", "/api/v1/deployment"))

    def register_agent(self, agent_id: str, name: str | None = None) -> "RegisteredAgent":
        """Register an agent; registering it again changes nothing."""
        return self.ask(Call("POST", "/api/v1/agents", {"agent_id": agent_id, "name": name}))

    def agents(self) -> "list[AgentAnswer]":
        """The agents of the workspace."""
        return self.ask(Call("GET", "/api/v1/agents", kind=list))

    def set_budget(
        self, agent_id: str | None = None, **limits: Unpack[BudgetFields]
    ) -> "BudgetAnswer":
        """Limit what an agent, or the workspace, spends in all sessions, in place of all limits."""
        return self.ask(Call("PUT", _budget_path(agent_id), limits, once=True))

    def budgets(self) -> "list[BudgetAnswer]":
        """The budgets of the workspace and of its agents."""
        return self.ask(Call("GET", "/api/v1/budgets", kind=list))

    def budget(self, agent_id: str | None = None) -> "BudgetAnswer":
        """The budget of an agent or, without one, of the workspace."""
        return self.ask(Call("GET", _budget_path(agent_id)))

    def clear_budget(self, agent_id: str | None = None) -> None:
        """Lift a budget."""
        self.ask(Call("DELETE", _budget_path(agent_id), once=True))

    def accept_settlement(self, payment_id: str, reason: str) -> "PaymentAnswer":
        """Count a payment that the chain contradicts as spent, once it can say nothing else."""
        path = f"/api/v1/ai/payments/{part(payment_id)}/settlement/accept"
        return self.ask(
            Call("POST", path, {"reason": reason}, timeout_s=REPLAY_TIMEOUT_S, once=True)
        )

    def explanation(self, payment_id: str) -> "ExplainedPayment":
        """Why a payment was decided as it was: every rule, and whether it comes out the same."""
        path = f"/api/v1/payments/{part(payment_id)}/explanation"
        return self.ask(Call("GET", path, timeout_s=REPLAY_TIMEOUT_S, once=True))

    def backtest(self, session_id: str, draft: Mapping[str, Any]) -> "BacktestAnswer":
        """What a draft of the policy would have decided on the session's log."""
        path = calls.of_session(session_id, "backtest")
        return self.ask(
            Call("POST", path, draft, timeout_s=REPLAY_TIMEOUT_S, once=True, missable=True)
        )

    def each_act(
        self,
        *,
        actor: str | None = None,
        action: Sequence[str] = (),
        start_date: str | None = None,
        end_date: str | None = None,
    ) -> "Iterator[ActAnswer]":
        """All administrative acts on the record that match, the newest first; see `GET
        /api/v1/audit`."""
        asked = {"actor": actor, "action": action or None}
        asked |= {"start_date": start_date, "end_date": end_date}
        return each_of_pages(
            lambda page: self.ask(
                Call("GET", "/api/v1/audit" + query_of(page=page, limit=PAGE_MAX, **asked))
            )
        )

    @property
    def webhooks(self) -> Webhooks:
        """Where events are sent."""
        return Webhooks(self.ask)

    @property
    def keys(self) -> OperatorKeys:
        """The keys of the workspace's operators."""
        return OperatorKeys(self.ask)

    @property
    def intents(self) -> Intents:
        """Payments in two steps."""
        return Intents(self.ask)

    def agent_analytics(self, *, days: int = 30, agent_id: str | None = None) -> "AnalyticsAnswer":
        """What was paid in the last `days` (UTC; at most 90), by all agents or by one.

        `success_rate` is from 0 to 1, amounts are dollars.
        """
        asked = query_of(days=days, agent_id=agent_id)
        return self.ask(Call("GET", "/api/v1/analytics/agents" + asked))

    @property
    def agent_keys(self) -> AgentKeys:
        """The keys of the software of agents."""
        return AgentKeys(self.ask)

    def anchor(self) -> "AnchorAnswer":
        """Sign a checkpoint of the log and anchor it now."""
        return self.ask(Call("POST", "/api/v1/log/anchor"))

    def resume_chain(self) -> "ResumedChain":
        """Have all of the chain read again, after a reorganisation that was too deep."""
        return self.ask(Call("POST", "/api/v1/chain/resume", once=True))

    def reconcile(self, *, from_block: int | None = None) -> "ReconciliationAnswer":
        """Compare ledger and chain now, the whole chain or from a block on; see `open`."""
        path = "/api/v1/reconciliation" + query_of(from_block=from_block)
        return self.ask(Call("POST", path, timeout_s=REPLAY_TIMEOUT_S, once=True, missable=True))

    def reconciliation(self) -> "ReconciliationState":
        """The open discrepancies, the last reconciliation, and how far one has come."""
        return self.ask(Call("GET", "/api/v1/reconciliation"))

    def approvals(
        self,
        *,
        session_id: str | None = None,
        state: str | None = None,
        page: int = 1,
        limit: int = 20,
    ) -> "ApprovalsPage":
        """A page of at most 100 approvals, the newest first."""
        return self.ask(calls.approvals(session_id, state, page, limit))

    def each_approval(
        self, *, session_id: str | None = None, state: str | None = None
    ) -> "Iterator[ApprovalAnswer]":
        """All approvals that match, page by page, the newest first; each once."""
        return each_of_pages(
            lambda page: self.approvals(
                session_id=session_id, state=state, page=page, limit=PAGE_MAX
            )
        )

    def approval(self, approval_id: str) -> "ApprovalAnswer":
        """What a denied payment waits for (`approval_id` of the `ApiError`'s body); once granted
        it names the payment."""
        return self.ask(calls.approval(approval_id))

    def grant_approval(self, approval_id: str) -> "ApprovalAnswer":
        """Grant an approval; look at its `state`: the payment is made, refused, or waits for more
        grants."""
        return self.ask(calls.decide_approval(approval_id, "grant"))

    def deny_approval(self, approval_id: str, reason: str | None = None) -> "ApprovalAnswer":
        """Deny an approval."""
        return self.ask(calls.decide_approval(approval_id, "deny", {"reason": reason}))


def _budget_path(agent_id: str | None) -> str:
    """Where the budget of an agent is or, without one, that of the workspace."""
    if agent_id is None:
        return "/api/v1/budgets/workspace"
    return f"/api/v1/agents/{part(agent_id)}/budget"
