"""What is recorded when an operator ends a payment that the chain contradicts; no input or output.

The budget of such a payment is held: what the chain shows is not what was signed, and what was
signed can not be captured as if it were. Once the chain has said all that it will, only somebody
who looks can end it. It counts as spent then: nobody gets budget back by saying so.
"""

from collections.abc import Mapping
from typing import Any

from engine.audit.signing import ACCEPTED_TRANSACTIONS_MAX
from engine.chain.gateway import BlockHeader
from engine.errors import Conflict
from engine.payments.settlement_states import Shown, Signed, Standing, is_said_out


def accepted(
    network: str,
    signed: Signed,
    now: Standing,
    shown: Shown,
    final: BlockHeader | None,
    *,
    finality: int,
    by: str,
    reason: str,
) -> Mapping[str, Any]:
    """How the record of its end tells it, see `Paying.accept`.

    `final` is the newest block that is final; `by` is the id of the operator's key.

    Raises:
        Conflict: `settlement_not_contradicted`, or `settlement_open`.
    """
    if now.contradiction is None:
        raise Conflict(
            f"the chain shows nothing against it: it is {now.state}, and ends by itself",
            code="settlement_not_contradicted",
            state=now.state,
        )
    if final is None or not is_said_out(signed, shown, finality=finality):
        raise Conflict(
            "the chain may still show something else: its signature is valid, or what used it is "
            "not final yet",
            code="settlement_open",
            valid_before_s=signed.valid_before_s,
            final_time_s=None if final is None else final.timestamp_s,
        )
    transactions = dict.fromkeys(f"0x{use.tx_hash.hex()}" for use in shown.uses)
    return {
        "network": network,
        "accepted_by": by,
        "reason": reason,
        "contradiction": now.contradiction,
        "transactions": list(transactions)[:ACCEPTED_TRANSACTIONS_MAX],
        "block_number": final.number,
        "block_hash": f"0x{final.hash.hex()}",
        "block_time_s": final.timestamp_s,
    }
