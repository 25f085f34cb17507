"""Questions to the real ledger, and its answers in plain words."""

from concurrent.futures import Future
from typing import Any

from engine.errors import TallystickError
from engine.ledger.approval import Approval
from engine.ledger.ask import Ask, ask
from engine.ledger.ledger import Ledger
from engine.ledger.payment import Payment
from engine.policy.decision import PaymentRequest
from tests.simulation.books import Question
from tests.world import WORKSPACE


def submit(ledger: Ledger, group: list[Question]) -> "Future[Any]":
    """Ask one question, or many payments at once; nobody waits for the answer."""
    asked = group[0]
    if len(group) > 1:
        return ledger.authorise_many([_payment(each) for each in group])
    if asked.what == "pay":
        each = _payment(asked)
        return ledger.authorise(
            each.session_id,
            each.request,
            memo={name: value for name, value in each.memo.items() if name != "capture"},
            key=each.key,
            capture=each.capture,
        )
    if asked.what == "capture":
        return ledger.capture(WORKSPACE, asked.payment, asked.amount)
    if asked.what == "void":
        return ledger.void(WORKSPACE, asked.payment)
    return ledger.remaining(asked.session)


def _payment(asked: Question) -> Ask:
    body = dict(asked.body)
    memo = {name: value for name, value in asked.memo.items() if name != "capture"}
    amount = body.pop("amount_micro_usd")
    request = PaymentRequest(amount=amount, **body)
    return ask(asked.session, request, memo=memo, key=asked.key, capture=asked.memo["capture"])


def answers_of(future: "Future[Any]") -> list[dict[str, Any]]:
    """The answers of a future in plain words."""
    error = future.exception()
    answer = error if error is not None else future.result()
    return [_in_words(each) for each in (answer if isinstance(answer, list) else [answer])]


def approval_in_words(approval: Approval) -> dict[str, Any]:
    """What an operator is told of an approval."""
    return {
        "state": approval.state,
        "keys": [given.key_id for given in approval.grants],
        "code": approval.code,
        "payment": approval.payment_id,
    }


def _in_words(answer: Any) -> dict[str, Any]:
    if isinstance(answer, Payment):
        return {
            "id": answer.id,
            "decision": answer.decision,
            "state": answer.state,
            "captured": answer.captured,
            "decided_ms": answer.decided_ms,
            "replayed": answer.replayed,
            "approval": answer.approval_id,
        }
    if isinstance(answer, TallystickError):
        return {"error": answer.code, **answer.details}
    if isinstance(answer, Exception):
        raise answer
    return dict(answer.to_json())


def short(answer: dict[str, Any]) -> Any:
    """What two runs of a seed compare of it; the decision is in its record."""
    return [value for name, value in answer.items() if name != "decision"]
