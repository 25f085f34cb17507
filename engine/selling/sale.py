"""A payment that was taken: whose it is, how far it went, and that nobody else has it."""

from dataclasses import replace

import structlog
from x402.schemas import SettleResponse

from engine.errors import Unavailable
from engine.selling.grant import Grant
from engine.selling.presented import Presented
from engine.selling.refusals import PaymentInProgress
from engine.storage.grants import Grants
from engine.storage.payer import Payer
from engine.storage.session import Session, Storage

_ELSEWHERE = "this payment is being answered elsewhere: send it again, and no other"
_log = structlog.get_logger(__name__)


class Sale:
    """A payment that was taken, and is for who has this alone. Made by `Till.open`."""

    def __init__(
        self,
        storage: Storage,
        grants: Grants,
        presented: Presented,
        grant: Grant,
        lease_ms: int,
    ) -> None:
        self._grants = grants
        self._lease_ms = lease_ms
        self.presented = presented
        self.grant = grant
        self.session: Session = storage.session(presented.payer)
        self.reservation = presented.id

    @property
    def payer(self) -> Payer:
        """Who was debited: the signer of what was settled."""
        return self.presented.payer

    @property
    def transaction(self) -> str:
        """What paid it."""
        assert self.grant.transaction is not None
        return self.grant.transaction

    @property
    def settlement(self) -> SettleResponse:
        """What is told to who paid: x402's `SettlementResponse`."""
        return SettleResponse(
            success=True,
            payer=self.payer.address,
            transaction=self.transaction,
            network=self.payer.chain,
            amount=str(self.presented.authorization.amount),
        )

    async def hold(self) -> None:
        """Be sure, before anything is handed out, that nobody else has this, nor will for a minute.

        Raises:
            PaymentInProgress: it took too long, and somebody else does.
        """
        kept, now_ms = await self._grants.read(self.reservation)
        if kept != self.grant.body:
            raise PaymentInProgress(_ELSEWHERE)
        if now_ms + self._lease_ms // 2 > self.grant.held_until_ms:
            until_ms = now_ms + self._lease_ms
            await self._become(replace(self.grant, held_until_ms=until_ms))

    async def used(self) -> None:
        """What was bought was handed out: the payment buys nothing more.

        Where that cannot be written down, the same payment is answered again once its time is up.
        """
        try:
            await self._become(self.grant.used())
        except Unavailable as error:
            _log.error("grant_not_noted", payment=self.reservation, reason=error.message)

    async def left(self) -> None:
        """What was bought was not handed out: the same payment goes on from here."""
        await self._become(self.grant.left())

    async def settled(self, transaction: str) -> None:
        """It is paid. For `Till`."""
        await self._become(self.grant.settled(transaction))

    async def drop(self) -> None:
        """Nothing was paid, and nothing is left of it. For `Till`."""
        await self._become(None)
        await self.session.release(self.reservation)

    async def _become(self, grant: Grant | None) -> None:
        """Raises PaymentInProgress: it took too long, and somebody else has it now."""
        body = None if grant is None else grant.body
        if not await self._grants.replace(self.reservation, self.grant.body, body):
            raise PaymentInProgress(_ELSEWHERE)
        self.grant = self.grant if grant is None else grant
