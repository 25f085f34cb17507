"""A setting that is refused is named with what it takes, in words and without its value."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.settings import Settings
from tests.cli.processes import called, one_line

ASSET = "eip155:1/erc20:0x" + "ab" * 20
DATABASE = (
    "takes a URL such as postgresql://user:password@host:5432/name: the port is a number, after a "
    "? stands what libpq knows, and @ / ? # % in a user or password are %40 %2F %3F %23 %25"
)


def refused(name: str, value: str) -> str:
    """What `deploy`, which reads the settings first, says of one of them."""
    return one_line(called("deploy", **{name.lower(): value}), 1).removeprefix("cannot_start: ")


def tokens(**fields: object) -> str:
    """Two tokens, of which the second has these fields."""
    good = {"symbol": "USDC", "asset": ASSET, "decimals": 6}
    return json.dumps([good, good | fields])


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("PORT", "http", "takes a whole number"),
        ("PORT", "9" * 5000, "takes a smaller number"),
        ("PORT", "65536", "takes a number of at most 65535"),
        ("RPC_PORT", "-1", "takes a number of at least 0"),
        ("POLL_INTERVAL_MS", "9", "takes a number of at least 10"),
        ("HOLD_TTL_S", "604801", "takes a number of at most 604800"),
        ("ADMIN_KEY", "hunter2", "takes at least 24 characters"),
        ("KEK", "hunter2", "takes at least 16 characters"),
        (
            "CHAIN",
            "ws://x",
            (
                "takes `embedded` or a URL that begins with http:// or https://, "
                "or several with spaces between"
            ),
        ),
        ("REGISTRY", "vitalik.eth", "takes an address: 0x and 40 hex digits"),
        ("OPERATOR_KEY", "hunter2", "takes a private key of 64 hex digits"),
        (
            "OPERATOR_KEY",
            "0x" + "ff" * 32,
            "takes a private key in the range of the curve (SEC 2, secp256k1)",
        ),
        ("DATABASE", "mysql://host/name", "takes a URL that begins with postgresql://"),
        ("DATABASE", "postgresql://user:secret@host:PORT/name", DATABASE),
        (
            "DATABASE",
            "postgresql://user:se@cret@host:5432/name",
            "takes a host without @: write @ in a user or password as %40",
        ),
        (
            "STORE",
            "valkey://:pass/word@host:6379/0",
            (
                "takes a URL in which the port is a number, and @ / ? # % in a user or password, "
                "and @ in a path, are %40 %2F %3F %23 %25"
            ),
        ),
        ("PUBLIC_METRICS", "maybe", "takes true or false"),
        ("TOKENS", "USDC", "takes JSON"),
        ("TOKENS", "{}", "takes a JSON list"),
    ],
)
def test_it_says_what_it_takes(name: str, value: str, takes: str) -> None:
    assert refused(name, value) == f"TALLYSTICK_{name}: {takes}"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"symbol": "usdc"}, "symbol: takes 1 to 12 capital letters, digits and dots"),
        ({"asset": "USDC"}, "asset: takes a CAIP-19 id, such as eip155:8453/erc20:0x…"),
        ({"decimals": -1}, "decimals: takes a number of at least 0"),
        ({"decimals": "six"}, "decimals: takes a whole number"),
        ({"usd_price": "1.01"}, "usd_price: takes '1'"),
        ({"price": "1"}, "price: is not known"),
    ],
)
def test_a_token_is_counted_and_its_field_is_named(fields: dict[str, object], said: str) -> None:
    assert refused("TOKENS", tokens(**fields)) == f"TALLYSTICK_TOKENS entry 2, {said}"


def test_endpoints_of_a_network_are_counted() -> None:
    networks = [{"chain": "eip155:1", "rpc": ["http://host"] * 9}]
    assert refused("NETWORKS", json.dumps(networks)) == (
        "TALLYSTICK_NETWORKS entry 1, rpc: takes at most 8 of them"
    )


def test_what_a_token_lacks_is_named() -> None:
    assert refused("TOKENS", '[{"symbol": "A", "decimals": 6}]') == (
        "TALLYSTICK_TOKENS entry 1, asset: is missing"
    )


LIBRARY = (
    "something else",
    "should",
    "Value error",
    "Input",
    "valid",
    "pattern",
    "items",
    "^",
    "\\",
    "parse",
)
scalar = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
json_text = st.recursive(
    scalar,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["symbol", "asset", "decimals", "usd_price", "x"]), inner, max_size=5
        )
    ),
    max_leaves=12,
).map(json.dumps)
text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=3, max_size=40)


@settings(max_examples=100, derandomize=True)
@given(st.sampled_from(sorted(Settings.model_fields)), text | json_text)
def test_no_librarys_words_and_no_value_reach_anybody(name: str, value: str) -> None:
    done = called("deploy", **{name: value})
    line = one_line(done, 1)
    assert line.startswith("cannot_start: TALLYSTICK_")
    told = line.replace("TALLYSTICK_", "")
    assert [word for word in LIBRARY if word in told] == []
    if name in ("kek", "admin_key", "operator_key"):
        assert value not in line.partition("TALLYSTICK_")[2].partition(": ")[2]
