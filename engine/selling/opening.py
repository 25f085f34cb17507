"""What the server sells in, by its settings; the till itself is opened when somebody first pays.

The x402 SDK takes a second to import, and most servers are asked for nothing that costs anything.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.deployment import Deployment
from engine.errors import CannotStart, InvalidInput, Unavailable
from engine.payments.networks import Networks
from engine.settings import Settings, Token
from engine.storage.session import Storage

if TYPE_CHECKING:
    from engine.selling.facilitators import Settler
    from engine.selling.till import Till
    from engine.selling.visits import Visits

SYMBOL = "USDC"


@dataclass(frozen=True, slots=True)
class Selling:
    """What is sold is paid in `token`, to `pay_to`; `facilitator` is a URL, or None for ours."""

    token: Token
    pay_to: str
    facilitator: str | None
    networks: Networks
    visits: "Visits | None" = None

    def open_till(self, storage: Callable[[], Storage]) -> "Till":
        """Slow: call it on a thread.

        Raises:
            Unavailable: the chain cannot be asked for the token's domain.
        """
        from engine.payments.token_domain import DomainUnknown, read_token_domain
        from engine.selling.currency import Currency
        from engine.selling.till import Till
        from engine.selling.witness import Witness

        watch = self.networks.watches[self.token.chain]
        gateway = watch.gateway
        try:
            domain = read_token_domain(gateway, self.token.asset.rpartition(":")[2].lower())
        except DomainUnknown as error:
            raise Unavailable(f"nothing can be sold: {error.message}", code=error.code) from error
        currency = Currency(
            self.token.asset,
            pay_to=self.pay_to,
            name=domain.name,
            version=domain.version,
            decimals=self.token.decimals,
        )
        witness = Witness(gateway, confirmations=watch.confirmations)
        return Till(storage, currency, self._settler(), witness=witness, visits=self.visits)

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
    pay_to = settings.pay_to
    if pay_to is None:
        if not embedded:
            return None
        pay_to = deployment.operator.address.lower()
    token = _token(settings, deployment)
    if token.chain not in networks.gateways:
        raise CannotStart(f"TALLYSTICK_PAID_IN: {token.chain} is not in TALLYSTICK_NETWORKS")
    facilitator = settings.facilitator
    if facilitator is None and not (embedded and token.chain == deployment.chain):
        raise CannotStart(f"TALLYSTICK_FACILITATOR: is missing; it settles on {token.chain}")
    return Selling(token, pay_to, facilitator, networks, _visits(settings))


def _visits(settings: Settings) -> "Visits | None":
    if settings.sign_in_origin is None:
        return None
    from engine.selling.visits import Visits

    try:
        return Visits(settings.sign_in_origin, settings.sign_in_lease_s)
    except InvalidInput as error:
        raise CannotStart(f"TALLYSTICK_SIGN_IN_ORIGIN: {error.message}") from None


def _token(settings: Settings, deployment: Deployment) -> Token:
    for token in deployment.tokens:
        wanted = (
            (token.symbol, token.chain) == (SYMBOL, deployment.chain)
            if settings.paid_in is None
            else token.asset == settings.paid_in
        )
        if wanted and token.usd_price is not None:
            return token
    raise CannotStart(
        f"TALLYSTICK_PAID_IN: {settings.paid_in or SYMBOL} is no token of a dollar in "
        "TALLYSTICK_TOKENS"
    )
