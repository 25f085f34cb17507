"""A spending limit on a chain: an ERC-20 allowance, on Anvil."""

import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from eth_utils.address import to_checksum_address

from bench.contender import AMOUNT_MICRO_USD, Contender, Rate
from engine.chain import contracts, sender
from engine.chain.anvil import AnvilProcess
from engine.chain.deploy import create
from engine.chain.json_rpc import JsonRpcChain

ALLOWANCE = 2**255
SPENDERS = 64
GAS = 120_000
PATIENCE_S = 60
POLL_S = 0.005
_ANVIL_TOML = Path(__file__).parents[1] / "anvil.toml"


class AnvilAllowance(Contender):
    """`transferFrom` within an allowance, mined at once."""

    name = "anvil-allowance"
    says = (
        "A limit enforced on a chain: one owner approves spenders of TestUSDC, and each payment is "
        "a transferFrom that the token checks against what is left of the allowance. Asked in "
        f"batches of {SPENDERS}, one of each spender, answered by the receipt. Anvil signs for the "
        "spenders and mines each transaction at once: no wallet, no network, no block time, and "
        "its state is in memory. An allowance is one lifetime sum and has no windows. A public "
        "chain is slower by far."
    )

    def prepare(self) -> Mapping[str, str]:
        self.anvil = AnvilProcess.from_toml(
            _ANVIL_TOML, port=0, state_file=None, accounts=1 + SPENDERS
        ).start()
        self.gateway = JsonRpcChain(self.anvil.url)
        self.http = httpx.Client(base_url=self.anvil.url, timeout=PATIENCE_S, trust_env=False)
        owner, *spenders = self.anvil.accounts()
        self.spenders = [spender.address.lower() for spender in spenders]
        self.owner = owner.address
        self.token = create(self.gateway, owner, contracts.TEST_USDC)
        calls = [("mint", owner.address, ALLOWANCE)]
        calls += [("approve", to_checksum_address(spender), ALLOWANCE) for spender in self.spenders]
        for function, address, amount in calls:
            data = contracts.call_data(contracts.TEST_USDC, function, address, amount)
            tx_hash = sender.send(self.gateway, owner, to=self.token, data=data)
            assert sender.wait(self.gateway, tx_hash, poll_s=POLL_S).succeeded
        [client] = self._rpc([("web3_clientVersion", [])])
        return {"client": str(client), "spenders": str(len(self.spenders))}

    def run(self, seconds: float) -> Rate:
        self.runs += 1
        recipient = f"0x{self.runs:040x}"
        data = contracts.call_data(
            contracts.TEST_USDC,
            "transferFrom",
            self.owner,
            to_checksum_address(recipient),
            AMOUNT_MICRO_USD,
        )
        fields = {"to": self.token, "data": "0x" + data.hex(), "gas": hex(GAS)}
        nonces = {s: itertools.count(self.gateway.transaction_count(s)) for s in self.spenders}
        count = 0
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            # Anvil works on the calls of a batch side by side, so that two transactions of one
            # spender could overtake each other.
            receipts = self._rpc(
                [
                    (
                        "eth_sendTransactionSync",
                        [{"from": s, "nonce": hex(next(nonces[s])), **fields}],
                    )
                    for s in self.spenders
                ]
            )
            assert all(receipt["status"] == "0x1" for receipt in receipts), receipts
            count += len(receipts)
        taken = time.perf_counter() - started
        assert self._received(recipient) == count * AMOUNT_MICRO_USD
        return Rate(count, taken)

    def close(self) -> None:
        if hasattr(self, "http"):
            self.http.close()
            self.gateway.close()
        if hasattr(self, "anvil"):
            self.anvil.stop()

    def _received(self, recipient: str) -> int:
        balance = contracts.read(
            self.gateway,
            contracts.TEST_USDC,
            self.token,
            "balanceOf",
            to_checksum_address(recipient),
        )
        return int(balance)

    def _rpc(self, calls: list[tuple[str, list[Any]]]) -> list[Any]:
        """A JSON-RPC 2.0 batch."""
        batch = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": parameters}
            for number, (method, parameters) in enumerate(calls)
        ]
        answers = self.http.post("/", json=batch).raise_for_status().json()
        assert all("result" in answer for answer in answers), answers
        return [answer["result"] for answer in answers]
