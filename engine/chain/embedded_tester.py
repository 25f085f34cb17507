"""The embedded chain as eth-tester: a backend and a tester over the very chain the engine uses.

    web3 = Web3(EthereumTesterProvider(chain.tester))

What is sent here is mined under the same lock and by the same durable commit as what the engine
sends; the ten funded accounts are eth-tester's, unlocked. Nothing pending is stored: with
auto-mining off, transactions wait in the tester's memory until it mines; accounts added to
it live there too. web3's provider always names eth-tester's own chain id, so it suits no chain of
another id.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from eth.chains.base import MiningChain
from eth.constants import ZERO_ADDRESS
from eth_tester import EthereumTester, PyEVMBackend  # type: ignore[import-untyped]
from eth_tester.backends.pyevm.main import (  # type: ignore[import-untyped]
    get_default_account_keys,
)
from eth_typing import Address

from engine.chain.gateway import BlockHeader, ChainError


class DurableChain(Protocol):
    """What the tester needs of `EmbeddedChain`, which says what each does."""

    def locked(self) -> AbstractContextManager[MiningChain]: ...
    def head(self) -> BlockHeader: ...
    def mine(
        self, blocks: int = 1, timestamp_s: int | None = None, coinbase: Address = ZERO_ADDRESS
    ) -> BlockHeader: ...
    def drop_pending(self) -> None: ...


class NotSupported(ChainError, NotImplementedError):
    """What was mined is an audit trail: eth-tester may not undo it, nor mine outside its rules."""

    code = "not_supported"


class EmbeddedBackend(PyEVMBackend):  # type: ignore[misc]
    """eth-tester's py-evm backend, on the chain of an `EmbeddedChain` instead of its own."""

    def __init__(self, embedded: DurableChain, chain: MiningChain) -> None:
        # PyEVMBackend's own would begin a chain in memory.
        self.embedded = embedded
        self.chain = chain
        self.account_keys = get_default_account_keys()

    def mine_blocks(
        self, num_blocks: int = 1, coinbase: Address = ZERO_ADDRESS
    ) -> tuple[bytes, ...]:
        """Mine what is pending into the first block, durably; return the blocks' hashes."""
        return tuple(self.embedded.mine(coinbase=coinbase).hash for _ in range(num_blocks))

    def time_travel(self, to_timestamp: int) -> int:
        """Mine an empty block so late that the next cannot be before `to_timestamp` (seconds)."""
        self.embedded.mine(timestamp_s=to_timestamp - 1)
        return to_timestamp

    def revert_to_snapshot(self, snapshot: bytes) -> None:
        """Forget what is pending.

        Raises:
            NotSupported: a block was mined since.
        """
        if snapshot != self.embedded.head().hash:
            raise NotSupported("the embedded chain is durable: a mined block cannot be reverted")
        self.embedded.drop_pending()

    def reset_to_genesis(self, *_: Any, **__: Any) -> None:
        """Refuse."""
        raise NotSupported("the embedded chain is durable: it cannot be reset to its genesis")

    def apply_withdrawals(self, withdrawals_list: list[dict[str, int | str]]) -> None:  # noqa: ARG002
        """Refuse."""
        raise NotSupported("the embedded chain has no withdrawals")


class EmbeddedTester(EthereumTester):  # type: ignore[misc]
    """eth-tester's interface, each method whole: no other thread sees, or mines, between its steps.

    Raises, from every method:
        ChainUnavailable: the chain is closed, or its file cannot be read or written.
    """


def _whole(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def whole(self: EmbeddedTester, *args: Any, **kwargs: Any) -> Any:
        embedded: DurableChain = self.backend.embedded
        with embedded.locked():
            try:
                return method(self, *args, **kwargs)
            except BaseException:
                # Executed but not mined: it must not slip into somebody else's block.
                embedded.drop_pending()
                raise

    return whole


for _name, _method in vars(EthereumTester).items():
    if callable(_method) and not _name.startswith("_"):
        setattr(EmbeddedTester, _name, _whole(_method))
