"""Settings: read from `TALLYSTICK_*` variables or given by the caller; nothing is opened here."""

import os
import re
from collections.abc import Collection, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from engine.errors import CannotStart
from engine.nearest import nearest
from engine.setting_values import (
    ENDPOINTS_MAX,
    check_address,
    check_asset,
    check_assets,
    check_chain,
    check_database,
    check_endpoint,
    check_host,
    check_operator_key,
    check_price,
    check_private_key,
    check_store,
    check_symbol,
    check_url,
)

FINALITY_BLOCKS = 64
"""So deep a payment is final where nothing else is said: as deep as the home chain is followed."""


Address = Annotated[str, AfterValidator(check_address)]
DollarPrice = Annotated[str, AfterValidator(check_price)]
PrivateKey = Annotated[SecretStr, AfterValidator(check_private_key)]


class Token(BaseModel):
    """A token that may be spent: its symbol, where it lives, and that it has a USD price."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: Annotated[str, AfterValidator(check_symbol)] = Field(
        description="What requests call it"
    )
    asset: Annotated[str, AfterValidator(check_asset)] = Field(
        description="CAIP-19 id, such as eip155:8453/erc20:0x…"
    )
    decimals: int = Field(ge=0, le=36)
    usd_price: Literal["1"] | None = Field(
        default=None, description='USD per token; "1" for a dollar token; without one it is denied'
    )

    @property
    def chain(self) -> str:
        """The CAIP-2 id of the chain it lives on."""
        return self.asset.partition("/")[0]


def _network(text: str) -> str:
    if not re.fullmatch(r"eip155:[1-9][0-9]{0,15}", text):
        raise ValueError("takes a CAIP-2 id of an EVM chain, such as eip155:8453")
    return text


class Network(BaseModel):
    """A chain that payments can be on beside the home chain, or how deep blocks of that are final.

    A payment counts as confirmed with `confirmations` blocks on top of it, and is captured with
    `finality`; a reorganisation that is deeper is not expected there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    chain: Annotated[str, AfterValidator(_network)] = Field(description="CAIP-2 id")
    rpc: tuple[Annotated[SecretStr, AfterValidator(check_endpoint)], ...] = Field(
        default=(),
        max_length=ENDPOINTS_MAX,
        description="Its JSON-RPC endpoints, of which the next is asked if one fails; of the home "
        "chain none",
    )
    confirmations: int = Field(default=2, ge=0, le=1024)
    finality: int = Field(default=FINALITY_BLOCKS, ge=0, le=1024)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.confirmations > self.finality:
            raise ValueError("confirmations: takes at most as many blocks as finality")
        return self


def _ip_networks(text: str) -> str:
    try:
        for part in text.split():
            ip_network(part)
    except ValueError:
        raise ValueError(
            "takes IP networks with spaces between, such as 127.0.0.0/8 fd00::/8"
        ) from None
    return text


def _tokens(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    assets = [token.asset for token in tokens]
    if len(set(assets)) < len(assets):
        raise ValueError("takes each asset once")
    return tokens


def _networks(networks: tuple[Network, ...]) -> tuple[Network, ...]:
    chains = [network.chain for network in networks]
    if len(set(chains)) < len(chains):
        raise ValueError("takes each chain once")
    return networks


class Settings(BaseSettings):
    """Everything that can be configured. Unknown names given to the constructor are refused."""

    model_config = SettingsConfigDict(
        env_prefix="TALLYSTICK_", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    data_dir: Path = Field(
        default=Path("tallystick-data"), description="The one directory that holds all state"
    )
    database: Annotated[SecretStr, AfterValidator(check_database)] | None = Field(
        default=None,
        description="`postgresql://…` for one database and many servers; default: a file of SQLite",
    )
    store: Annotated[SecretStr, AfterValidator(check_store)] | None = Field(
        default=None,
        description="Where payers store: `memory`, `valkey://…` or `package.module:name`; "
        "default: `sql`, beside the ledger or in its PostgreSQL",
    )
    host: str = Field(default="127.0.0.1", description="Address that `serve` listens on")
    port: int = Field(default=8402, ge=0, le=65535, description="Port that `serve` listens on")
    mcp_hosts: tuple[Annotated[str, AfterValidator(check_host)], ...] = Field(
        default=(),
        description="Names by which `/mcp` may be asked beside `localhost`, as JSON",
    )
    admin_key: Annotated[SecretStr, AfterValidator(check_operator_key)] | None = Field(
        default=None,
        min_length=24,
        description="Operator key of the default workspace; without it the first start prints one",
    )
    kek: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Secret that encrypts stored keys; default: a file in the data directory; "
        "to be set with TALLYSTICK_DATABASE",
    )
    chain: Annotated[str, AfterValidator(check_chain)] = Field(
        default="embedded",
        description="`embedded` (eth-tester in process) or the URL of a JSON-RPC endpoint; "
        "several with spaces between must say the same",
    )
    rpc_port: int = Field(
        default=8545, ge=0, le=65535, description="Loopback port that serves the embedded chain"
    )
    registry: Address | None = Field(
        default=None, description="SessionRegistry address (deployed by itself on `embedded`)"
    )
    operator_key: PrivateKey | None = Field(
        default=None,
        description="Private key that registers, revokes, anchors; made by itself on `embedded`",
    )
    facilitator_key: PrivateKey | None = Field(
        default=None, description="Private key of `tallystick facilitator`, which pays the gas"
    )
    confirmations: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="Blocks on top before a registration counts, or the facilitator tells success",
    )
    poll_interval_ms: int = Field(default=1000, ge=10, description="How often the chain is read")
    anchor_interval_s: int = Field(
        default=60, ge=0, description="How often the log is anchored; 0: only when asked"
    )
    reconcile_interval_s: int = Field(
        default=300, ge=0, description="How often ledger and chain are compared; 0: only when asked"
    )
    public_metrics: bool = Field(
        default=False,
        description="`/metrics` for anybody who reaches it, not only with the admin key",
    )
    hold_ttl_s: int = Field(
        default=900, ge=1, le=604_800, description="Life of a hold that is not captured"
    )
    approval_ttl_s: int = Field(
        default=900, ge=1, le=604_800, description="How long an approval waits to be granted"
    )
    tokens: Annotated[tuple[Token, ...], AfterValidator(_tokens)] = Field(
        default=(), description="Spendable tokens, as JSON (the test USDC is added on `embedded`)"
    )
    networks: Annotated[tuple[Network, ...], AfterValidator(_networks)] = Field(
        default=(), description="Chains of payments beside the home chain, as JSON"
    )
    pay_to: Address | None = Field(
        default=None,
        description="Account that the store is paid to; without it nothing is sold (the operator's "
        "on `embedded`)",
    )
    paid_in: Annotated[str, AfterValidator(check_assets)] | None = Field(
        default=None,
        description="CAIP-19 id of the token that the store is paid in, or several with spaces "
        "between; default: USDC of the main chain",
    )
    facilitator: Annotated[str, AfterValidator(check_url)] | None = Field(
        default=None,
        description="URL of the x402 facilitator that settles what is sold (its own on `embedded`)",
    )
    price_put: DollarPrice = Field(default="0.01", description="Dollars to put a value, or `free`")
    price_get: DollarPrice = Field(default="0.001", description="Dollars to get one")
    price_list: DollarPrice = Field(default="0.001", description="Dollars to list a page")
    price_delete: DollarPrice = Field(default="0.01", description="Dollars to delete one")
    sign_in_origin: str | None = Field(
        default=None,
        description="Where clients reach the server (`https://host`): who paid reads again there "
        "by signing in",
    )
    sign_in_lease_s: int = Field(
        default=3600, ge=1, le=31_536_000, description="For so long after a payment"
    )
    studio_origin: str | None = Field(
        default=None,
        description="Where browsers open the Studio (`https://host`); default: localhost:PORT",
    )
    webhook_networks: Annotated[str, AfterValidator(_ip_networks)] | None = Field(
        default=None,
        description="IP networks that webhooks may be sent to though they are not public, with "
        "spaces between",
    )

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The URLs of the chain's endpoints, in the order in which they are asked; none of the
        embedded one.
        """
        return () if self.chain == "embedded" else tuple(self.chain.split())

    @property
    def webhook_ip_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks that `webhook_networks` names."""
        return tuple(ip_network(part) for part in (self.webhook_networks or "").split())


CLIENT_VARIABLES = frozenset(
    (
        "TALLYSTICK_URL",
        "TALLYSTICK_API_KEY",
        "TALLYSTICK_SESSION_TOKEN",
        "TALLYSTICK_CLIENT_SECRET",
        "TALLYSTICK_OWNER_KEY_FILE",
    )
)
"""Variables that the command line reads when it talks to a server."""


def load_settings(**overrides: Any) -> Settings:
    """Read the environment. What is misspelt or malformed is named with what it takes instead.

    A value that is refused is not repeated: it may be a secret.

    Raises:
        CannotStart: naming the variables.
    """
    prefix = "TALLYSTICK_"
    known = {prefix + name.upper() for name in Settings.model_fields} | CLIENT_VARIABLES
    if unknown := sorted(n for n in os.environ if n.startswith(prefix) and n not in known):
        told = (name + _meant(prefix, name, known) for name in unknown)
        raise CannotStart(f"unknown setting: {', '.join(told)}")
    try:
        return Settings(**overrides)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        raise CannotStart("; ".join(_in_words(prefix, item) for item in found)) from None
    except SettingsError as error:
        name = re.search(r'field "(\w+)"', str(error))
        raise CannotStart(f"{prefix}{name[1].upper() if name else '…'}: takes JSON") from None


def _meant(prefix: str, name: str, known: Collection[str]) -> str:
    """The nearest name, if one is near; what all begin with does not count."""
    ends = [each.removeprefix(prefix) for each in known]
    found = nearest(name.removeprefix(prefix), ends)
    return "" if found is None else f" (is {prefix}{found} meant?)"


_TAKES: Mapping[str, str] = {
    "int_parsing": "takes a whole number",
    "int_parsing_size": "takes a smaller number",
    "finite_number": "takes a whole number",
    "int_from_float": "takes a whole number",
    "int_type": "takes a whole number",
    "greater_than_equal": "takes a number of at least {ge}",
    "less_than_equal": "takes a number of at most {le}",
    "bool_parsing": "takes true or false",
    "too_short": "takes at least {min_length} characters",
    "too_long": "takes at most {max_length} of them",
    "string_type": "takes text",
    "literal_error": "takes {expected}",
    "tuple_type": "takes a JSON list",
    "model_type": "takes a JSON object",
    "missing": "is missing",
    "extra_forbidden": "is not known",
}
"""What a setting takes, for each of pydantic's types of error that ours can raise."""


def _in_words(prefix: str, error: Any) -> str:
    name, *inside = (str(part) for part in error["loc"])
    entry = f" entry {int(inside[0]) + 1}" if inside else ""
    field = f", {inside[1]}" if len(inside) > 1 else ""
    context = error.get("ctx", {})
    takes = (
        str(context["error"])
        if error["type"] == "value_error"
        else _TAKES.get(error["type"], "takes something else").format_map(context)
    )
    return f"{prefix}{name.upper()}{entry}{field}: {takes}"
