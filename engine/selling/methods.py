"""How a till can be paid: the currencies it takes, who settles each, and who sees its chain."""

from collections.abc import Sequence
from dataclasses import dataclass

from x402.schemas import PaymentRequirements

from engine.errors import Unavailable
from engine.selling.currency import Cost, Currency
from engine.selling.facilitators import Settler
from engine.selling.presented import requirements
from engine.selling.witness import Witness


@dataclass(frozen=True, slots=True)
class PaymentMethod:
    """One currency. Without a `witness` of its chain the facilitator is believed, and what it
    leaves unknown stays so.

    Raises:
        ValueError: the witness is of another chain.
    """

    currency: Currency
    facilitator: Settler
    witness: Witness | None = None

    def __post_init__(self) -> None:
        witness, network = self.witness, self.currency.network
        if witness is not None and witness.network != network:
            raise ValueError(f"the witness is of {witness.network}, not of {network}")


class PaymentMethods:
    """Those of one till, in the order in which they are offered.

    Raises:
        ValueError: there is none, or two are of one token.
    """

    def __init__(self, methods: Sequence[PaymentMethod]) -> None:
        self._by_asset: dict[str, PaymentMethod] = {}
        self.become(methods)

    def become(self, methods: Sequence[PaymentMethod]) -> None:
        """From now on have these. For any thread.

        Raises:
            ValueError: there is none, or two are of one token.
        """
        by_asset = {method.currency.asset: method for method in methods}
        if not methods or len(by_asset) < len(methods):
            raise ValueError("a till takes one currency or more, each once")
        self._by_asset = by_asset

    @property
    def currencies(self) -> tuple[Currency, ...]:
        """What is taken."""
        return tuple(method.currency for method in self._by_asset.values())

    @property
    def networks(self) -> tuple[str, ...]:
        """On which chains (CAIP-2 ids), each once."""
        return tuple(dict.fromkeys(currency.network for currency in self.currencies))

    def of(self, currency: Currency) -> PaymentMethod:
        """By which it is taken."""
        return self._by_asset[currency.asset]

    def offers(self, cost: Cost) -> list[PaymentRequirements]:
        """Every way of paying it.

        Raises:
            InvalidInput: it is no price.
            Unavailable: nothing is taken on any network that it names.
        """
        if isinstance(cost, int):
            return [requirements(currency, cost) for currency in self.currencies]
        found = [
            requirements(currency, each.micro_usd, each.pay_to)
            for each in cost
            for currency in self.currencies
            if each.network in (None, currency.network)
        ]
        if not found:
            named = " or ".join(str(each.network) for each in cost)
            raise Unavailable(f"nothing can be sold now on {named}", code="not_sold")
        return found

    def check(self, cost: Cost) -> None:
        """Raises ValueError: a network is named on which nothing is taken."""
        for exact in () if isinstance(cost, int) else cost:
            if exact.network not in (None, *self.networks):
                taken = ", ".join(self.networks)
                raise ValueError(f"nothing is taken on {exact.network}, but on {taken}")
