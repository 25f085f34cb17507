"""Who has payments signed: `Client` and `AsyncClient` do."""

from typing import Protocol

from tallystick.paying.order import Order, Receipt, Signed


class Buyer(Protocol):
    """Asks a Tallystick server, with a session's token."""

    def buy(self, order: Order) -> Signed:
        """Have an order signed; raises `PaymentDenied` and `ApiError`."""

    def report(self, signed: Signed, receipt: Receipt | None) -> str | None:
        """Tell what the resource said; returns the state of the settlement, if it can be told."""


class AsyncBuyer(Protocol):
    """The same on asyncio."""

    async def buy(self, order: Order) -> Signed:
        """Have an order signed; raises `PaymentDenied` and `ApiError`."""

    async def report(self, signed: Signed, receipt: Receipt | None) -> str | None:
        """Tell what the resource said; returns the state of the settlement, if it can be told."""
