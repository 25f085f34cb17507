"""A session key pays by signed authorizations on a real Anvil, and then what nobody allowed.

`scripts/stray-payments` runs it with a thousand payments, the tests with fewer.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
from eth_abi.abi import encode
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from engine.audit.chain import ChainView
from engine.audit.examination import Examination
from engine.audit.report import Verdict
from engine.chain import contracts
from engine.chain.anvil import AnvilProcess
from engine.chain.deploy import create
from engine.chain.json_rpc import JsonRpcChain
from engine.evidence.agreeing import AgreeingView
from engine.evidence.chain_view import GatewayView
from tests.anvil_world import ANVIL_TOML
from tests.audit import vector_sessions as whose
from tests.evidence.signing import HOME, KEY, OTHER_SHOP, SHOP, Payment, SignedRecords, Told, row

_TRANSFER = (
    "TransferWithAuthorization(address from,address to,uint256 value,"
    "uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
_AUTHORIZATION = ["address", "address", "uint256", "uint256", "uint256", "bytes32"]
_GAS = hex(130_000)
_BATCH = 150
STRAYS = ("transfer", "orphan", "transfer", "transfer", "reused", "transactions")
"""What `Payer.stray` does that no record allows."""


class Here:
    """What the vectors say of the registry, and what a chain says of what the key moved."""

    def __init__(self, told: Told, view: ChainView) -> None:
        self._told = told.chain
        self._view = view

    def __getattr__(self, name: str) -> Any:
        asked = name in ("block_number", "block_time_s", "spends")
        return getattr(self._view if asked else self._told, name)


class Payer:
    """An Anvil of one's own with two tokens, of which the key has plenty."""

    def __init__(self, process: AnvilProcess) -> None:
        self._url = process.url
        self.gateway = JsonRpcChain(process.url)
        operator, stranger = process.accounts()[:2]
        self.stranger = stranger.address
        self.usdc, self.other = (
            create(self.gateway, operator, contracts.TEST_USDC) for _ in range(2)
        )
        self._domains = {
            token: contracts.read(self.gateway, contracts.TEST_USDC, token, "DOMAIN_SEPARATOR")
            for token in (self.usdc, self.other)
        }
        self.asset = f"{HOME}/erc20:{self.usdc}"
        self.rpc("anvil_setBalance", KEY, hex(10**20))
        self.rpc("anvil_impersonateAccount", KEY)
        self.send(
            [(self.stranger, token, "mint", KEY, 10**12) for token in (self.usdc, self.other)]
        )
        self.rpc("anvil_mine", hex(8))
        self.rpc("evm_setNextBlockTimestamp", whose.START_S + 600)
        self.rpc("anvil_mine", hex(1))

    def rpc(self, method: str, *parameters: Any) -> Any:
        """Ask Anvil one thing."""
        return self._rpc([(method, *parameters)])[0]

    def _rpc(self, asked: Sequence[tuple[Any, ...]]) -> list[Any]:
        sent = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": parameters}
            for number, (method, *parameters) in enumerate(asked)
        ]
        answers = httpx.post(self._url, json=sent, trust_env=False, verify=False, timeout=60).json()
        assert [answer["error"] for answer in answers if "error" in answer] == []
        return [answer["result"] for answer in sorted(answers, key=lambda each: each["id"])]

    def send(self, calls: Sequence[tuple[Any, ...]], *, gas: str = _GAS) -> list[str]:
        """Send calls (sender, token, function, arguments) and mine them all, many in a block."""
        asked = []
        for sender, token, function, *arguments in calls:
            data = contracts.call_data(contracts.TEST_USDC, function, *map(_checked, arguments))
            called = {"from": sender, "to": token, "data": f"0x{data.hex()}", "gas": gas}
            asked.append(("eth_sendTransaction", called))
        return self._mined(asked)

    def _mined(self, asked: Sequence[tuple[Any, ...]]) -> list[str]:
        # Anvil takes what is asked at once in any order, so each has its number.
        nonces: dict[str, int] = {}
        for _, call in asked:
            sender = call["from"]
            if sender not in nonces:
                nonces[sender] = self.gateway.transaction_count(sender)
            call["nonce"] = hex(nonces[sender])
            nonces[sender] += 1
        hashes: list[str] = []
        self.rpc("evm_setAutomine", False)
        for at in range(0, len(asked), _BATCH):
            hashes += self._rpc(asked[at : at + _BATCH])
            self.rpc("anvil_mine", hex(2))
        self.rpc("evm_setAutomine", True)
        receipts = self._rpc([("eth_getTransactionReceipt", each) for each in hashes])
        assert {receipt["status"] for receipt in receipts} == {"0x1"}
        return hashes

    def authorization(
        self, token: str, to: str, amount: int, nonce: bytes
    ) -> tuple[str, str, str, Any]:
        """The call by which a stranger settles what the key signed (EIP-3009)."""
        before = 2**40
        fields = (KEY, to, amount, 0, before, nonce)
        struct = keccak(keccak(text=_TRANSFER) + encode(_AUTHORIZATION, fields))
        signed = whose.SESSION_KEY.sign_msg_hash(
            keccak(b"\x19\x01" + self._domains[token] + struct)
        )
        parts = (signed.v + 27, signed.r.to_bytes(32), signed.s.to_bytes(32))
        return (self.stranger, token, "transferWithAuthorization", *fields, *parts)  # type: ignore[return-value]

    def settle(self, payments: Sequence[Payment]) -> None:
        """Settle payments as they were signed."""
        self.send(
            [
                self.authorization(self.usdc, payment.body["to"], payment.amount, payment.nonce)
                for payment in payments
            ]
        )

    def stray(self, used: Payment) -> None:
        """Whatever else a key can do, once each: see `STRAYS`."""
        self.send([(KEY, self.usdc, "transfer", OTHER_SHOP, 3)])
        self.send([self.authorization(self.usdc, OTHER_SHOP, 5, keccak(text="random"))])
        self.send([(KEY, self.other, "transfer", SHOP, 7)])
        self.send([(KEY, self.usdc, "approve", self.stranger, 11)])
        self.send([(self.stranger, self.usdc, "transferFrom", KEY, OTHER_SHOP, 11)])
        self.send([self.authorization(self.other, SHOP, used.amount, used.nonce)])
        paid = {"from": KEY, "to": OTHER_SHOP, "value": "0xd", "gas": hex(21_000)}
        self._mined([("eth_sendTransaction", paid)])

    def judge(self, records: SignedRecords, *endpoints: Any) -> Examination:
        """Verify a file that is anchored in the newest block against this chain."""
        views = [GatewayView(each, name=f"endpoint {at}") for at, each in enumerate(endpoints)]
        views = views or [GatewayView(self.gateway)]
        told = Told(records, anchored=self.gateway.head().number)
        chain: Any = Here(told, views[0] if len(views) == 1 else AgreeingView(views))
        return told.examine(chain)


def _checked(argument: Any) -> Any:
    return to_checksum_address(argument) if isinstance(argument, str) else argument


@contextmanager
def payer() -> Iterator[Payer]:
    """Start an Anvil, deploy, and stop it in the end."""
    with AnvilProcess.from_toml(ANVIL_TOML, port=0, state_file=None) as process:
        opened = Payer(process)
        yield opened
        opened.gateway.close()


def signed_on(chain: Payer, count: int) -> tuple[SignedRecords, list[Payment]]:
    """The records of so many payments."""
    records = SignedRecords()
    return records, [records.sign(1_000 + n, asset=chain.asset) for n in range(count)]


def main() -> None:
    """Pay so many times (1,000), plant the strays, and compare what is found.

    Raises:
        SystemExit: it is something else.
    """
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    with payer() as chain:
        records, payments = signed_on(chain, count)
        chain.settle(payments)
        before = row(chain.judge(records))
        chain.stray(payments[0])
        examined = chain.judge(records)
        found = examined.found.spends
        kinds = sorted(incident.kind for incident in found.incidents)
        sys.stdout.write(f"{before.verdict.name}: {before.reason}\n")
        sys.stdout.write(f"{row(examined).verdict.name}: {len(kinds)}: {', '.join(kinds)}\n")
        if before.verdict is not Verdict.VERIFIED or kinds != sorted(STRAYS):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
