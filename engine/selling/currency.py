"""What something costs, and in what it is paid."""

import re
from dataclasses import dataclass

from engine.errors import InvalidInput
from engine.payments.authorization import TokenDomain
from engine.policy.identifiers import IdentifierError, normalise_asset
from engine.policy.money import MICRO_USD_PER_USD, parse_usd

Price = int | None
"""In micro-USD, above zero; None (`FREE`) is for what costs nothing and knows no payer."""
FREE: Price = None

TIMEOUT_S = 300
_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]{40}")
_TOKEN = re.compile(r"eip155:([1-9][0-9]*)/erc20:(0x[0-9a-f]{40})")


def read_price(text: str) -> Price:
    """`free`, or dollars as decimal text with or without `$`: `$0.01`.

    Raises:
        AmountError: it is neither, or zero.
    """
    return FREE if text == "free" else parse_usd(text.removeprefix("$"))


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
        if not _ADDRESS.fullmatch(self.pay_to) or int(self.pay_to, 16) == 0:
            raise InvalidInput("pay_to", "must be an address: 0x and 40 hex digits, not all zero")
        object.__setattr__(self, "asset", asset)
        object.__setattr__(self, "pay_to", self.pay_to.lower())

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
