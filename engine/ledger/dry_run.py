"""A payment that is only tried: what would be decided, on the account as it is."""

from collections.abc import Sequence
from copy import deepcopy

from engine.ledger.account import Account
from engine.policy.budgets import Budget
from engine.policy.decision import PaymentRequest, Standing
from engine.policy.explain import Explanation, explain
from engine.policy.spending import Spending


def dry_run(
    account: Account,
    request: PaymentRequest,
    now_ms: int,
    chain_time_ms: int,
    budgets: Sequence[Budget] = (),
) -> Explanation:
    """Explain `request` as if it were decided at `now_ms`; nothing of the account is changed."""
    return explain(
        account.policy,
        account.standing if account.genuine else Standing.MISMATCH,
        _spending(account, now_ms),
        request,
        now_ms,
        chain_time_ms=chain_time_ms if account.on_chain else 0,
        budgets=budgets,
    )


def _spending(account: Account, now_ms: int) -> Spending:
    """What is used once the holds that are over are expired, which would write to the log.

    The sweep leaves few of them, so the copy is made rarely.
    """
    over = [hold.entry for hold in account.holds.values() if hold.expires_ms <= now_ms]
    if not over:
        return account.spending
    spending, entries = deepcopy((account.spending, over))
    spending.windows.advance(now_ms)
    for entry in entries:
        spending.reduce(entry, 0)
    return spending
