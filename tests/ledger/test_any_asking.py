"""In no order of asking, reporting, granting and failing are there two signatures of a payment,
or one that no committed record tells of."""

import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.clock import ManualClock
from engine.errors import TallystickError
from engine.ledger.batch import Batch
from engine.payments.authorization import Authorization
from engine.payments.gate import Signed
from tests.ledger.approving import ABOVE_50, first_key, grant, shown
from tests.ledger.paying import ask_gate, offer, settled
from tests.world import USD, WORKSPACE, World, records_of

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ("ask", "ask", "ask", "fail", "report", "settle", "grant", "wait", "forget")
        ),
        st.sampled_from((None, "a", "b")),
        st.sampled_from((1, 2, 60)),
    ),
    min_size=1,
    max_size=14,
)


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_a_payment_is_signed_once_and_only_from_the_log(
    world: World, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, steps: Any
) -> None:
    view, by = world.session(ABOVE_50), first_key(world)
    signatures: dict[str, set[bytes]] = {}
    open_: dict[str, Signed] = {}
    waiting: list[str] = []
    sign = Authorization.sign

    def noted(authorization: Authorization, *how: Any) -> bytes:
        committed = [each for each in records_of(world, view) if each.kind == "payment.signed"]
        (told,) = [each for each in committed if each.body["nonce"] == authorization.nonce.hex()]
        signature = sign(authorization, *how)
        signatures.setdefault(told.body["payment"], set()).add(signature)
        return signature

    with monkeypatch.context() as patched:
        patched.setattr(Authorization, "sign", noted)
        for step, key, dollars in steps:
            with contextlib.suppress(TallystickError), contextlib.ExitStack() as fault:
                if step == "fail":
                    failing = fault.enter_context(monkeypatch.context())
                    failing.setattr(Batch, "close", broken)
                if step in ("ask", "fail"):
                    found = ask_gate(world, view, offer(world, dollars * USD), key=key)
                    assert step == "ask"
                    if isinstance(found, Signed):
                        if found.payment.state == "held":
                            open_[found.payment.id] = found
                    elif found.approval_id is not None:
                        waiting.append(found.approval_id)
                elif step == "grant" and waiting:
                    grant(world, shown(world, waiting.pop()), by)
                elif step == "wait":
                    clock.advance(200_000)
                elif step == "forget":
                    world.engine.writer._forget_all()
                elif open_ and step in ("report", "settle"):
                    payment, last = open_.popitem()
                    if step == "settle":
                        settled(world, last, "captured" if dollars == 1 else "expired")
                    else:
                        world.engine.paying.report(WORKSPACE, payment, None).result()
    assert all(len(each) == 1 for each in signatures.values())
    told = [r.body["payment"] for r in records_of(world, view) if r.kind == "payment.signed"]
    assert len(told) == len(set(told))
    assert signatures.keys() <= set(told)


def broken(_batch: Batch) -> None:
    raise OSError("the disk is gone")
