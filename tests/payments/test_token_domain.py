"""The domain of a token is what its contract says and its separator confirms, or unknown."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_utils.address import to_checksum_address
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from web3.utils.address import get_create_address

from engine.chain import contracts
from engine.chain.deploy import create
from engine.chain.embedded import EmbeddedChain
from engine.chain.gateway import ChainUnavailable
from engine.payments.authorization import TokenDomain
from engine.payments.token_domain import DomainUnknown, domain_separator, read_token_domain
from tests.payments.tokens import deployed, selector

EIP_5267 = ["bytes1", "string", "string", "uint256", "address", "bytes32", "uint256[]"]
NAME = {"name()": encode(["string"], ["USD Coin"]), "version()": encode(["string"], ["2"])}


@pytest.fixture(scope="module")
def chain() -> Iterator[EmbeddedChain]:
    opened = EmbeddedChain(None)
    yield opened
    opened.close()


def token(chain: EmbeddedChain, told: Mapping[str, bytes], *, reverting: bool = True) -> str:
    """A contract that answers this, and reverts at everything else or answers nothing."""
    selectors = [selector(function) for function in told]
    return deployed(chain, chain.faucet, "Answers", selectors, list(told.values()), reverting)


def next_address(chain: EmbeddedChain) -> str:
    """Where the faucet's next contract will stand."""
    sender = to_checksum_address(chain.faucet.address)
    return get_create_address(sender, chain.transaction_count(sender.lower())).lower()


def by_eip_5267(chain: EmbeddedChain, **changes: Any) -> dict[str, bytes]:
    """What `eip712Domain()` of the next contract answers."""
    told = {
        "fields": b"\x0f",
        "name": "USD Coin",
        "version": "2",
        "chain_id": chain.chain_id,
        "contract": next_address(chain),
        "salt": bytes(32),
        "extensions": [],
    } | changes
    return {"eip712Domain()": encode(EIP_5267, list(told.values()))}


def test_the_test_token_tells_its_domain(chain: EmbeddedChain) -> None:
    usdc = create(chain, chain.faucet, contracts.TEST_USDC)
    domain = read_token_domain(chain, usdc)
    assert domain == TokenDomain("Test USD Coin", "2", chain.chain_id, usdc)
    separator = contracts.read(chain, contracts.TEST_USDC, usdc, "DOMAIN_SEPARATOR")
    assert domain_separator(domain) == separator


def test_a_token_without_eip_5267_is_asked_for_name_and_version(chain: EmbeddedChain) -> None:
    hostile = deployed(chain, chain.faucet, "Honest")
    assert read_token_domain(chain, hostile) == TokenDomain("Hostile", "1", chain.chain_id, hostile)


@pytest.mark.parametrize("reverting", [True, False])
def test_a_token_needs_no_separator(chain: EmbeddedChain, reverting: bool) -> None:
    expected = TokenDomain("USD Coin", "2", chain.chain_id, next_address(chain))
    assert read_token_domain(chain, token(chain, NAME, reverting=reverting)) == expected
    expected = TokenDomain("USD Coin", "2", chain.chain_id, next_address(chain))
    told = by_eip_5267(chain)
    assert read_token_domain(chain, token(chain, told, reverting=reverting)) == expected


def test_eip_5267_goes_before_name_and_version(chain: EmbeddedChain) -> None:
    told = NAME | by_eip_5267(chain, name="Coin", version="3")
    domain = read_token_domain(chain, token(chain, told))
    assert (domain.name, domain.version) == ("Coin", "3")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"chain_id": 1}, "is of chain 1, not"),
        ({"contract": "0x" + "01" * 20}, "is of the contract 0x0101"),
        ({"fields": b"\x1f"}, "other fields"),
        ({"fields": b"\x0d"}, "other fields"),
        ({"extensions": [5]}, "other fields"),
        ({"name": ""}, "empty or too long"),
        ({"version": "2" * 257}, "empty or too long"),
        ({"name": "x" * 5000}, "answers .* bytes"),
    ],
)
def test_what_eip_5267_tells_must_be_this_token_on_this_chain(
    chain: EmbeddedChain, changes: dict[str, Any], reason: str
) -> None:
    told = by_eip_5267(chain, **changes)
    with pytest.raises(DomainUnknown, match=reason):
        read_token_domain(chain, token(chain, NAME | told))


@pytest.mark.parametrize("also", [{}, {"eip712Domain()": b""}])
@pytest.mark.parametrize(
    "separator",
    [bytes(32), b"\x01" * 32, b"\x01", b"\x01" * 64],
    ids=["zero", "another", "short", "long"],
)
def test_a_separator_of_another_domain_makes_it_unknown(
    chain: EmbeddedChain, separator: bytes, also: dict[str, bytes]
) -> None:
    told = NAME | also | {"DOMAIN_SEPARATOR()": separator}
    with pytest.raises(DomainUnknown, match="DOMAIN_SEPARATOR"):
        read_token_domain(chain, token(chain, told, reverting=False))


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({}, r"neither eip712Domain\(\) nor name\(\)"),
        ({"name()": NAME["name()"]}, r"neither eip712Domain\(\) nor version\(\)"),
        (NAME | {"name()": b"USD Coin".ljust(32, b"\0")}, r"name\(\) answers something else"),
        (NAME | {"name()": NAME["name()"][:70]}, r"name\(\) answers something else"),
        (
            NAME | {"name()": encode(["uint256", "uint256"], [32, 2**255])},
            r"name\(\) answers something else",
        ),
        (NAME | {"version()": encode(["bytes"], [b"\xff\xfe"])}, r"version\(\) answers something"),
        (NAME | {"eip712Domain()": b"\x0f"}, r"eip712Domain\(\) answers something else"),
    ],
)
def test_a_token_that_says_nothing_or_nonsense_is_refused_with_a_reason(
    chain: EmbeddedChain, told: dict[str, bytes], reason: str
) -> None:
    with pytest.raises(DomainUnknown, match=reason):
        read_token_domain(chain, token(chain, told))


def test_where_no_contract_is_there_is_no_domain(chain: EmbeddedChain) -> None:
    with pytest.raises(DomainUnknown, match="there is no contract at 0x01"):
        read_token_domain(chain, "0x" + "01" * 20)


def test_a_chain_that_cannot_be_asked_is_no_finding(chain: EmbeddedChain) -> None:
    closed = EmbeddedChain(None)
    closed.close()
    with pytest.raises(ChainUnavailable):
        read_token_domain(closed, "0x" + "01" * 20)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["eip712Domain()", "name()", "version()", "DOMAIN_SEPARATOR()"]),
        st.binary(max_size=256) | st.sampled_from(list(NAME.values())),
    )
)
def test_whatever_a_contract_answers_is_a_domain_of_its_own_or_a_reason(
    chain: EmbeddedChain, told: dict[str, bytes]
) -> None:
    address = token(chain, told, reverting=False)
    with contextlib.suppress(DomainUnknown):
        domain = read_token_domain(chain, address)
        assert (domain.chain_id, domain.token) == (chain.chain_id, address)
