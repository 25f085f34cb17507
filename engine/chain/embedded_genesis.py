"""How the embedded chain begins and is found again: eth-tester's genesis, on py-evm."""

import sys
from collections.abc import Callable
from typing import Any

from eth.abc import BlockHeaderAPI, SignedTransactionAPI, TransactionBuilderAPI
from eth.chains.base import MiningChain
from eth.db.atomic import AtomicDB
from eth.vm.forks.prague import PragueVM
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from engine import RECURSION_LIMIT
from engine.chain.account import KeyAccount
from engine.chain.embedded_store import BlockStore
from engine.chain.gateway import ChainError

# The deepest calls that a block's gas allows (EIP-150 passes on 63/64) need half of this.
sys.setrecursionlimit(RECURSION_LIMIT)

_BLOB_TYPE = 3


class EmbeddedVM(PragueVM):
    """The rules of the Prague fork, and two that py-evm leaves to the node."""

    def validate_transaction_against_header(
        self, base_header: BlockHeaderAPI, transaction: SignedTransactionAPI
    ) -> None:
        """Refuse a replay from another chain, and blobs: they come without their sidecar."""
        chain_id = self.chain_context.chain_id
        if transaction.chain_id not in (None, chain_id):
            raise ValidationError(f"signed for chain {transaction.chain_id}, this is {chain_id}")
        if transaction.type_id == _BLOB_TYPE:
            raise ValidationError("blob transactions are not supported here")
        super().validate_transaction_against_header(base_header, transaction)


def open_chain(store: BlockStore, chain_id: int, clock: Callable[[], int]) -> MiningChain:
    """Reopen the chain of `store`, or begin it at `clock()` seconds and make its genesis durable.

    Raises:
        ChainError: the stored chain has another id.
    """

    class EmbeddedMiningChain(MiningChain):
        vm_configuration = ((0, EmbeddedVM),)  # type: ignore[assignment]

        def create_header_from_parent(
            self, parent_header: BlockHeaderAPI, **header_params: Any
        ) -> BlockHeaderAPI:
            # py-evm would let the gas limit drift; eth-tester holds it constant, and so do we.
            header_params["gas_limit"] = parent_header.gas_limit
            header_params.setdefault("timestamp", max(clock(), parent_header.timestamp + 1))
            header_params.setdefault("mix_hash", keccak(parent_header.hash))
            return super().create_header_from_parent(parent_header, **header_params)

        def get_transaction_builder(self) -> type[TransactionBuilderAPI]:
            """eth-tester's backend asks the chain for it."""
            return self.get_vm().get_transaction_builder()

    EmbeddedMiningChain.chain_id = chain_id
    database = AtomicDB(store)
    if store.is_empty:
        # A chain that is there already needs nothing of eth-tester, which is slow to import.
        from eth_tester.backends.pyevm import main as tester  # type: ignore[import-untyped]

        EmbeddedMiningChain.from_genesis(
            database,
            tester.get_default_genesis_params({"timestamp": clock()}),
            tester.generate_genesis_state_for_keys(tester.get_default_account_keys()),
        )
        store.commit(properties=[("chain_id", str(chain_id))])
    elif (stored := store.property("chain_id")) != str(chain_id):
        raise ChainError(f"the stored chain has id {stored}, not {chain_id}")
    return EmbeddedMiningChain(database)


def faucet_account() -> KeyAccount:
    """The account that holds the funds of the genesis: a public key pair of eth-tester's."""
    from eth_tester.backends.pyevm.main import (  # type: ignore[import-untyped]
        get_default_account_keys,
    )

    return KeyAccount(get_default_account_keys()[0].to_bytes())
