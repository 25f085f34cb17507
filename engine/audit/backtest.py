"""Backtest: what a draft of a session's policy would have decided on the session's real log.

The same payments are asked at the same times; what the draft had already let through counts.

- What both allow is held, and captured, voided or expired, as it really was.
- What only the log allows, the draft denies: it counts for nothing, and nor does its capture.
- What only the draft allows was never captured, so nobody knows how much would have been: it counts
  as held and captured in full. An agent that was let through might also have asked for other things
  afterwards; that is not guessed.
- What waited for an approval in the log, and not under the draft, is one payment, however often it
  was asked for meanwhile and also when it was granted: it is not decided again, and ends as it
  really did.
- What the draft denied each time that it was asked for opened no approval: its grant counts for
  nothing.

What was lowered on the chain, and what binds sessions above, is in force under any draft.
Whatever a budget above the session denied stays denied by it, unless the draft denies it earlier.
What it would say to what only the draft allows is in no record of the session: those totals can be
more than such a budget lets through, and that is told.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from engine.audit.approvals import REQUIRED_CODE, names_granted
from engine.audit.lowering import LOWERED, UNLOWERED
from engine.audit.record import Record
from engine.audit.replay import ENDS, Replay
from engine.audit.restricting import RESTRICTED
from engine.audit.usage import Usage, decide_again, read_asked
from engine.grant import Grant
from engine.policy.decision import Policy
from engine.policy.limits import lowest

Draft = Callable[[Policy], Policy]
"""What would have been in force in place of a policy that was."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a decision came to."""

    code: str
    rule: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A payment on which log and draft differ; `amount` is micro-USD."""

    payment: str
    decided_ms: int
    amount: int
    recorded: Outcome
    drafted: Outcome


@dataclass(slots=True)
class Total:
    """How many payments were allowed, and the micro-USD of them that were captured or are held."""

    allowed: int = 0
    micro_usd: int = 0


@dataclass(frozen=True, slots=True)
class Backtest:
    """How a draft compares with the log of a session; the differences are in order.

    `budgets_above_unknown`: the draft alone allows payments, which a budget above the session, if
    there is one, might have denied.
    """

    decisions: int
    differences: tuple[Difference, ...]
    recorded: Total
    drafted: Total
    budgets_above_unknown: bool


def backtest(records: Iterable[Record], grant: Grant, draft: Draft) -> Backtest:
    """Decide all payments of a session's records under a draft.

    `draft` is given the policy of the grant, and then each that came from a change of restrictions
    or of the limits on the chain.

    Raises:
        ReplayError: the records do not follow from the grant, so they can tell nothing of a draft.
    """
    real = Replay(grant, grant.hash())
    usage = Usage(draft(real.usage.policy))
    recorded, drafted = Total(), Total()
    differences: list[Difference] = []
    allowed_by_both: dict[str, str] = {}
    """What the draft calls a payment that both allowed."""
    not_waiting: dict[str, str] = {}
    """The payments that the draft allowed without the approval that they were to wait for."""
    waiting: set[str] = set()
    """The approvals that the draft opens as well."""
    for record in records:
        real.feed((record,))
        body = record.body
        if record.kind in (RESTRICTED, LOWERED, UNLOWERED):
            policy, lowered = draft(real.usage.policy), (each.limits for each in real.lowered)
            usage.enforce(replace(policy, limits=lowest(policy.limits, *lowered)))
        elif record.kind == "payment.decided":
            asked, payment = read_asked(record), body["payment"]
            amount = asked.request.amount
            before, approval = asked.recorded, body["approval"]
            if before["allowed"]:
                recorded.allowed += 1
                recorded.micro_usd += amount
            if approval in not_waiting:
                if names_granted(body):
                    first = not_waiting.pop(approval)
                    if before["allowed"]:
                        allowed_by_both[payment] = first
                continue
            if names_granted(body) and approval not in waiting:
                continue
            after = decide_again(usage, asked)
            outcomes = Outcome(before["code"], before["rule"]), Outcome(after.code, after.rule)
            if outcomes[0] != outcomes[1]:
                differences.append(Difference(payment, asked.now_ms, amount, *outcomes))
            if after.code == REQUIRED_CODE and approval is not None:
                waiting.add(approval)
            if after.allowed:
                drafted.allowed += 1
                drafted.micro_usd += amount
                usage.hold(payment, asked.now_ms, asked.request)
                if before["allowed"]:
                    allowed_by_both[payment] = payment
                elif before["code"] == REQUIRED_CODE and approval is not None:
                    not_waiting[approval] = payment
        elif record.kind in ENDS:
            freed = body["held_micro_usd"] - body["captured_micro_usd"]
            recorded.micro_usd -= freed
            if known := allowed_by_both.get(body["payment"]):
                drafted.micro_usd -= freed
                usage.end(known, record.time_ms, body["captured_micro_usd"])
    only_drafted = drafted.allowed > len(allowed_by_both)
    return Backtest(real.decisions, tuple(differences), recorded, drafted, only_drafted)
