"""A resource has one merchant, terms one spelling, and token units are rounded up to dollars."""

from dataclasses import replace
from typing import Any

import pytest

from engine.payments.terms import Terms, read_resource
from engine.policy.identifiers import normalise_merchant

TERMS = Terms(
    scheme="exact",
    network="eip155:8453",
    asset="eip155:8453/erc20:0x" + "83" * 20,
    amount="10000",
    pay_to="0x" + "5b" * 20,
    resource="https://shop.test/",
    method="GET",
    body_sha256=None,
    timeout_s=300,
)


@pytest.mark.parametrize(
    ("url", "merchant"),
    [
        ("https://shop.test/a?b=c#d", "shop.test"),
        ("HTTPS://Shop.TEST:443/", "shop.test"),
        ("http://shop.test:80", "shop.test"),
        ("https://shop.test:80/", "shop.test:80"),
        ("https://shop.test./", "shop.test"),
        ("https://xn--bcher-kva.test/", "xn--bcher-kva.test"),
        ("http://127.0.0.1:8402/x", "127.0.0.1:8402"),
        ("http://[2001:DB8:0::1]/", "[2001:db8::1]"),
        ("http://[::1]:9/", "[::1]:9"),
    ],
)
def test_a_merchant_has_one_name(url: str, merchant: str) -> None:
    resource, named = read_resource(url)
    assert (resource, named) == (url.partition("#")[0], merchant)
    assert normalise_merchant(merchant) == merchant


@pytest.mark.parametrize(
    "url",
    [
        *("", "shop.test", "//shop.test", "ftp://shop.test/", "https://", "https:///x"),
        *("https://u@shop.test/", "https://shop.test@evil.test/", "https://shop.test\\@evil/"),
        *(
            "https://sh%6fp.test/",
            "https://shop..test/",
            "https://-shop.test/",
            "https://b\u00fc.test/",
        ),
        *("http://0x7f000001/", "http://2130706433/", "http://127.1/", "http://127.0.0.01/"),
        *(
            "http://shop.test:0/",
            "http://shop.test:99999/",
            "http://[::1/",
            "http://[v1.a]/",
            "http://[fe80::1%25e]/",
        ),
        *("https://shop.test/ x", "https://shop.test/\n", "https://shop.test/" + "x" * 2_048),
    ],
)
def test_a_url_that_can_be_read_in_two_ways_is_none(url: str) -> None:
    with pytest.raises(ValueError, match="takes a"):
        read_resource(url)


def test_terms_are_read_back_as_they_were_written() -> None:
    for terms in (TERMS, replace(TERMS, resource=None, method="TRANSFER")):
        assert Terms.read(terms.to_json()) == terms


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("amount", each) for each in ("0", "01", "1.0", 1, None, "1e6", str(2**256))),
        *(("pay_to", each) for each in ("0x" + "5B" * 20, "shop", None)),
        *(("asset", each) for each in ("eip155:1/erc20:0x" + "83" * 20, "usdc", None)),
        *(("timeout_s", each) for each in (0, True, "300", 1.5)),
        *(("method", each) for each in ("get", "", None)),
        *(("scheme", "upto"), ("body_sha256", "AB" * 32), ("resource", 7), ("network", None)),
    ],
)
def test_terms_of_another_spelling_are_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"terms.{field}: "):
        Terms.read(TERMS.to_json() | {field: value})


@pytest.mark.parametrize("told", [None, [], "terms"])
def test_what_is_no_object_is_no_terms(told: object) -> None:
    with pytest.raises(ValueError, match="takes an object"):
        Terms.read(told)


def test_terms_have_all_their_fields_and_no_others() -> None:
    for field, value in TERMS.to_json().items():
        others = {name: told for name, told in TERMS.to_json().items() if name != field}
        for told in (others, others | {field: value, "more": 1}):
            with pytest.raises(ValueError, match=r"terms\.(\w+): is (missing|not known)"):
                Terms.read(told)
