"""What payments need, without anybody else: a test USDC, a facilitator, funded wallets."""

from dataclasses import dataclass
from pathlib import Path

from eth_account import Account
from eth_account.signers.local import LocalAccount

from engine.chain import contracts, sender
from engine.chain.deploy import create
from engine.chain.gateway import ChainGateway
from engine.payments.claims import Claims
from engine.payments.facilitator import Facilitator
from engine.payments.relay import Relayer
from engine.selling.currency import Currency
from engine.selling.facilitators import OnThreads
from engine.selling.methods import PaymentMethod
from engine.selling.till import Till
from engine.selling.witness import Witness
from engine.storage.session import Storage

DOLLAR = 1_000_000
NAME, VERSION = "Test USD Coin", "2"


@dataclass
class Local:
    """`bank` has the chain's own coin, and pays for everything but the tools."""

    gateway: ChainGateway
    bank: LocalAccount
    directory: Path

    def __post_init__(self) -> None:
        self.token = create(self.gateway, self.bank, contracts.TEST_USDC)
        claims = Claims(self.directory / "claims.sqlite3")
        relayer = Relayer(self.gateway, self.bank, claims)
        self.facilitator = Facilitator([relayer], claims)

    def close(self) -> None:
        """Settle nothing more."""
        self.facilitator.close()

    def till(self, storage: Storage) -> Till:
        """Paid to the bank, and settled here."""
        asset = f"eip155:{self.gateway.chain_id}/erc20:{self.token}"
        currency = Currency(asset, self.bank.address, NAME, VERSION)
        witness = Witness(self.gateway)
        return Till(storage, PaymentMethod(currency, OnThreads(self.facilitator), witness))

    def wallet(self) -> LocalAccount:
        """A new one, with a dollar."""
        made: LocalAccount = Account.create()
        data = contracts.call_data(contracts.TEST_USDC, "mint", made.address, DOLLAR)
        sent = sender.send(self.gateway, self.bank, to=self.token, data=data)
        sender.wait(self.gateway, sent, timeout_s=30, poll_s=0.05)
        return made
