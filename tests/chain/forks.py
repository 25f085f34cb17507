"""Blocks that are made by hand: whatever may happen to sessions and logs, in any fork."""

import functools
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx
from eth_account.signers.local import LocalAccount
from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak

from engine.chain import contracts
from engine.grant import Grant
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from tests.world import NO_LIMITS

GAS = 1_500_000
FEE_WEI = 10**11

Transaction = tuple[str, str]
"""Who sent it, and its raw bytes in hexadecimal."""

Blocks = list[list[Transaction]]


def rpc(url: str, method: str, *parameters: Any) -> Any:
    """Ask a node something that only a test asks."""
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
    # Without `verify` no certificates are loaded, which takes longer than the rest.
    answer = httpx.post(url, json=request, trust_env=False, verify=False, timeout=60).json()
    assert "error" not in answer, answer
    return answer["result"]


def extend(url: str, blocks: Blocks) -> None:
    """Mine these blocks on a node that does not mine by itself."""
    for transactions in blocks:
        for _, raw in transactions:
            rpc(url, "eth_sendRawTransaction", raw)
        rpc(url, "evm_mine")


def replace_newest(url: str, blocks: Blocks) -> None:
    """Put these blocks in the place of as many of the newest."""
    placed = [[raw, index] for index, block in enumerate(blocks) for _, raw in block]
    rpc(url, "anvil_reorg", len(blocks), placed)


class Hands:
    """Accounts that may register and revoke, and draw what they do. Nothing they do must succeed:
    what the contracts refuse is mined and logs nothing.
    """

    def __init__(
        self,
        draw: random.Random,
        accounts: Sequence[LocalAccount],
        *,
        chain_id: int,
        registry: str,
        anchors: str,
    ) -> None:
        self._draw = draw
        self._accounts = accounts
        self._chain_id = chain_id
        self._registry, self._anchors = registry, anchors
        self.sessions: list[SessionView] = []
        """Those of the engine that is looked at."""
        self._strangers = [self._stranger() for _ in range(4)]
        self._made = 0

    def fork(self, url: str, ancestor: int, length: int, before: Blocks) -> Blocks:
        """So many blocks to stand above `ancestor`, in the place of those `before`.

        Some transactions are the same, and most of those are in another block.
        """
        blocks: Blocks = [[] for _ in range(length)]
        marker = self._accounts[0]
        nonces = {
            account.address: int(
                rpc(url, "eth_getTransactionCount", account.address, hex(ancestor)), 16
            )
            for account in self._accounts
        }
        # It makes sure that no block of the one fork is in the other.
        blocks[0].append(self._signed(nonces, marker, marker.address, b""))
        last = dict.fromkeys(nonces, 0)
        for account in self._accounts[1:]:
            own = [each for block in before for each in block if each[0] == account.address]
            again = own[: self._draw.randint(0, len(own))] if self._draw.random() < 0.5 else []
            places = sorted(self._draw.choices(range(length), k=len(again)))
            for place, transaction in zip(places, again, strict=True):
                blocks[place].append(transaction)
                last[account.address] = place
            nonces[account.address] += len(again)
        for index, block in enumerate(blocks):
            for _ in range(self._draw.choice((0, 0, 1, 2, 3)) if length > 2 else 3):
                account = self._draw.choice(self._accounts[1:])
                if last[account.address] <= index:
                    block.append(self._signed(nonces, account, *self._deed()))
        return blocks

    def _signed(
        self, nonces: dict[str, int], account: LocalAccount, to: str, data: bytes
    ) -> Transaction:
        self._made += 1
        signed = account.sign_transaction(
            {
                "type": 2,
                "chainId": self._chain_id,
                "nonce": nonces[account.address],
                "gas": GAS,
                "maxFeePerGas": FEE_WEI,
                "maxPriorityFeePerGas": 1,
                "to": bytes.fromhex(to[2:]),
                "value": 0 if data else self._made,
                "data": data,
            }
        )
        nonces[account.address] += 1
        return account.address, "0x" + bytes(signed.raw_transaction).hex()

    def _deed(self) -> tuple[str, bytes]:
        kind = self._draw.choice(
            ("register",) * 5
            + ("wrong", "revoke", "lower", "stranger", "stranger", "anchor", "anchor", "workspace")
        )
        if kind == "anchor":
            return self._anchors, self._anchoring()
        if kind == "workspace":
            function = self._draw.choice(("openWorkspace", "closeWorkspace"))
            name = keccak(b"elsewhere %d" % self._draw.randint(1, 3))
            return self._registry, contracts.call_data(contracts.SESSION_REGISTRY, function, name)
        if kind == "stranger":
            grant, public_key = self._draw.choice(self._strangers)
            if self._draw.random() < 0.5:
                return self._registry, contracts.registering(grant, public_key)
            return self._registry, contracts.revoking(grant, keccak(public_key[1:]))
        view = self._draw.choice(self.sessions)
        if kind != "lower":
            return self._registry, self._about(view, kind)
        return self._registry, self._lowering(view)

    @functools.cache  # noqa: B019 - encoding takes long, and there are few
    def _about(self, view: SessionView, kind: str) -> bytes:
        if kind == "register":
            return contracts.registering(view.grant, view.public_key, view.owner_signature)
        if kind == "wrong":
            wrong = replace(view.grant, limits=NO_LIMITS, salt=b"\x66" * 32)
            return contracts.registering(wrong, view.public_key)
        return contracts.revoking(view.grant, view.token_id)

    def _lowering(self, view: SessionView) -> bytes:
        limits = tuple(self._draw.randint(0, 10**9) for _ in range(5))
        return contracts.call_data(
            contracts.SESSION_REGISTRY,
            "lowerLimits",
            int.from_bytes(view.token_id),
            view.grant.abi_tuple(),
            limits,
        )

    def _anchoring(self) -> bytes:
        """Each account opens a log of its own once, and anchors it; sizes need not go up."""
        salt = b"\x11" * 32
        if self._draw.random() < 0.3:
            return contracts.call_data(contracts.ANCHOR_REGISTRY, "openLog", salt)
        log_id = contracts.log_id_of(self._draw.choice(self._accounts).address, salt)
        size, root = self._draw.randint(1, 1000), self._draw.randbytes(32)
        return contracts.call_data(contracts.ANCHOR_REGISTRY, "anchor", log_id, size, root)

    def _stranger(self) -> tuple[Grant, bytes]:
        """A session of another installation."""
        key = PrivateKey(self._draw.randbytes(32)).public_key
        grant = Grant(
            owner="0x" + self._draw.randbytes(20).hex(),
            session_key=key.to_address(),
            audit_log=self._draw.randbytes(32),
            parent=bytes(32),
            workspace="elsewhere",
            agent_id="bot",
            permissions=("pay",),
            merchants=(),
            tokens=(),
            chains=(),
            limits=Limits(1, 2, 3, 4, 5),
            conditions=(),
            valid_from_s=0,
            valid_until_s=4_000_000_000,
            salt=self._draw.randbytes(32),
        )
        return grant, b"\x04" + key.to_bytes()
