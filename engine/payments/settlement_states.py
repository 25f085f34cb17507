"""How far the chain is with a signed payment: what follows from the blocks, and nothing else.

    signed ──> submitted | unknown        as reported, which nobody need believe
       └──> pending ──> confirmed ──> final        so many blocks on top; then it is captured
                └──> orphaned        it was seen, and a reorganisation took it away
    failed        the transaction that is known reverted; the signature can still be used
    expired       no block can use it any more, and none did
    accepted      what the chain shows contradicts what was signed, and an operator ended it

It is `pending` from when we sent a transaction ourselves: then its hash is written down before it
is sent. Of what others send that is known only once it is in a block, because a node's pool proves
nothing.

Whether the nonce was used is what the token's `AuthorizationUsed` (EIP-3009) says, in a block that
is on the chain; who was paid how much is what its `Transfer` (ERC-20) says, in the same
transaction. No receipt's status and no report counts. What contradicts itself is never final.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine.chain.contracts import AUTHORIZATION_USED, ERC20_TRANSFER
from engine.chain.gateway import Log
from engine.ledger.settlements import State

Answer = Literal["used", "unused", "unreadable"]
"""What the token itself says of a nonce (`authorizationState`), after a block that is final."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A signed payment that is open. `token` is an address, `amount` in its smallest unit.

    `from_block` is the chain's newest block when it was signed.
    """

    session_id: str
    number: int
    token: str
    payer: str
    pay_to: str
    amount: int
    nonce: bytes
    valid_before_s: int
    from_block: int

    @property
    def key(self) -> tuple[str, int]:
        """Which payment it is of."""
        return self.session_id, self.number


@dataclass(frozen=True, slots=True)
class Use:
    """A transaction in which the nonce was used, and the `Transfer` that belongs to that.

    `to` and `amount` are None where no `Transfer` does; `log_index` is then that of
    `AuthorizationUsed`.
    """

    tx_hash: bytes
    block_number: int
    block_hash: bytes
    log_index: int
    to: str | None
    amount: int | None

    def to_json(self) -> dict[str, Any]:
        """For evidence."""
        return {
            "tx_hash": "0x" + self.tx_hash.hex(),
            "block_number": self.block_number,
            "block_hash": "0x" + self.block_hash.hex(),
            "log_index": self.log_index,
            "to": self.to,
            "amount": None if self.amount is None else str(self.amount),
        }


@dataclass(frozen=True, slots=True)
class Shown:
    """What the chain shows of one payment.

    `final_time_s` is the time of the newest block that is final, None if there is none. `told` is
    what the token says, which is asked only when the time of a signature is over; `reverted` is
    whether the transaction that is known did, asked only while no use is seen. None: not asked.
    """

    uses: Sequence[Use]
    head_number: int
    final_time_s: int | None
    told: Answer | None = None
    reverted: bool | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the chain is. `contradiction` is in words; while there is one nothing is final."""

    state: State
    use: Use | None = None
    contradiction: str | None = None


def is_over(signed: Signed, final_time_s: int | None) -> bool:
    """Whether no block that is still to be final can use the signature.

    EIP-3009 takes it in a block whose time is below `valid_before_s`; times never decrease.
    """
    return final_time_s is not None and final_time_s > signed.valid_before_s


def is_said_out(signed: Signed, shown: Shown, *, finality: int) -> bool:
    """Whether the chain has said all of a payment that it will ever say."""
    final_number = shown.head_number - finality
    used_in = [use.block_number for use in shown.uses]
    return is_over(signed, shown.final_time_s) and max(used_in, default=0) <= final_number


def standing(
    signed: Signed,
    state: State,
    shown: Shown,
    *,
    seen: bool,
    confirmations: int,
    finality: int,
) -> Standing:
    """How far the chain is with a payment that was at `state`; both depths are in blocks on top.

    `seen` is whether it was in a block then.
    """
    if not shown.uses:
        return _unused(signed, state, shown, seen)
    use = shown.uses[0]
    contradiction = _contradiction(signed, shown.uses)
    depth = shown.head_number - use.block_number
    if depth < confirmations:
        return Standing("pending", use, contradiction)
    if depth < finality or contradiction is not None:
        return Standing("confirmed", use, contradiction)
    return Standing("final", use)


def _unused(signed: Signed, state: State, shown: Shown, seen: bool) -> Standing:
    contradiction = None
    if is_over(signed, shown.final_time_s):
        if shown.told == "unused":
            return Standing("expired")
        if shown.told == "used":
            contradiction = "the token says that it was used, and no event of it tells so"
        elif shown.told == "unreadable":
            contradiction = "the token does not say whether it was used"
    if shown.reverted:
        return Standing("failed", None, contradiction)
    if seen:
        return Standing("orphaned", None, contradiction)
    if state == "failed" and shown.reverted is False:
        return Standing("submitted", None, contradiction)
    return Standing(state, None, contradiction)


def _contradiction(signed: Signed, uses: Sequence[Use]) -> str | None:
    if len(uses) > 1:
        return f"its nonce was used {len(uses)} times"
    (use,) = uses
    if use.amount is None:
        return "its nonce was used, and no one Transfer of the payer's belongs to that"
    if (use.to, use.amount) != (signed.pay_to, signed.amount):
        return f"{use.amount} was paid to {use.to} in place of {signed.amount} to {signed.pay_to}"
    return None


def uses_of(signed: Signed, block: Iterable[Log]) -> list[Use]:
    """The uses of a nonce in one block, of which these are the events, in their order.

    One transaction may use several nonces of one payer. Which `Transfer` belongs to which use is
    not written in them: the first to the first and so on, if there are as many, else none to any.
    """
    payer = bytes.fromhex(signed.payer[2:]).rjust(32, b"\0")
    ours = [
        log
        for log in block
        if log.address == signed.token and len(log.topics) > 1 and log.topics[1] == payer
    ]
    found = []
    for tx_hash in dict.fromkeys(log.tx_hash for log in ours):
        logs = [log for log in ours if log.tx_hash == tx_hash]
        used = [log for log in logs if _is(log, AUTHORIZATION_USED, topics=3, data=0)]
        moved = [log for log in logs if _is(log, ERC20_TRANSFER, topics=3, data=32)]
        paired = len(used) == len(moved)
        for at, log in enumerate(used):
            if log.topics[2] != signed.nonce:
                continue
            transfer = moved[at] if paired else None
            found.append(
                Use(
                    tx_hash=tx_hash,
                    block_number=log.block_number,
                    block_hash=log.block_hash,
                    log_index=(transfer or log).log_index,
                    to=None if transfer is None else "0x" + transfer.topics[2][12:].hex(),
                    amount=None if transfer is None else int.from_bytes(transfer.data),
                )
            )
    return found


def _is(log: Log, event: bytes, *, topics: int, data: int) -> bool:
    return log.topics[0] == event and len(log.topics) == topics and len(log.data) == data
