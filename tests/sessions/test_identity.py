"""A session's on-chain identity: what the registry says of it is what the session says."""

import pytest
from eth_keys.datatypes import PrivateKey, PublicKey
from eth_utils.crypto import keccak

from engine.chain import contracts
from engine.chain.gateway import CallReverted
from engine.db.tables import SessionKey, table
from engine.errors import CannotStart
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from engine.sessions.vault import Vault
from tests.sessions.seen import events, grant_of, read
from tests.world import USD, World


@pytest.fixture
def view(world: World) -> SessionView:
    """A session that uses every parameter a grant has."""
    usdc = world.request(1).token
    return world.session(
        Limits(5 * USD, 10 * USD, 20 * USD, None, 3 * USD),
        mint_pkp=True,
        permissions=("pay", "swap"),
        merchants=("books.example", "ünï books"),
        tokens=(usdc,),
        chains=(world.engine.deployment.chain,),
    )


def test_the_token_id_is_the_hash_of_the_public_key(world: World, view: SessionView) -> None:
    """tokenId = uint256(keccak256(x ‖ y)), as in Lit Protocol's PKP contract."""
    assert view.token_id == keccak(view.public_key[1:])
    assert read(world.engine, "tokenId", view.public_key) == int.from_bytes(view.token_id)


def test_the_registry_answers_with_the_sessions_address(world: World, view: SessionView) -> None:
    token_id = int.from_bytes(view.token_id)
    assert read(world.engine, "exists", token_id) is True
    address = read(world.engine, "getEthAddress", token_id).lower()
    assert address == view.pkp_address == view.grant.session_key
    assert address == PublicKey(view.public_key[1:]).to_address()


def test_the_registry_knows_no_session_that_was_not_registered(world: World) -> None:
    waiting = world.create()
    token_id = int.from_bytes(waiting.token_id)
    assert read(world.engine, "exists", token_id) is False
    with pytest.raises(CallReverted) as refused:
        read(world.engine, "getEthAddress", token_id)
    assert contracts.revert_name(refused.value) == "SessionUnknown"


def test_the_public_key_is_published(world: World, view: SessionView) -> None:
    [minted] = events(world.engine, "PKPMinted", view)
    assert minted.args["pubkey"] == view.public_key


def test_the_grant_that_was_published_is_the_grant_that_is_enforced(
    world: World, view: SessionView
) -> None:
    [registered] = events(world.engine, "SessionRegistered", view)
    assert registered.args["grantHash"] == view.grant_hash == view.grant.hash()
    assert grant_of(registered) == view.grant.abi_tuple()
    assert registered.args["owner"].lower() == world.owner.address.lower()
    assert view.grant.audit_log == world.engine.deployment.log_id
    assert read(world.engine, "verifyGrant", int.from_bytes(view.token_id), view.grant.abi_tuple())
    other = (*view.grant.abi_tuple()[:-1], bytes(32))
    assert not read(world.engine, "verifyGrant", int.from_bytes(view.token_id), other)


def test_the_owner_signed_what_the_registry_hashes(world: World, view: SessionView) -> None:
    assert read(world.engine, "grantHash", view.grant.abi_tuple()) == view.grant_hash
    assert view.owner_signature is not None
    signer = view.grant.signer(view.owner_signature, world.engine.sessions.domain)
    assert signer == world.owner.address.lower()


def test_every_session_has_a_key_of_its_own(world: World, view: SessionView) -> None:
    other = world.create()
    assert other.public_key != view.public_key
    assert other.grant.salt != view.grant.salt


def test_the_private_key_is_kept_sealed_and_is_the_key_of_this_session(
    world: World, view: SessionView
) -> None:
    assert PrivateKey(secret_of(world, view.id)).public_key.to_bytes() == view.public_key[1:]
    with pytest.raises(CannotStart):
        secret_of(world, view.id, of="sess_another")


def secret_of(world: World, session_id: str, *, of: str | None = None) -> bytes:
    """The private key that is stored for a session, opened as that `of` another."""
    rows = table(SessionKey)
    with world.engine.database.reading() as connection:
        stored = connection.execute(rows.select().where(rows.c.session_id == session_id)).one()
    return Vault.from_file(world.settings.data_dir / "kek").open(stored.sealed, of or session_id)


def test_no_file_holds_the_private_key(own: World) -> None:
    session_id = own.session(mint_pkp=True).id
    secret = secret_of(own, session_id)
    own.engine.close()
    files = {path.name: path.read_bytes() for path in own.settings.data_dir.iterdir()}
    own.engine = World(own.settings.data_dir).engine
    assert {"ledger.sqlite3", "chain.sqlite3", "kek"} <= files.keys()
    forms = (secret, secret.hex().encode(), secret.hex().upper().encode())
    assert [name for name, file in files.items() if any(form in file for form in forms)] == []
