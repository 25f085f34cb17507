"""One spelling for every merchant, host, chain and asset.

Allow-lists compare exact text, so two spellings of one thing must never both exist: each function
here returns the canonical form or raises, and gives a canonical form back unchanged.
"""

import ipaddress
import re
import unicodedata

IDENTIFIER_LENGTH_MAX = 256

_EVM_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]{40}")
_CHAIN = re.compile(r"[-a-z0-9]{3,8}:[-_a-zA-Z0-9]{1,32}")
_EVM_CHAIN = re.compile(r"eip155:[1-9][0-9]{0,31}")
_HOST = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?)*"
)
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)$")
_ASSET = re.compile(r"([^/]+)/([-a-z0-9]{3,8}):([-.%a-zA-Z0-9]{1,128})")


# Not Cn (unassigned): which characters are, depends on the Unicode version of the Python that asks.
_UNSEEN = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})


class IdentifierError(ValueError):
    """Text that names no merchant, host, chain or asset. The message names no field."""


def normalise_merchant(text: str) -> str:
    """The canonical name of a merchant, at most `IDENTIFIER_LENGTH_MAX` characters.

    An EVM address becomes lower case; any other name is put into Unicode NFC and is otherwise kept
    as it is, upper and lower case apart. Raises `IdentifierError` for empty or longer text, spaces
    at either end, and characters that nobody sees or that have no fixed meaning (Unicode categories
    Cc, Cf, Co, Cs, Zl, Zp): two names that look alike must not differ by them.
    """
    if not 0 < len(text) <= IDENTIFIER_LENGTH_MAX:
        raise IdentifierError(f"a merchant has 1 to {IDENTIFIER_LENGTH_MAX} characters")
    name = unicodedata.normalize("NFC", text)
    if len(name) > IDENTIFIER_LENGTH_MAX:
        raise IdentifierError(f"a merchant has 1 to {IDENTIFIER_LENGTH_MAX} characters")
    if _EVM_ADDRESS.fullmatch(name):
        return name.lower()
    if name != name.strip():
        raise IdentifierError("a merchant has no space at its ends")
    if name.isascii() and name.isprintable():
        return name
    for character in name:
        if unicodedata.category(character) in _UNSEEN:
            raise IdentifierError(f"a merchant has no character U+{ord(character):04X}")
    return name


def normalise_host(text: str) -> str:
    """The host of a URL: in lower case, without the dot of the root, an IPv6 address in brackets.

    Host names are in ASCII (punycode); one that ends in a number is an IPv4 address of four decimal
    numbers (WHATWG URL). Raises `IdentifierError`.
    """
    host = text.lower().removesuffix(".")
    try:
        if host[:1] == "[" and host[-1:] == "]" and "%" not in host:  # a zone means nothing here
            return f"[{ipaddress.IPv6Address(host[1:-1])}]"
        if not _HOST.fullmatch(host):
            raise IdentifierError("its host is none")
        if _NUMERIC.fullmatch(host.rpartition(".")[2]):
            return str(ipaddress.IPv4Address(host))
    except ipaddress.AddressValueError as error:
        raise IdentifierError(str(error)) from None
    return host


def normalise_chain(text: str) -> str:
    """A CAIP-2 chain id, `namespace:reference`, such as `eip155:8453`.

    CAIP-2 fixes the case, so there is nothing to fold; an `eip155` reference must be a decimal
    number without leading zeros, or one chain would have many names. Raises `IdentifierError`.
    """
    pattern = _EVM_CHAIN if text.startswith("eip155:") else _CHAIN
    if not pattern.fullmatch(text):
        raise IdentifierError("a chain is a CAIP-2 id such as eip155:8453")
    return text


def normalise_asset(text: str) -> str:
    """A CAIP-19 asset type, such as `eip155:8453/erc20:0x833589fcd6edb6e08f4c7c32d4f71b54bda02913`.

    The contract address of an `erc20` becomes lower case; other references keep their case. An id
    of one single item (a third part) is not money and is refused. Raises `IdentifierError`.
    """
    match = _ASSET.fullmatch(text)
    if match is None:
        raise IdentifierError("a token is a CAIP-19 asset type such as eip155:1/erc20:0x…")
    chain, namespace, reference = normalise_chain(match[1]), match[2], match[3]
    if namespace == "erc20":
        if not _EVM_ADDRESS.fullmatch(reference):
            raise IdentifierError("an erc20 token is named by its contract's address")
        reference = reference.lower()
    return f"{chain}/{namespace}:{reference}"
