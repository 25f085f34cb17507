"""Somebody who meets a 402 and asks the gate; and what is checked of every signature."""

import json
from typing import Any

from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.address import to_checksum_address
from x402.http.utils import decode_payment_signature_header
from x402.schemas import PaymentPayload

from engine.audit.binding import payment_nonce
from engine.audit.replay import Replay
from engine.chain import contracts, sender
from engine.fsck.check import check as fsck
from engine.payments.gate import Signed
from engine.payments.token_domain import read_token_domain
from engine.sessions.session import SessionView
from tests.ledger.oracle import query
from tests.world import WORKSPACE, World, records_of

SHOP = "0x" + "5b" * 20
OTHER_SHOP = "0x" + "0c" * 20
URL = "https://api.shop.test/report?day=7"
CENT = 10_000
"""A cent of test USDC in its smallest unit, which is a micro-USD too."""


def offer(world: World, units: int = CENT, **changes: Any) -> dict[str, Any]:
    """One entry of `accepts`, in the test USDC."""
    usdc = world.engine.token("USDC", None)
    assert usdc is not None
    return {
        "scheme": "exact",
        "network": usdc.chain,
        "asset": usdc.asset.rpartition(":")[2],
        "amount": str(units),
        "payTo": SHOP,
        "maxTimeoutSeconds": 300,
        "extra": {"name": "not what the contract says", "version": "9"},
        **changes,
    }


def required(*offers: Any) -> dict[str, Any]:
    """The body of a 402 answer."""
    return {"x402Version": 2, "accepts": list(offers), "resource": {"url": URL}}


def ask_gate(world: World, view: SessionView, *offers: Any, **how: Any) -> Any:
    """Ask for a signature: what the gate answers."""
    return world.engine.gate.pay(view.id, required(*offers), how.pop("resource", URL), **how)


def signed(world: World, view: SessionView, *offers: Any, **how: Any) -> Signed:
    """Ask for one and get it; it is checked as a whole."""
    found = ask_gate(world, view, *(offers or (offer(world),)), **how)
    assert isinstance(found, Signed), found.decision
    check(world, view, found)
    return found


def check(world: World, view: SessionView, found: Signed) -> None:
    """What is signed is what the log says was allowed, field by field, by the session's key."""
    records = records_of(world, view)
    decided = records[found.payment.number]
    (told,) = [
        record
        for record in records
        if record.kind == "payment.signed" and record.body["payment"] == found.payment.id
    ]
    assert decided.body["decision"]["allowed"] is True
    terms, sent = decided.body["request"]["terms"], found.payload["payload"]["authorization"]
    assert sent == {
        "from": view.grant.session_key,
        "to": terms["pay_to"],
        "value": terms["amount"],
        "validAfter": str(told.body["valid_after_s"]),
        "validBefore": str(told.body["valid_before_s"]),
        "nonce": "0x" + payment_nonce(decided.hash, bytes.fromhex(told.body["salt"])).hex(),
    }
    assert told.body["valid_before_s"] * 1000 - told.time_ms <= terms["timeout_s"] * 1000
    accepted = found.payload["accepted"]
    assert (accepted["amount"], accepted["payTo"].lower()) == (terms["amount"], terms["pay_to"])
    assert signer(world, found) == view.grant.session_key
    parsed = decode_payment_signature_header(found.header)  # the SDK's own reading
    assert isinstance(parsed, PaymentPayload)
    assert parsed.payload == found.payload["payload"]
    assert json.loads(parsed.model_dump_json(by_alias=True))["accepted"] == accepted


def signer(world: World, found: Signed) -> str:
    """Whose signature it is, in the domain that the token contract tells."""
    token = found.payload["accepted"]["asset"].lower()
    data = found.authorization.typed_data(read_token_domain(world.engine.gateway, token))
    return str(
        Account.recover_message(
            encode_typed_data(full_message=data),
            signature=found.payload["payload"]["signature"],
        )
    ).lower()


def kinds(world: World, view: SessionView) -> list[str]:
    """Those about payments and approvals."""
    return [each.kind for each in records_of(world, view) if "session." not in each.kind]


def transact(world: World, token: str, function: str, *arguments: Any) -> bool:
    """Call the test USDC as the operator; whether it succeeded."""
    data = contracts.call_data(contracts.TEST_USDC, function, *arguments)
    engine = world.engine
    sent = sender.send(engine.gateway, engine.deployment.operator, to=token, data=data)
    return sender.wait(engine.gateway, sent, timeout_s=30, poll_s=0.01).succeeded


def settle_on_chain(world: World, found: Signed) -> None:
    """Somebody submits what was signed, to a token that the key has enough of.

    Raises:
        CallReverted: the token refuses it.
    """
    wire, token = found.authorization.wire, found.payload["accepted"]["asset"]
    payer, payee = (to_checksum_address(wire[name]) for name in ("from", "to"))
    assert transact(world, token, "mint", payer, int(wire["value"]))
    assert transact(
        *(world, token, "transferWithAuthorization", payer, payee),
        *(int(wire[name]) for name in ("value", "validAfter", "validBefore")),
        found.authorization.nonce,
        bytes.fromhex(found.payload["payload"]["signature"][2:]),
    )


def settled(world: World, found: Signed, state: Any = "captured") -> None:
    """The chain ended it, as who watches the chain would say."""
    block = {"network": found.settlement.network, "block_number": 7, "block_hash": "0x" + "b7" * 32}
    told: dict[str, Any] = {**block, "block_time_s": found.authorization.valid_before_s}
    if state == "captured":
        told = {
            **block,
            "asset": found.settlement.asset,
            "tx_hash": "0x" + "7a" * 32,
            "log_index": 2,
            "amount": str(found.authorization.amount),
            "to": found.authorization.pay_to,
        }
    engine, session_id = world.engine, found.payment.session_id
    engine.writer.call(
        lambda batch: engine.paying.settle(batch, found.payment.id, state, told), session_id
    )


def accepted(world: World, found: Signed) -> None:
    """An operator ended it, whatever the chain shows."""
    told = {
        "network": found.settlement.network,
        "accepted_by": "key_1",
        "reason": "the token took a fee",
        "contradiction": "99 was paid in place of 100",
        "transactions": ["0x" + "7a" * 32],
        "block_number": 7,
        "block_hash": "0x" + "b7" * 32,
        "block_time_s": found.authorization.valid_before_s + 1,
    }
    engine, payment = world.engine, found.payment
    engine.writer.call(
        lambda batch: engine.paying.accept(batch, payment.id, told), payment.session_id
    )


def three_signed(world: World) -> SessionView:
    """A session: created · decided · signed · decided · signed · captured · expired, and then
    decided · signed · captured by an operator."""
    view = world.session()
    both = [signed(world, view, offer(world, CENT * n)) for n in (1, 2)]
    settled(world, both[0])
    settled(world, both[1], "expired")
    accepted(world, signed(world, view, offer(world, CENT * 3)))
    return view


def expect_consistent(world: World) -> None:
    """The records of every session replay, and fsck finds nothing."""
    for (session_id,) in query(world.store, "SELECT id FROM sessions"):
        view = world.engine.sessions.get(WORKSPACE, session_id)
        Replay(view.grant, view.grant.hash()).feed(records_of(world, view))
    assert fsck(world.store).findings == ()
