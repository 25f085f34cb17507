"""Somebody who pays by x402, and what a facilitator is asked of it."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak
from x402.schemas import PaymentPayload, PaymentRequirements

from engine.chain import contracts, sender
from engine.chain.deploy import create
from engine.chain.embedded import EmbeddedChain
from engine.chain.gateway import ChainGateway, Receipt
from engine.clock import system_clock
from engine.payments.authorization import Authorization, TokenDomain
from engine.payments.claims import Claims
from engine.payments.facilitator import Facilitator
from engine.payments.relay import Relayer
from engine.payments.served import Served
from tests.payments.tokens import PATIENCE_S, deployed

ETHER = 10**18
PAYEE = "0x" + "9a" * 20
_nonces = itertools.count(1)


@dataclass(kw_only=True)
class Buyer:
    """Somebody with a million of a token, which anybody may mint; `bank` pays for that."""

    gateway: ChainGateway
    bank: LocalAccount
    domain: TokenDomain
    payer: LocalAccount = field(default_factory=Account.create)

    def __post_init__(self) -> None:
        self._since = self.gateway.head().number
        self.transact(to=self.domain.token, data=self.mint(1_000_000))

    def transact(self, *, to: str, data: bytes = b"", value: int = 0) -> Receipt:
        """Send from the bank, and wait."""
        tx_hash = sender.send(self.gateway, self.bank, to=to, data=data, value=value)
        receipt = sender.wait(self.gateway, tx_hash, timeout_s=PATIENCE_S, poll_s=0.01)
        assert receipt.succeeded
        return receipt

    def mint(self, amount: int) -> bytes:
        """The call that gives the payer tokens."""
        return contracts.call_data(contracts.TEST_USDC, "mint", self.payer.address, amount)

    @property
    def network(self) -> str:
        """The CAIP-2 id of the chain."""
        return f"eip155:{self.gateway.chain_id}"

    def authorization(self, amount: int = 100, **changes: Any) -> Authorization:
        """One that was not used before."""
        now = max(system_clock() // 1000, self.gateway.head().timestamp_s)
        return Authorization(
            **{
                "payer": self.payer.address.lower(),
                "pay_to": PAYEE,
                "amount": amount,
                "valid_after_s": 0,
                "valid_before_s": now + 600,
                "nonce": keccak(text=f"{self.payer.address} {next(_nonces)}"),
                **changes,
            }
        )

    def request(
        self, authorization: Authorization | None = None, *, url: str = "https://shop.test/book"
    ) -> dict[str, Any]:
        """The body of `/verify` and `/settle`, honestly signed."""
        authorization = authorization or self.authorization()
        signature = authorization.sign(self.domain, bytes(self.payer.key))
        requirements = {
            "scheme": "exact",
            "network": self.network,
            "asset": self.domain.token,
            "amount": str(authorization.amount),
            "payTo": authorization.pay_to,
            "maxTimeoutSeconds": 300,
            "extra": {"name": self.domain.name, "version": self.domain.version},
        }
        return {
            "x402Version": 2,
            "paymentPayload": {
                "x402Version": 2,
                "payload": {
                    "authorization": dict(authorization.wire),
                    "signature": f"0x{signature.hex()}",
                },
                "accepted": dict(requirements),
                "resource": {"url": url},
            },
            "paymentRequirements": requirements,
        }

    def transfers(self) -> int:
        """How often the payer paid anybody."""
        payer = bytes.fromhex(self.payer.address[2:]).rjust(32, b"\0")
        logs = self.gateway.logs(
            from_block=self._since,
            to_block=self.gateway.head().number,
            addresses=[self.domain.token],
            topics=[contracts.ERC20_TRANSFER, payer],
        )
        return len(logs)


@dataclass(kw_only=True)
class Till(Buyer):
    """A facilitator, and somebody who pays through it."""

    path: Path
    gas_payer: LocalAccount = field(default_factory=Account.create)
    served: Served = field(default_factory=Served)
    receipt_timeout_s: float = 5.0
    confirmations: int = 0
    finality: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.transact(to=self.gas_payer.address.lower(), value=ETHER)
        self.open()

    def open(self) -> None:
        """Open the facilitator on the file of claims."""
        self.claims = Claims(self.path)
        self.relayer = Relayer(
            self.gateway,
            self.gas_payer,
            self.claims,
            receipt_timeout_s=self.receipt_timeout_s,
            poll_s=0.01,
            confirmations=self.confirmations,
            finality=self.finality,
        )
        self.facilitator = Facilitator([self.relayer], self.claims, self.served)

    def reopen(self) -> None:
        """As after a restart."""
        self.facilitator.close()
        self.open()

    def verify(self, request: dict[str, Any]) -> dict[str, Any]:
        """Ask the facilitator, without HTTP."""
        answer = self.facilitator.verify(*parsed(request))
        return answer.model_dump(by_alias=True, exclude_none=True)

    def settle(self, request: dict[str, Any]) -> dict[str, Any]:
        """Ask the facilitator, without HTTP."""
        answer = self.facilitator.settle(*parsed(request))
        return answer.model_dump(by_alias=True, exclude_none=True)

    def relayed(self) -> int:
        """How many transactions of the facilitator were mined."""
        return self.gateway.transaction_count(self.gas_payer.address.lower())


def parsed(request: dict[str, Any]) -> tuple[PaymentPayload, PaymentRequirements]:
    """As the routes read it."""
    return (
        PaymentPayload.model_validate(request["paymentPayload"]),
        PaymentRequirements.model_validate(request["paymentRequirements"]),
    )


def embedded_till(path: Path, chain: EmbeddedChain, token: str | None = None) -> Till:
    """On an embedded chain: pays with the test USDC, or with a hostile token by name."""
    return Till(
        gateway=chain,
        bank=chain.faucet,
        path=path,
        domain=usdc(chain) if token is None else hostile(chain, token),
    )


def usdc(chain: EmbeddedChain) -> TokenDomain:
    """A new test USDC."""
    address = create(chain, chain.faucet, contracts.TEST_USDC)
    return TokenDomain("Test USD Coin", "2", chain.chain_id, address)


def hostile(chain: EmbeddedChain, name: str) -> TokenDomain:
    """A new token of Hostile.sol."""
    address = deployed(chain, chain.faucet, name)
    return TokenDomain("Hostile", "1", chain.chain_id, address)
