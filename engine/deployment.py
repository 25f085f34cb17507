"""What a data directory belongs to: one chain, its contracts, one log and the keys of both.

Made at the first start and kept in the `meta` table; every later start must find the same chain.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr, ValidationError

from engine.audit.checkpoint import verifier_key
from engine.audit.evidence import log_salt
from engine.chain import contracts, sender
from engine.chain.account import KeyAccount
from engine.chain.deploy import create, deploy
from engine.chain.endpoints import open_chain
from engine.chain.gateway import CallReverted, ChainGateway
from engine.db.claim import DATA_FILE, Claim
from engine.db.database import Database
from engine.db.meta import KEK_SALT, read_meta, write_meta
from engine.db.sqlite import SqliteDatabase
from engine.errors import CannotStart
from engine.identifiers import RandomBytes
from engine.sessions.vault import Vault
from engine.settings import Settings, Token
from engine.workspaces.access import DEFAULT_WORKSPACE

OPERATOR_FUNDS_WEI = 100 * 10**18

_ALWAYS_STORED = {
    "chain_id",
    "genesis_hash",
    "registry",
    "anchors",
    "registry_code",
    "anchors_code",
    "start_block",
    "origin",
    "log_id",
    "log_key",
    "log_verifier_key",
    "operator",
    "operator_address",
}


@dataclass(frozen=True)
class Deployment:
    """Everything that identifies this installation.

    `registry_code` and `anchors_code` are the Keccak-256 hashes of the contracts' code.
    """

    chain_id: int
    genesis_hash: bytes
    registry: str
    anchors: str
    registry_code: bytes
    anchors_code: bytes
    start_block: int
    origin: str
    log_id: bytes
    log_key: Ed25519PrivateKey
    operator: KeyAccount
    tokens: tuple[Token, ...]

    @cached_property
    def chain(self) -> str:
        """The CAIP-2 id of the chain."""
        return f"eip155:{self.chain_id}"

    @cached_property
    def tokens_by_name(self) -> Mapping[tuple[str, str], Token]:
        """The configured tokens by symbol and chain; of two, the first."""
        return {(each.symbol, each.chain): each for each in reversed(self.tokens)}

    @property
    def log_verifier_key(self) -> str:
        """The log's public key in the C2SP signed-note form."""
        return verifier_key(self.origin, self.log_key.public_key())


def stored_deployment(database: Database) -> dict[str, str]:
    """What the `meta` table holds of it; empty before the first start is done."""
    return {key: value for key, value in read_meta(database).items() if key != KEK_SALT}


def open_database(settings: Settings, claim: Claim) -> Database:
    """The ledger's database; raises `CannotStart`."""
    if settings.database is not None:
        # Drivers and chains that were not chosen are not imported: py-evm alone takes a second.
        from engine.db.postgres import PostgresDatabase

        return PostgresDatabase(settings.database.get_secret_value())
    return SqliteDatabase(settings.data_dir / DATA_FILE, claim.checked)


def open_gateway(settings: Settings, database: Database) -> ChainGateway:
    """The chain of this data directory; a new embedded one only before the first start is done.

    Raises:
        CannotStart: the file of its embedded chain is missing.
        ChainError: the chain does not answer.
    """
    if settings.chain != "embedded":
        return open_chain(settings.endpoints)
    path = settings.data_dir / "chain.sqlite3"
    stored = stored_deployment(database)
    if stored and not path.exists():
        # A new and empty chain in its place would only hide what happened.
        kept, setting = _kept(settings)
        raise CannotStart(
            f"{path} is missing: this {kept} belongs to the chain with id {stored['chain_id']}, "
            f"which is not embedded here or was removed: put it back, or choose another {setting}"
        )
    from engine.chain.embedded import EmbeddedChain

    return EmbeddedChain(path)


def establish(
    settings: Settings,
    database: Database,
    gateway: ChainGateway,
    vault: Vault,
    random_bytes: RandomBytes,
) -> Deployment:
    """Load the deployment, or make it at the first start.

    Raises:
        CannotStart: the chain, the contracts or the keys are not those of this data directory.
    """
    genesis = gateway.block(0)
    if genesis is None:
        raise CannotStart("the chain that TALLYSTICK_CHAIN names has no block 0")
    stored = stored_deployment(database)
    if not stored:
        stored = _first_start(settings, gateway, vault, genesis.hash, random_bytes)
        write_meta(database, stored)
    if missing := sorted(_ALWAYS_STORED - stored.keys()):
        raise CannotStart(f"the ledger's meta table has lost {', '.join(missing)}")
    try:
        deployment = _read(settings, vault, genesis.hash, stored)
    except (ValueError, ValidationError) as error:
        raise CannotStart(f"the ledger's meta table is damaged: {error}") from error
    _check(settings, gateway, deployment, stored)
    return deployment


def _read(
    settings: Settings, vault: Vault, genesis_hash: bytes, stored: dict[str, str]
) -> Deployment:
    """The deployment that the `meta` table describes.

    Raises:
        ValueError: something in it cannot be read.
        CannotStart: a key in it was sealed with another KEK.
    """
    origin, chain_id = stored["origin"], int(stored["chain_id"])
    tokens = list(settings.tokens)
    if "usdc" in stored:
        asset = f"eip155:{chain_id}/erc20:{stored['usdc']}"
        tokens.append(Token(symbol="USDC", asset=asset, decimals=6, usd_price="1"))
    operator = KeyAccount(vault.open(bytes.fromhex(stored["operator"]), "operator key"))
    log_key = Ed25519PrivateKey.from_private_bytes(
        vault.open(bytes.fromhex(stored["log_key"]), "log key")
    )
    deployment = Deployment(
        chain_id=chain_id,
        genesis_hash=genesis_hash,
        registry=stored["registry"],
        anchors=stored["anchors"],
        registry_code=bytes.fromhex(stored["registry_code"]),
        anchors_code=bytes.fromhex(stored["anchors_code"]),
        start_block=int(stored["start_block"]),
        origin=origin,
        log_id=bytes.fromhex(stored["log_id"]),
        log_key=log_key,
        operator=operator,
        tokens=tuple(tokens),
    )
    salt = log_salt(deployment.log_verifier_key)
    if deployment.log_id != contracts.log_id_of(operator.address, salt):
        raise ValueError("log_id is not that of this operator and this log key")
    # What is checked without the keys, such as by `tallystick fsck`, goes by these.
    public = (stored["log_verifier_key"], stored["operator_address"])
    if public != (deployment.log_verifier_key, operator.address.lower()):
        raise ValueError("log_verifier_key or operator_address is not that of its key")
    return deployment


def _first_start(
    settings: Settings,
    gateway: ChainGateway,
    vault: Vault,
    genesis_hash: bytes,
    random_bytes: RandomBytes,
) -> dict[str, str]:
    operator = _operator(settings, random_bytes)
    usdc = None
    if settings.chain == "embedded":
        # Imported here because it takes a second, and only the first start on it asks for it.
        from engine.chain.embedded import EmbeddedChain

        assert isinstance(gateway, EmbeddedChain)
        _check_unused(gateway, settings)
        gateway.fund(operator.address.lower(), OPERATOR_FUNDS_WEI)
        usdc = create(gateway, operator, contracts.TEST_USDC)
    if settings.registry is None:
        if settings.chain != "embedded":
            raise CannotStart(
                "TALLYSTICK_REGISTRY is not set: deploy the contracts with `tallystick deploy` "
                "and set it to the SessionRegistry's address"
            )
        deployed = deploy(gateway, operator, workspaces=(DEFAULT_WORKSPACE,))
        registry, anchors, start_block = deployed.registry, deployed.anchors, deployed.block_number
    else:
        registry, start_block = settings.registry, gateway.head().number
        anchors = _given_registry(gateway, registry, operator)
    origin = f"tallystick/{random_bytes(8).hex()}"
    log_key = Ed25519PrivateKey.generate()
    log_verifier_key = verifier_key(origin, log_key.public_key())
    salt = log_salt(log_verifier_key)
    log_id = _open_log(gateway, operator, anchors, salt)
    registry_code, anchors_code = gateway.code_hashes([registry, anchors])
    stored = {
        "chain_id": str(gateway.chain_id),
        "genesis_hash": genesis_hash.hex(),
        "registry": registry,
        "anchors": anchors,
        "registry_code": registry_code.hex(),
        "anchors_code": anchors_code.hex(),
        "start_block": str(start_block),
        "origin": origin,
        "log_id": log_id.hex(),
        "log_key": vault.seal(log_key.private_bytes_raw(), "log key").hex(),
        "log_verifier_key": log_verifier_key,
        "operator": vault.seal(operator.key, "operator key").hex(),
        "operator_address": operator.address.lower(),
    }
    return stored | ({"usdc": usdc} if usdc else {})


def _check_unused(chain: ChainGateway, settings: Settings) -> None:
    """A ledger that is gone must not come back empty beside the chain that remembers it.

    What a first start left behind that did not come to its end is no such memory.
    """
    written_after_it = (
        contracts.event_topic(contracts.SESSION_REGISTRY, "SessionRegistered"),
        contracts.event_topic(contracts.ANCHOR_REGISTRY, "Anchored"),
    )
    if chain.logs(from_block=0, to_block=chain.head().number, topics=[written_after_it]):
        shared = settings.database is not None
        raise CannotStart(
            f"{'TALLYSTICK_DATABASE' if shared else DATA_FILE} is empty or missing, but the "
            f"embedded chain in {settings.data_dir} holds sessions or anchors: put the ledger "
            "back, or choose another TALLYSTICK_DATA_DIR"
        )


def _operator(settings: Settings, random_bytes: RandomBytes) -> KeyAccount:
    if settings.operator_key is None:
        if settings.chain != "embedded":
            raise CannotStart(
                "TALLYSTICK_OPERATOR_KEY is not set: it registers, revokes and anchors on the chain"
            )
        return KeyAccount(random_bytes(32))
    return operator_account(settings.operator_key)


def operator_account(key: SecretStr) -> KeyAccount:
    """The account of a private key in hexadecimal, as `Settings` has checked it."""
    return KeyAccount(bytes.fromhex(key.get_secret_value().removeprefix("0x")))


def _given_registry(gateway: ChainGateway, registry: str, operator: KeyAccount) -> str:
    """The anchor registry of a session registry that somebody deployed before.

    Raises:
        CannotStart: it is no such contract, or this operator may not register in it.
    """
    anchors = contracts.anchors_of(gateway, registry)
    if anchors is None:
        raise CannotStart(
            f"TALLYSTICK_REGISTRY: there is no SessionRegistry at {registry} "
            f"on the chain with id {gateway.chain_id}"
        )
    role = contracts.read(gateway, contracts.SESSION_REGISTRY, registry, "OPERATOR_ROLE")
    if not contracts.read(
        gateway, contracts.SESSION_REGISTRY, registry, "hasRole", role, operator.address
    ):
        raise CannotStart(
            f"TALLYSTICK_OPERATOR_KEY: its account {operator.address} may not register "
            f"sessions in {registry}; grant it OPERATOR_ROLE there"
        )
    return anchors


def _open_log(gateway: ChainGateway, operator: KeyAccount, anchors: str, salt: bytes) -> bytes:
    log_id = contracts.log_id_of(operator.address, salt)
    data = contracts.call_data(contracts.ANCHOR_REGISTRY, "openLog", salt)
    try:
        tx_hash = sender.send(gateway, operator, to=anchors, data=data)
    except CallReverted as error:
        raise CannotStart(f"the log could not be opened on the chain: {error}") from error
    receipt = sender.wait(gateway, tx_hash, timeout_s=120, poll_s=0.05)
    if not receipt.succeeded:
        raise CannotStart(f"the log could not be opened: 0x{tx_hash.hex()} reverted")
    return log_id


def _kept(settings: Settings) -> tuple[str, str]:
    """What belongs to one chain, and the setting that names it."""
    if settings.database is not None:
        return "database", "TALLYSTICK_DATABASE"
    return "data directory", "TALLYSTICK_DATA_DIR"


def _check(
    settings: Settings, gateway: ChainGateway, deployment: Deployment, stored: dict[str, str]
) -> None:
    operator = deployment.operator
    kept, setting = _kept(settings)
    checks: tuple[tuple[str, Any, Callable[[], Any]], ...] = (
        ("chain id", stored["chain_id"], lambda: str(gateway.chain_id)),
        ("genesis block", stored["genesis_hash"], deployment.genesis_hash.hex),
        (
            "anchor registry",
            stored["anchors"],
            lambda: contracts.anchors_of(gateway, stored["registry"]),
        ),
    )
    for what, expected, actual in checks:
        if (found := actual()) != expected:
            raise CannotStart(
                f"this {kept} belongs to another chain: its {what} is {expected}, but the one in "
                f"TALLYSTICK_CHAIN has {found or 'no such contract'}; choose another {setting} "
                "for it"
            )
    if settings.registry not in (None, stored["registry"]):
        raise CannotStart(
            f"TALLYSTICK_REGISTRY is {settings.registry}, but this {kept} belongs to "
            f"{stored['registry']}"
        )
    if settings.operator_key is not None:
        given = operator_account(settings.operator_key).address
        if given != operator.address:
            raise CannotStart(
                f"TALLYSTICK_OPERATOR_KEY is the key of {given}, but this {kept} belongs to the "
                f"operator {operator.address}"
            )
