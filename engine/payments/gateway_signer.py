"""The x402 SDK's view of a chain, for one request: its `FacilitatorEvmSigner` over our gateway.

It is also the SDK's `PendingSettlementStore`, and both for the same reason: what is broadcast for a
request is its claim, and a request that has one is answered from it.
"""

from typing import Any, NoReturn

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_utils.abi import get_abi_output_types
from eth_utils.crypto import keccak
from x402.mechanisms.evm.constants import AUTHORIZATION_STATE_ABI
from x402.mechanisms.evm.multicall import encode_contract_call
from x402.mechanisms.evm.types import TransactionReceipt, TypedDataDomain, TypedDataField

from engine.chain.gateway import CallReverted, ChainUnavailable, Receipt, TransactionPending
from engine.errors import Unavailable
from engine.payments.claims import Claim, Key
from engine.payments.relay import Relayer

REASON_CHARACTERS_MAX = 200

_ERRORS = {
    keccak(text=signature)[:4]: signature.partition("(")[0]
    for signature in (
        "ERC20InsufficientBalance(address,uint256,uint256)",
        "AuthorizationAlreadyUsed()",
        "AuthorizationExpired()",
        "AuthorizationNotYetValid()",
    )
}
"""Custom errors whose names the SDK knows; it cannot tell them by their selectors."""


class GatewaySigner:
    """One request's access to the chain. Afterwards its attributes say what came of it.

    `claim` is what was broadcast, now or before; `receipt` what was mined of it; `doubt` that the
    chain or the claims could not be read, so that a refusal by the SDK means nothing.
    """

    def __init__(self, relayer: Relayer, key: Key, digest: bytes, claim: Claim | None) -> None:
        self.claim = claim
        self.receipt: Receipt | None = None
        self.doubt: Unavailable | None = None
        self._relayer = relayer
        self._gateway = relayer.gateway
        self._key = key
        self._digest = digest

    # FacilitatorEvmSigner

    def get_addresses(self) -> list[str]:
        """Who pays the gas."""
        return [self._relayer.address]

    def get_chain_id(self) -> int:
        """The EIP-155 chain id."""
        return self._gateway.chain_id

    def get_code(self, address: str) -> bytes:
        """The code at `address`; empty for an account without any."""
        try:
            return self._gateway.code(address.lower())
        except ChainUnavailable as error:
            self._note(error)

    def read_contract(
        self, address: str, abi: list[dict[str, Any]], function_name: str, *args: Any
    ) -> Any:
        """Call a function and decode what it returns.

        Raises:
            RuntimeError: it reverted, in words that the SDK looks for, or answered nonsense.
            ChainUnavailable: the chain could not be asked.
        """
        return self._read(address, abi, function_name, *args)

    def is_used(self, *, block: int | None = None) -> bool:
        """Whether the payer's nonce is used up, says the token; now, or after a block.

        Raises:
            RuntimeError, ChainUnavailable: as `read_contract`.
        """
        arguments = (self._key.payer, self._key.nonce)
        abi, token = AUTHORIZATION_STATE_ABI, self._key.token
        return bool(self._read(token, abi, "authorizationState", *arguments, block=block))

    def _read(
        self,
        address: str,
        abi: list[dict[str, Any]],
        function_name: str,
        *args: Any,
        block: int | None = None,
    ) -> Any:
        data = encode_contract_call(abi, function_name, *args)
        caller = self._relayer.address.lower()
        try:
            answer = self._gateway.call(address.lower(), data, block=block, sender=caller)
        except CallReverted as error:
            raise RuntimeError(_in_words(error)) from error
        except ChainUnavailable as error:
            self._note(error)
        types = next(get_abi_output_types(item) for item in abi if item["name"] == function_name)  # type: ignore[arg-type]
        try:
            values = decode(types, answer)
        except (DecodingError, ValueError, OverflowError) as error:
            raise RuntimeError(f"{function_name} answered something else than {types}") from error
        return values[0] if len(values) == 1 else list(values)

    def write_contract(
        self,
        address: str,
        abi: list[dict[str, Any]],
        function_name: str,
        *args: Any,
        data_suffix: str | None = None,
    ) -> str:
        """Broadcast the one transaction of this request; returns its hash.

        It is claimed before it is sent, and from then on its fate is that of the claim.

        Raises:
            RuntimeError: it would revert, in words that the SDK looks for.
            TransactionRejected: the chain refused it.
            ChainUnavailable, Unavailable: nothing was sent.
        """
        assert self.claim is None, "a request broadcasts once"
        data = encode_contract_call(abi, function_name, *args)
        data += bytes.fromhex((data_suffix or "").removeprefix("0x"))
        try:
            self.claim = self._relayer.broadcast(
                self._key, self._digest, to=address.lower(), data=data
            )
        except CallReverted as error:
            raise RuntimeError(_in_words(error)) from error
        except Unavailable as error:
            self._note(error)
        return _hex(self.claim.tx_hash)

    def wait_for_transaction_receipt(self, tx_hash: str) -> TransactionReceipt:
        """Wait a little.

        Raises:
            TransactionPending: it was not mined meanwhile.
        """
        assert self.claim is not None
        assert tx_hash == _hex(self.claim.tx_hash)
        if self.receipt is None:
            self.receipt = self._relayer.wait(self.claim)
        if self.receipt is None:
            raise TransactionPending(self.claim.tx_hash)
        return TransactionReceipt(
            status=int(self.receipt.succeeded),
            block_number=self.receipt.block_number,
            tx_hash=tx_hash,
            logs=list(self.receipt.logs),
        )

    def send_transaction(self, to: str, data: bytes) -> NoReturn:
        """Deploying a payer's wallet (ERC-6492) is not ours to pay for."""
        raise NotImplementedError

    def verify_typed_data(
        self,
        address: str,
        domain: TypedDataDomain,
        types: dict[str, list[TypedDataField]],
        primary_type: str,
        message: dict[str, Any],
        signature: bytes,
    ) -> NoReturn:
        """Only other schemes than `exact` by EIP-3009 ask for it."""
        raise NotImplementedError

    def get_balance(self, address: str, token_address: str) -> NoReturn:
        """Only other schemes than `exact` by EIP-3009 ask for it."""
        raise NotImplementedError

    # PendingSettlementStore

    def get(self, key: str) -> str | None:
        """The transaction that was broadcast for this request before, whose signature is `key`."""
        del key
        return None if self.claim is None else _hex(self.claim.tx_hash)

    def set(self, key: str, tx_hash: str) -> None:
        """It was written down when it was broadcast."""

    def delete(self, key: str) -> None:
        """A claim ends when it is known what became of it, which the SDK does not decide."""

    def _note(self, error: Unavailable) -> NoReturn:
        """The SDK makes a refusal of any error; whoever called it must know of this one."""
        self.doubt = error
        raise error


def _in_words(error: CallReverted) -> str:
    """What a contract said, in one line: it says what it likes, and the SDK logs that."""
    name = _ERRORS.get(error.data[:4])
    if name is not None:
        return f"reverted: {name}"
    said = error.message[:REASON_CHARACTERS_MAX]
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in said)


def _hex(tx_hash: bytes) -> str:
    return f"0x{tx_hash.hex()}"
