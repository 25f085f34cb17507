"""The life of an anchor.

    written down ──> sent ──mined──> mined ──confirmed──> final
                      ^                │                    │
                      └────────────────┴────────────────────┘  a reorganisation took it away
    any of them ──> forgotten, once none of its transactions can be mined any more: the contract
                    refused it, or its nonce was taken. That makes room for another anchor.

An anchor is written down before it is sent, and offered to the chain again until it is mined. All
its transactions have one nonce, so that at most one of them is mined; those with a higher fee are
sent when it waits for long, and the earlier ones are remembered, because any may be the one.

Where the log has to be opened again, its opening lives the same life: it is the anchor of size 0.
"""

from typing import Literal

from engine.chain.gateway import Receipt

State = Literal["sent", "mined", "final"]


def state_of(
    receipt: Receipt | None, *, waits: bool, head: int, confirmations: int
) -> State | None:
    """Where an anchor stands; None if it is to be forgotten.

    That is a function of what the chain says now and of nothing else, whatever happened before:
    `receipt` is of the one of its transactions that was mined, if one was, `waits` whether one can
    still be, `head` the number of the newest block.
    """
    if receipt is None:
        return "sent" if waits else None
    if not receipt.succeeded:
        return None
    return "final" if head >= receipt.block_number + confirmations else "mined"


def is_slow(sent_ms: int, now_ms: int, *, replaced: int, patience_ms: int) -> bool:
    """Whether another transaction with a higher fee is due, after `replaced` ones."""
    return now_ms - sent_ms >= patience_ms * (replaced + 1)
