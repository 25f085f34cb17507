"""What the server sells in, by its settings; the till itself is opened when somebody first pays.

The x402 SDK takes a second to import, and most servers are asked for nothing that costs anything.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from engine.deployment import Deployment
from engine.errors import CannotStart, InvalidInput, Unavailable
from engine.payments.networks import Networks
from engine.settings import Settings, Token
from engine.storage.session import Storage

if TYPE_CHECKING:
    from engine.selling.facilitators import Settler
    from engine.selling.methods import PaymentMethod
    from engine.selling.till import Till
    from engine.selling.visits import Visits

SYMBOL = "USDC"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Selling:
    """What is sold is paid in any of `tokens`, to `pay_to`; `facilitator` is a URL, or None for
    ours."""

    tokens: tuple[Token, ...]
    pay_to: str
    facilitator: str | None
    networks: Networks
    visits: "Visits | None" = None

    def open_till(self, storage: Callable[[], Storage]) -> "Till":
        """Slow: call it on a thread. What cannot be sold in yet is offered once it can.

        Raises:
            Unavailable: no chain can be asked for its token's domain.
        """
        from engine.selling.opening_methods import Opening
        from engine.selling.till import Till

        settler = self._settler()
        opening = Opening(self.tokens, lambda token: self._method(token, settler))
        till = Till(storage, *opening.first(), visits=self.visits)
        opening.add_later(till.methods)
        return till

    def _method(self, token: Token, settler: "Settler") -> "PaymentMethod":
        from engine.payments.token_domain import DomainUnknown, read_token_domain
        from engine.selling.currency import Currency
        from engine.selling.methods import PaymentMethod
        from engine.selling.witness import Witness

        watch = self.networks.watches[token.chain]
        try:
            domain = read_token_domain(watch.gateway, token.asset.rpartition(":")[2].lower())
        except DomainUnknown as error:
            raise Unavailable(f"nothing can be sold: {error.message}", code=error.code) from error
        except Unavailable as error:
            # Whoever wants to buy need not know where the chain is asked.
            _log.warning("chain_unavailable", chain=token.chain, reason=error.message)
            raise Unavailable(
                f"nothing can be sold now: {token.chain} does not answer", code=error.code
            ) from error
        currency = Currency(
            token.asset,
            pay_to=self.pay_to,
            name=domain.name,
            version=domain.version,
            decimals=token.decimals,
        )
        witness = Witness(watch.gateway, confirmations=watch.confirmations)
        return PaymentMethod(currency, settler, witness)

    def _settler(self) -> "Settler":
        from engine.selling.facilitators import OnThreads, facilitator_at

        if self.facilitator is not None:
            return facilitator_at(self.facilitator)
        facilitator = self.networks.facilitator()
        assert facilitator is not None, "read_selling saw to it"
        return OnThreads(facilitator)


def read_selling(settings: Settings, deployment: Deployment, networks: Networks) -> Selling | None:
    """What to sell in; None if nothing is sold.

    On the embedded chain the operator is paid unless another account is named.

    Raises:
        CannotStart: naming the setting that is missing, or is of another chain.
    """
    embedded = settings.chain == "embedded"
    if settings.pay_to is None and not embedded:
        return None
    tokens = _tokens(settings, deployment)
    for token in tokens:
        if token.chain not in networks.gateways:
            raise CannotStart(f"TALLYSTICK_PAID_IN: {token.chain} is not in TALLYSTICK_NETWORKS")
    facilitator, pay_to = settings.facilitator, settings.pay_to
    elsewhere = [token.chain for token in tokens if not embedded or token.chain != deployment.chain]
    if facilitator is None and elsewhere:
        raise CannotStart(f"TALLYSTICK_FACILITATOR: is missing; it settles on {elsewhere[0]}")
    if pay_to is None:
        if elsewhere:
            raise CannotStart(f"TALLYSTICK_PAY_TO: is missing; {elsewhere[0]} is no chain of ours")
        pay_to = deployment.operator.address.lower()
    return Selling(tokens, pay_to, facilitator, networks, _visits(settings))


def _visits(settings: Settings) -> "Visits | None":
    if settings.sign_in_origin is None:
        return None
    from engine.selling.visits import Visits

    try:
        return Visits(settings.sign_in_origin, settings.sign_in_lease_s)
    except InvalidInput as error:
        raise CannotStart(f"TALLYSTICK_SIGN_IN_ORIGIN: {error.message}") from None


def _tokens(settings: Settings, deployment: Deployment) -> tuple[Token, ...]:
    """Those that are named, in that order; or the one that there is."""
    dollars = [token for token in deployment.tokens if token.usd_price is not None]
    found = {token.asset: token for token in dollars}
    main = [
        each.asset for each in dollars if (each.symbol, each.chain) == (SYMBOL, deployment.chain)
    ]
    wanted = main[:1] or [SYMBOL] if settings.paid_in is None else settings.paid_in.split()
    for each in wanted:
        if each not in found:
            raise CannotStart(
                f"TALLYSTICK_PAID_IN: {each} is no token of a dollar in TALLYSTICK_TOKENS"
            )
    return tuple(found[each] for each in wanted)
