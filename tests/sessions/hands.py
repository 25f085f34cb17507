"""What others do on an embedded chain with our contracts, and what the log tells of it."""

from eth_account.signers.local import LocalAccount

from engine.audit.replay import Replay
from engine.audit.verify import Report, verify
from engine.chain import contracts, sender
from engine.chain.embedded import EmbeddedChain
from engine.chain.gateway import Receipt
from engine.db import tables
from engine.evidence.chain_view import GatewayView
from engine.ledger.discrepancies import Discrepancy, open_discrepancies
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from tests.world import WORKSPACE, World, records_of

ETHER_WEI = 10**18

_records = tables.table(tables.Record)


def chain_of(world: World) -> EmbeddedChain:
    assert isinstance(world.engine.gateway, EmbeddedChain)
    return world.engine.gateway


def send(world: World, account: LocalAccount, data: bytes) -> Receipt:
    """Somebody calls the registry. The engine has not looked yet."""
    chain = chain_of(world)
    chain.fund(account.address.lower(), ETHER_WEI)
    tx_hash = sender.send(chain, account, to=world.engine.deployment.registry, data=data)
    receipt = chain.receipt(tx_hash)
    assert receipt is not None
    assert receipt.succeeded
    return receipt


def lower(world: World, view: SessionView, limits: Limits) -> Receipt:
    """The owner lowers the limits on the chain, and the engine looks."""
    receipt = send(world, world.owner, contracts.lowering(view.grant, view.token_id, limits))
    world.engine.tick()
    return receipt


def close_workspace(world: World, workspace: str = WORKSPACE) -> Receipt:
    """An operator closes a workspace on the chain. The engine has not looked yet."""
    return send(world, world.engine.deployment.operator, contracts.closing(workspace))


def open_workspace(world: World, workspace: str = WORKSPACE) -> Receipt:
    """An operator opens it again. The engine has not looked yet."""
    return send(world, world.engine.deployment.operator, contracts.opening(workspace))


def now(world: World, view: SessionView) -> SessionView:
    return world.engine.sessions.get(view.workspace_id, view.id)


def code(world: World, view: SessionView, dollars: int = 1) -> str:
    """What a payment is answered now."""
    return str(world.pay(view, dollars).decision["code"])


def rule(world: World, view: SessionView, dollars: int = 1) -> str:
    """The rule that decides a payment now."""
    return str(world.pay(view, dollars).decision["rule"])


def kinds(world: World, view: SessionView) -> list[str]:
    """What was recorded of its limits, its state and its workspace."""
    return [r.kind for r in records_of(world, view.id) if not r.kind.startswith("payment.")]


def replayed(world: World, view: SessionView) -> Replay:
    """What an auditor makes of a session's records; fails if they do not replay."""
    replay = Replay(view.grant, view.grant_hash)
    replay.feed(records_of(world, view.id))
    return replay


def verified(world: World, view: SessionView) -> Report:
    """The evidence of a session, anchored and verified."""
    world.engine.anchor()
    world.engine.tick()
    file = world.engine.evidence(view.workspace_id, view.id)
    registry = world.engine.deployment.registry
    return verify(file, GatewayView(world.engine.gateway), registry=registry)


def discrepancies(world: World, view: SessionView) -> list[Discrepancy]:
    """Those of a session that are open."""
    with world.engine.database.reading() as connection:
        found = open_discrepancies(connection.execute, view.workspace_id)
    return [each for each in found if each.session_id == view.id]
