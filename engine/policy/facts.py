"""What a rule of the policy looks at, and what it answers."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from engine.policy.budgets import Budget
from engine.policy.decision import Evidence, PaymentRequest, Policy, Standing
from engine.policy.spending import Spending


class Facts(msgspec.Struct):
    """All that a rule may look at. `used` is micro-USD in each window of `spending` at `now_ms`."""

    policy: Policy
    standing: Standing
    spending: Spending
    used: tuple[int, ...]
    request: PaymentRequest
    now_ms: int
    chain_time_ms: int
    budgets: Sequence[Budget]
    approved: bool


class Finding(NamedTuple):
    """Why a rule denies: one sentence for people, and the facts behind it."""

    reason: str
    evidence: Evidence
