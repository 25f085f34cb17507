"""What an account says and does not do: what it would decide, and what its limits leave now."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import chain

import msgspec

from engine.ledger.account import Account
from engine.ledger.ask import read_request
from engine.ledger.payment import Payment
from engine.policy.budgets import Budget
from engine.policy.decide import Left, left, left_together, remaining, remaining_together
from engine.policy.decision import PaymentRequest, Remaining, Standing
from engine.policy.expiring import Expiry
from engine.policy.explain import Explanation, explain
from engine.policy.spending import Spending


def dry_run(
    account: Account,
    request: PaymentRequest,
    now_ms: int,
    chain_time_ms: int,
    budgets: Sequence[Budget] = (),
    expiries: Iterable[Expiry] = (),
) -> Explanation:
    """Explain `request` as if it were decided at `now_ms`; nothing of the account is changed.

    `expiries` are those of open holds in the budgets; its own are known to the account.
    """
    spending, own = _spending(account, now_ms)
    return explain(
        account.policy,
        account.standing if account.genuine else Standing.MISMATCH,
        spending,
        request,
        now_ms,
        chain_time_ms=chain_time_ms if account.on_chain else 0,
        budgets=budgets,
        expiries=chain(own, expiries),
    )


def told_now(
    account: Account,
    family: Budget | None,
    payment: Payment,
    now_ms: int,
    *,
    replayed: bool = False,
) -> Payment:
    """A payment with what is left by now, which is not always what its decision left."""
    left = remaining_of(account, family, now_ms, read_request(payment.request))
    return msgspec.structs.replace(payment, left=left, replayed=replayed)


def remaining_of(
    account: Account, family: Budget | None, now_ms: int, request: PaymentRequest | None
) -> Remaining:
    """What a session's limits leave; of one that delegates, after what its `family` spent."""
    spending, _ = _spending(account, now_ms)
    own = remaining(account.policy, spending, now_ms, request)
    return own if family is None else remaining_together(own, family.meters, now_ms, request)


def _spending(account: Account, now_ms: int) -> tuple[Spending, list[Expiry]]:
    """What is used once the holds that are over are expired, which would write to the log; and
    when the others are.

    The sweep leaves few that are over, so the copy is made rarely.
    """
    spending = account.spending
    expiring = [
        (hold.expires_ms, hold.entry)
        for hold in account.holds.values()
        if hold.expires_ms is not None
    ]
    if any(at_ms <= now_ms for at_ms, _ in expiring):
        spending, expiring = deepcopy((spending, expiring))
        spending.windows.advance(now_ms)
    later = []
    for at_ms, entry in expiring:
        if at_ms <= now_ms:
            spending.reduce(entry, 0)
        else:
            later.append(Expiry(at_ms, ((spending.windows, entry), *entry.parts)))
    return spending, later


def left_of(account: Account, family: Budget | None, now_ms: int, *, denied: bool) -> Left:
    """All that a session's limits and conditions leave, and when it is not at a limit any more: the
    window frees what was denied last, or the first of its holds expires, which ends it, too.

    It is at none where a budget above it denied that, and would not any more (`denied`).
    """
    found = left(account.policy, account.spending, now_ms)
    if family is not None:
        found = left_together(found, family.meters, now_ms)
    frees_ms = account.limit_frees_ms
    if frees_ms is None or not denied or not account.at_limit(now_ms):
        return found
    over = (hold.expires_ms for hold in account.holds.values() if hold.expires_ms is not None)
    return replace(found, frees_ms=min([frees_ms, *over]))
