"""Who pays, as the key of what they store."""

import re
from dataclasses import dataclass

from engine.errors import InvalidInput
from engine.policy.identifiers import IdentifierError, normalise_chain

_EVM_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]{40}")
_OTHER_ADDRESS = re.compile(r"[-.%a-zA-Z0-9]{1,128}")


@dataclass(frozen=True, slots=True)
class Payer:
    """The signer of a settled payment: `address` as the verifier wrote it, `chain` a CAIP-2 id.

        Payer("0x52908400098527886E0F7030069857D2E4169EE7", "eip155:8453")

    Raises:
        InvalidInput: naming `payer` or `chain`.
    """

    address: str
    chain: str

    def __post_init__(self) -> None:
        try:
            normalise_chain(self.chain)
        except IdentifierError as error:
            raise InvalidInput("chain", str(error)) from None
        if self._evm and not _EVM_ADDRESS.fullmatch(self.address):
            raise InvalidInput("payer", "must be an address: 0x and 40 hex digits")
        if not _OTHER_ADDRESS.fullmatch(self.address):
            raise InvalidInput("payer", "must be an account address (CAIP-10)")

    @property
    def account(self) -> str:
        """The CAIP-10 account id under which everything is stored.

        Addresses of EVM chains are lower case, because case is only their checksum (EIP-55); those
        of other chains differ by case.
        """
        return f"{self.chain}:{self.address.lower() if self._evm else self.address}"

    @property
    def _evm(self) -> bool:
        return self.chain.startswith("eip155:")
