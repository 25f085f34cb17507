"""What one payment has bought, and how far that went. Pure: what is written down, and its states.

    nothing ──claim──> claimed ──settle──> settled ──answer──> used
       ^                  │
       └──────drop────────┘   it is sure that nothing was paid

A payment is claimed before it is settled, with the one request that it is for. Whoever works on it
holds it until a time; the same payment for the same request goes on from where it stood.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from engine.selling.refusals import (
    PaymentForAnother,
    PaymentInProgress,
    PaymentRefused,
    PaymentUsed,
)

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Grant:
    """`request` and `payment` are SHA-256 digests in hexadecimal: of what it is for, and of what
    was signed. `settling` is what has to be settled, while that is not known to be done. `holder`
    works on it until `held_until_ms`, by the clock of who keeps it; "" is nobody."""

    state: Literal["claimed", "settled", "used"]
    request: str
    payment: str
    settling: Mapping[str, Any] | None
    transaction: str | None = None
    holder: str = ""
    held_until_ms: int = 0

    @classmethod
    def read(cls, body: bytes) -> Self:
        """What `body` wrote."""
        told = json.loads(body)
        assert told.pop("format") == FORMAT, "grants of another release"
        return cls(**told)

    @property
    def body(self) -> bytes:
        """As it is kept."""
        return json.dumps({"format": FORMAT, **asdict(self)}).encode()

    def check(self, request: str, payment: str) -> None:
        """Whether this payment may go on, for this request.

        Raises:
            PaymentRefused: it was never signed so.
            PaymentForAnother: it came first for another request.
            PaymentUsed: it was answered.
        """
        if payment != self.payment:
            raise PaymentRefused("another payment with this nonce came before")
        if request != self.request:
            raise PaymentForAnother(
                "this payment came first for another request, and is for that one",
                transaction=self.transaction,
            )
        if self.state == "used":
            raise PaymentUsed("this payment was answered", transaction=self.transaction)

    def held(self, holder: str, now_ms: int, until_ms: int, *, gone: bool) -> Self:
        """Worked on by `holder`; `gone` says that whoever did is no more.

        Raises:
            PaymentInProgress: somebody else does.
        """
        if self.holder and self.held_until_ms > now_ms and not gone:
            raise PaymentInProgress("this payment is being answered: send it again, and no other")
        return replace(self, holder=holder, held_until_ms=until_ms)

    def left(self) -> Self:
        """Nobody works on it."""
        return replace(self, holder="", held_until_ms=0)

    def settled(self, transaction: str) -> Self:
        """It is paid, by this transaction."""
        assert self.state == "claimed"
        return replace(self, state="settled", settling=None, transaction=transaction)

    def used(self) -> Self:
        """It was answered."""
        assert self.state == "settled"
        return replace(self.left(), state="used")
