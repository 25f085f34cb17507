"""The types of what a server answers, for `if TYPE_CHECKING: from tallystick.answers import …`.

They are dictionaries, as they came. Amounts are dollars as JSON numbers, null where unlimited;
times are ISO 8601 in UTC. To import this module brings the server along: a client does not do so.
"""

from api.rest.analytics_answers import AnalyticsAnswer
from api.rest.answers import (
    AgentAnswer,
    AnchorAnswer,
    ApprovalAnswer,
    ApprovalsPage,
    CreatedSession,
    DeploymentAnswer,
    LimitsAnswer,
    PaymentAnswer,
    PaymentsPage,
    RegisteredAgent,
    ResumedChain,
    SessionAnswer,
)
from api.rest.budget_answers import BudgetAnswer
from api.rest.explanation_answers import BacktestAnswer, ExplainedPayment, SimulatedPayment
from api.rest.intent_answers import CreatedIntent, IntentAnswer, IntentEventAnswer
from api.rest.key_answers import (
    ActAnswer,
    ActsPage,
    AgentKeyAnswer,
    ApiKeyAnswer,
    CreatedAgentKey,
    CreatedApiKey,
)
from api.rest.reconciliation_answers import ReconciliationAnswer, ReconciliationState
from api.rest.revocations import ManyRevoked
from api.rest.webhook_answers import (
    AttemptsPage,
    CreatedWebhook,
    RotatedWebhook,
    TriedWebhook,
    WebhookAnswer,
)

__all__ = [
    "ActAnswer",
    "ActsPage",
    "AgentAnswer",
    "AgentKeyAnswer",
    "AnalyticsAnswer",
    "AnchorAnswer",
    "ApiKeyAnswer",
    "ApprovalAnswer",
    "ApprovalsPage",
    "AttemptsPage",
    "BacktestAnswer",
    "BudgetAnswer",
    "CreatedAgentKey",
    "CreatedApiKey",
    "CreatedIntent",
    "CreatedSession",
    "CreatedWebhook",
    "DeploymentAnswer",
    "ExplainedPayment",
    "IntentAnswer",
    "IntentEventAnswer",
    "LimitsAnswer",
    "ManyRevoked",
    "PaymentAnswer",
    "PaymentsPage",
    "ReconciliationAnswer",
    "ReconciliationState",
    "RegisteredAgent",
    "ResumedChain",
    "RotatedWebhook",
    "SessionAnswer",
    "SimulatedPayment",
    "TriedWebhook",
    "WebhookAnswer",
]
