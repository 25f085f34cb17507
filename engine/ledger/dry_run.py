"""What an account says and does not do: what it would decide, and what its limits leave now."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import msgspec

from engine.ledger.account import Account
from engine.ledger.ask import read_request
from engine.ledger.payment import Payment
from engine.policy.budgets import Budget
from engine.policy.decide import Left, left, remaining
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


def told_now(account: Account, payment: Payment, now_ms: int, *, replayed: bool = False) -> Payment:
    """A payment as it is answered later than it was decided: with what is left by now."""
    spending, request = _spending(account, now_ms), read_request(payment.request)
    left = remaining(account.policy, spending, now_ms, request)
    return msgspec.structs.replace(payment, left=left, replayed=replayed)


def _spending(account: Account, now_ms: int) -> Spending:
    """What is used once the holds that are over are expired, which would write to the log.

    The sweep leaves few of them, so the copy is made rarely.
    """
    over = [
        hold.entry
        for hold in account.holds.values()
        if hold.expires_ms is not None and hold.expires_ms <= now_ms
    ]
    if not over:
        return account.spending
    spending, entries = deepcopy((account.spending, over))
    spending.windows.advance(now_ms)
    for entry in entries:
        spending.reduce(entry, 0)
    return spending


def left_of(account: Account, now_ms: int) -> Left:
    """All that a session's limits and conditions leave, and when what was denied last would fit."""
    found = left(account.policy, account.spending, now_ms)
    return replace(found, frees_ms=account.limit_frees_ms) if account.at_limit(now_ms) else found
