"""A merchant that is a host has one name, and another spelling of it is refused where it is new."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidInput
from engine.payments.terms import read_resource
from engine.sessions.merchants import name_as_paid
from engine.sessions.session import SessionView
from tests.world import WORKSPACE, World

ADDRESS = "0x" + "5b" * 20
MISSPELT = [
    ("API.shop.test", "api.shop.test"),
    ("api.shop.test.", "api.shop.test"),
    ("https://api.shop.test", "api.shop.test"),
    ("HTTP://api.shop.test:8402/a?b#c", "api.shop.test:8402"),
    ("http://localhost:8402", "localhost:8402"),
    ("http://[::1]", "[::1]"),
    ("api.shop.test/v1", "api.shop.test"),
    ("api.shop.test:443", "api.shop.test"),
    ("api.shop.test:80", "api.shop.test"),
    ("api.shop.test:", "api.shop.test"),
    ("api.shop.test:08080", "api.shop.test:8080"),
    ("127.0.0.1:80", "127.0.0.1"),
    ("[2001:DB8:0::1]", "[2001:db8::1]"),
    ("[::1]:443", "[::1]"),
    ("bücher.example", "xn--bcher-kva.example"),
    ("Bücher.example:8080", "xn--bcher-kva.example:8080"),
    ("straße.example", "xn--strae-oqa.example"),
    ("日本。テスト", "xn--wgv71a.xn--zckzah"),
    ("i\u2764.example", "xn--i-7iq.example"),
    ("\uff53\uff48\uff4f\uff50.example", "shop.example"),
]
NO_HOST = [
    *(
        "books",
        "Casino",
        "Casino.",
        "casino:443",
        "a b.c",
        "Dr. Smith",
        "LOCALHOST:80",
        "localhost.",
    ),
    *("v1.2", "1.2.3", "127.0.0.01", "a..b", "-a.b", "O'Reilly.com", "Pay@shop.test", "and/or.x"),
    *("shop.test:0", "shop.test:65536", "[x]", "[v1.a]", "Étage", "é..b", "é.\ue000", "*"),
    *("did:web:Shop.test", "ftp://Shop.test", ADDRESS, "データ"),
]
UNPAYABLE = [
    ("https://user@shop.test/", "is a URL that nothing can be paid to"),
    ("https://", "is a URL that nothing can be paid to"),
    ("https://shop.test:0/", "its port is none"),
    ("http://[fe80::1%25e]/", "is a URL that nothing can be paid to"),
    ("http://127.1/", "is a URL that nothing can be paid to"),
    ("*.shop.test", "a merchant is one host"),
    ("*.test", "a merchant is one host"),
    ("https://*.test", "a merchant is one host"),
    ("*.bücher.example", "a merchant is one host"),
]


@pytest.mark.parametrize(("name", "paid"), MISSPELT)
def test_a_host_is_named_as_payments_to_it_are(name: str, paid: str) -> None:
    assert name_as_paid(name) == name_as_paid(paid) == paid
    assert read_resource(f"https://{paid}/")[1] == paid


@pytest.mark.parametrize("name", NO_HOST)
def test_what_is_no_host_keeps_its_name(name: str) -> None:
    assert name_as_paid(name) == name


@pytest.mark.parametrize(("name", "reason"), UNPAYABLE)
def test_what_no_payment_can_be_made_to_has_no_name(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        name_as_paid(name)


labels = st.from_regex(r"[a-zA-Z_]([-a-zA-Z0-9_]{0,5}[a-zA-Z0-9_])?", fullmatch=True)


@given(
    st.sampled_from(("http", "HTTPS")),
    st.lists(labels, min_size=2, max_size=4).map(".".join)
    | st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6).map(lambda address: f"[{address}]".upper()),
    st.none() | st.integers(1, 65_535),
    st.sampled_from(("", "/", "/a/B?c")),
)
def test_what_is_written_of_a_url_names_its_merchant(
    scheme: str, host: str, port: int | None, path: str
) -> None:
    authority = host if port is None else f"{host}:{port}"
    url = f"{scheme}://{authority}{path}"
    _, merchant = read_resource(url)
    if port in (80, 443):  # one of them is the scheme's own and the other is nobody's
        merchant = merchant.removesuffix(f":{port}")
    assert {name_as_paid(name) for name in (url, authority + path, merchant)} == {merchant}


# Where they are taken


def conditions(name: str) -> dict[str, Any]:
    return {"conditions": ("at most 9 payments per day", f"never merchant {name}")}


def caps(name: str) -> dict[str, Any]:
    return {"conditions": (f"merchant {name} at most 0.001 USD per day",)}


def merchants(name: str) -> dict[str, Any]:
    return {"merchants": ("books", name)}


@pytest.mark.parametrize(
    ("bounds", "field", "right"),
    [
        (conditions, "conditions[1]", "write 'never merchant api.shop.test'"),
        (caps, "conditions[0]", "write 'merchant api.shop.test at most 0.001 USD per day'"),
        (merchants, "allowed_merchants[1]", "write 'api.shop.test'"),
    ],
)
def test_a_new_session_is_told_the_right_spelling(
    world: World, bounds: Callable[[str], dict[str, Any]], field: str, right: str
) -> None:
    before = world.engine.ready()["records"]
    with pytest.raises(InvalidInput, match=right) as refused:
        world.session(**bounds("API.shop.test"))
    assert refused.value.field == field
    with pytest.raises(InvalidInput, match="a merchant is one host"):
        world.session(**bounds("*.shop.test"))
    assert world.engine.ready()["records"] == before
    for name in ("api.shop.test", "Casino", "api.shop.test:8080"):
        assert world.session(**bounds(name)).state == "active"


def test_a_restriction_is_told_the_right_spelling(world: World) -> None:
    view = world.session()

    def restrict(name: str) -> SessionView:
        return world.engine.sessions.restrict(
            WORKSPACE, view.id, (f"never merchant {name}",), by="key_1"
        )

    with pytest.raises(InvalidInput, match=r"write 'never merchant api\.shop\.test'") as refused:
        restrict("API.shop.test")
    assert refused.value.field == "restrictions[0]"
    assert restrict("api.shop.test").restrictions == ("never merchant api.shop.test",)


def test_what_stands_already_binds_and_can_be_delegated(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = ("merchant OLD.test at most 9 USD per day", "never merchant EVIL.test")
    with monkeypatch.context() as earlier:
        earlier.setattr("engine.sessions.sentences.name_as_paid", str)
        earlier.setattr("engine.sessions.merchants.name_as_paid", str)
        parent = world.session(conditions=old, merchants=("OLD.test", "EVIL.test"))
    world.reopen()
    view = world.engine.sessions.get(WORKSPACE, parent.id)
    assert (view.grant.conditions, view.grant.merchants) == (old, ("OLD.test", "EVIL.test"))
    assert world.pay(view, 1, merchant="EVIL.test").decision["rule"] == "never_merchant"
    child = world.session(
        parent_id=parent.id,
        conditions=("merchant OLD.test at most 8 USD per day", old[1]),
        merchants=("OLD.test",),
        limits=parent.grant.limits,
    )
    assert world.pay(child, 8, merchant="OLD.test").decision["rule"] == "all"
    assert world.pay(child, 1, merchant="OLD.test").decision["rule"] == "merchant_cap"
    with pytest.raises(InvalidInput, match=r"write 'never merchant new\.test'"):
        world.session(parent_id=parent.id, conditions=(*old, "never merchant NEW.test"))
