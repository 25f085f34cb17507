"""The EIP-712 domain of a token, as its contract tells it.

A 402 answer names a domain too (`extra.name`, `extra.version`). It is not believed: whoever writes
it could have a key sign for another contract. Here the contract is asked: `eip712Domain()` where it
has that (EIP-5267), else `name()` and `version()`. Either is held against `DOMAIN_SEPARATOR()`
where there is one, which is what the contract really checks signatures with.
"""

from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.crypto import keccak

from engine.chain.gateway import CallReverted, ChainGateway
from engine.errors import TallystickError
from engine.payments.authorization import TokenDomain

TEXT_BYTES_MAX = 256
"""A longer name or version is no name; the answer that holds it is bounded too."""

_ANSWER_BYTES_MAX = 4096
_DOMAIN_TYPE = keccak(
    text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
_ALL_BUT_SALT = b"\x0f"
"""EIP-5267's `fields`: name, version, chain id and contract are in the domain, a salt is not."""


class DomainUnknown(TallystickError):
    """The token does not say in which domain it checks signatures, or contradicts itself."""

    code = "token_domain_unknown"


def read_token_domain(gateway: ChainGateway, token: str) -> TokenDomain:
    """Ask the contract at `token`, a lower-case address, in which domain it checks signatures.

    Raises:
        DomainUnknown: it cannot be established; says why.
        ChainUnavailable: the chain could not be asked.
    """
    if not gateway.code(token):
        raise DomainUnknown(f"there is no contract at {token}")
    chain_id = gateway.chain_id
    told = _ask(gateway, token, "eip712Domain()")
    if told is None:
        name = _text(_ask(gateway, token, "name()"), "name()")
        version = _text(_ask(gateway, token, "version()"), "version()")
    else:
        name, version = _by_eip_5267(told, chain_id, token)
    domain = TokenDomain(name, version, chain_id, token)
    separator = _ask(gateway, token, "DOMAIN_SEPARATOR()")
    if separator is not None and separator != domain_separator(domain):
        raise DomainUnknown("DOMAIN_SEPARATOR() is not that of the domain that the token tells")
    return domain


def domain_separator(domain: TokenDomain) -> bytes:
    """EIP-712's `hashStruct(eip712Domain)`, 32 bytes."""
    words = (
        _DOMAIN_TYPE,
        keccak(text=domain.name),
        keccak(text=domain.version),
        domain.chain_id,
        domain.token,
    )
    return keccak(encode(["bytes32", "bytes32", "bytes32", "uint256", "address"], words))


def _ask(gateway: ChainGateway, token: str, function: str) -> bytes | None:
    """What a function without arguments returns; None if the contract has none of that name."""
    try:
        answer = gateway.call(token, keccak(text=function)[:4])
    except CallReverted:
        return None
    if len(answer) > _ANSWER_BYTES_MAX:
        raise DomainUnknown(f"{function} answers {len(answer)} bytes")
    return answer or None  # a fallback function answers nothing to a call that it does not know


def _by_eip_5267(answer: bytes, chain_id: int, token: str) -> tuple[str, str]:
    types = ["bytes1", "string", "string", "uint256", "address", "bytes32", "uint256[]"]
    fields, name, version, told_chain_id, contract, _salt, extensions = _decoded(
        types, answer, "eip712Domain()"
    )
    if fields != _ALL_BUT_SALT or extensions:
        raise DomainUnknown("eip712Domain() has other fields than EIP-3009 tokens are signed with")
    if told_chain_id != chain_id:
        raise DomainUnknown(f"eip712Domain() is of chain {told_chain_id}, not {chain_id}")
    if contract.lower() != token:
        raise DomainUnknown(f"eip712Domain() is of the contract {contract.lower()}, not {token}")
    return _bounded(name, "eip712Domain()"), _bounded(version, "eip712Domain()")


def _text(answer: bytes | None, function: str) -> str:
    if answer is None:
        raise DomainUnknown(f"the contract has neither eip712Domain() nor {function}")
    (text,) = _decoded(["string"], answer, function)
    return _bounded(text, function)


def _bounded(text: str, function: str) -> str:
    if not 0 < len(text.encode()) <= TEXT_BYTES_MAX:
        raise DomainUnknown(f"{function} tells a text that is empty or too long")
    return text


def _decoded(types: list[str], answer: bytes, function: str) -> tuple[Any, ...]:
    try:
        return decode(types, answer)
    except (DecodingError, ValueError, OverflowError) as error:  # ValueError: not UTF-8
        raise DomainUnknown(f"{function} answers something else than {types}") from error
