"""What something costs, and in what it is paid."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.errors import InvalidInput
from engine.payments.authorization import TokenDomain
from engine.policy.identifiers import IdentifierError, normalise_asset, normalise_chain
from engine.policy.money import MICRO_USD_PER_USD, AmountError, parse_usd

Price = int | None
"""In micro-USD, above zero; None (`FREE`) is for what costs nothing and knows no payer."""
FREE: Price = None

TIMEOUT_S = 300
DECIMALS_MAX = 36
_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]{40}")
_TOKEN = re.compile(r"eip155:([1-9][0-9]*)/erc20:(0x[0-9a-f]{40})")


def read_price(text: str) -> Price:
    """`free`, or dollars as decimal text with or without `$`: `$0.01`.

    Raises:
        AmountError: it is neither, or zero.
    """
    return FREE if text == "free" else parse_usd(text.removeprefix("$"))


@dataclass(frozen=True, slots=True)
class Exact:
    """x402's scheme `exact`: what something costs on one network (a CAIP-2 id; None: on any), and
    to whom it is paid there; None is the payee of what is taken there.

        Exact("$0.05", "eip155:8453")

    Raises:
        InvalidInput: naming `price`, `network` or `pay_to`.
    """

    price: str
    network: str | None = None
    pay_to: str | None = None
    micro_usd: int = field(init=False)

    def __post_init__(self) -> None:
        try:
            micro_usd = read_price(str(self.price))
        except AmountError as error:
            raise InvalidInput("price", str(error)) from None
        if micro_usd is None:
            raise InvalidInput("price", "what is free has no network, and nobody is paid")
        object.__setattr__(self, "micro_usd", micro_usd)
        if self.network is not None:
            try:
                normalise_chain(str(self.network))
            except IdentifierError as error:
                raise InvalidInput("network", str(error)) from None
        if self.pay_to is not None:
            object.__setattr__(self, "pay_to", _payee(self.pay_to))


Cost = int | tuple[Exact, ...]
"""Of what is not free: micro-USD in whatever is taken, or what it costs on each network."""


def read_cost(accepts: Sequence[str | Exact]) -> Cost | None:
    """One price (`$0.01`, or `free`), or what it costs on each network.

    Raises:
        AmountError: it is one text, and no price.
        InvalidInput: naming `accepts`: there is none, or one of several names no network, or one
            that another names.
    """
    if len(accepts) == 1 and isinstance(accepts[0], str):
        return read_price(accepts[0])
    exact = tuple(each for each in accepts if isinstance(each, Exact))
    networks = {each.network for each in exact}
    if len(networks) < len(accepts) or not accepts or (len(accepts) > 1 and None in networks):
        raise InvalidInput("accepts", "takes one price, or several that each name another network")
    return exact


@dataclass(frozen=True)
class Currency:
    """A token worth a dollar on an EVM chain, and the account that it is to be paid to.

    `asset` is its CAIP-19 id; `name` and `version` are of its EIP-712 domain. Whoever pays signs
    for `timeout_s` seconds. No other server may be paid to the same account, unless both sell from
    one store: a payment does not name who it is for.

        Currency("eip155:84532/erc20:0x036C…", pay_to="0x…", name="USDC", version="2")

    Raises:
        InvalidInput: naming the field.
    """

    asset: str
    pay_to: str
    name: str
    version: str
    decimals: int = 6
    timeout_s: int = TIMEOUT_S

    def __post_init__(self) -> None:
        try:
            asset = normalise_asset(self.asset)
        except IdentifierError as error:
            raise InvalidInput("asset", str(error)) from None
        if _TOKEN.fullmatch(asset) is None:
            raise InvalidInput("asset", "must be a token of an EVM chain: eip155:…/erc20:0x…")
        if type(self.decimals) is not int or not 0 <= self.decimals <= DECIMALS_MAX:
            raise InvalidInput("decimals", f"must be 0 to {DECIMALS_MAX}")
        object.__setattr__(self, "asset", asset)
        object.__setattr__(self, "pay_to", _payee(self.pay_to))

    @property
    def network(self) -> str:
        """The CAIP-2 id of the chain."""
        return self.asset.partition("/")[0]

    @property
    def token(self) -> str:
        """The token contract's address."""
        return self.asset.rpartition(":")[2]

    @property
    def domain(self) -> TokenDomain:
        """Where a payer's signature is valid."""
        chain_id = int(self.network.partition(":")[2])
        return TokenDomain(self.name, self.version, chain_id, self.token)

    def units(self, price: int) -> int:
        """A price in the token's smallest unit, rounded up: never zero.

        Raises:
            InvalidInput: it is no price.
        """
        if type(price) is not int or price <= 0:
            raise InvalidInput("price", "must be more than zero, or free")
        return -(-price * int(10**self.decimals) // MICRO_USD_PER_USD)


def _payee(address: str) -> str:
    if not _ADDRESS.fullmatch(str(address)) or int(address, 16) == 0:
        raise InvalidInput("pay_to", "must be an address: 0x and 40 hex digits, not all zero")
    return address.lower()
