"""The anchors of an installation, as its chain has them and as its database tells of them."""

import json
from typing import Any

import sqlalchemy as sa

from engine.chain import contracts
from engine.chain.contracts import Event
from engine.db.tables import Anchor, table
from engine.evidence.anchorer import AnchorView
from tests.anvil_world import tick_until
from tests.world import World

ANCHORS = contracts.ANCHOR_REGISTRY


def events(world: World, name: str) -> list[Event]:
    """The events of this name about the world's log that its chain holds."""
    deployment, gateway = world.engine.deployment, world.engine.gateway
    logs = gateway.logs(
        from_block=0,
        to_block=gateway.head().number,
        addresses=[deployment.anchors],
        topics=[contracts.event_topic(ANCHORS, name), deployment.log_id],
    )
    found = [contracts.decode_log(ANCHORS, log) for log in logs]
    return [event for event in found if event is not None]


def anchored(world: World) -> list[Event]:
    """The anchors of the world's log that its chain holds."""
    return events(world, "Anchored")


def sizes(world: World) -> list[int]:
    """Their sizes, in the order of the chain."""
    return [event.args["size"] for event in anchored(world)]


def opened_in(world: World) -> int:
    """The block in which the log was opened."""
    [opened] = events(world, "LogOpened")
    return opened.log.block_number


def rows(world: World, *, opening: bool = False) -> list[Any]:
    """The anchors in the database; with `opening`, also the log's if it was opened again."""
    anchors = table(Anchor)
    query = sa.select(anchors).where(anchors.c.size >= (0 if opening else 1))
    with world.engine.database.reading() as connection:
        return list(connection.execute(query.order_by(anchors.c.size)).all())


def stored(world: World) -> list[tuple[int, str]]:
    """The sizes and states in the database."""
    return [(row.size, row.state) for row in rows(world)]


def tx_hashes(world: World) -> list[bytes]:
    """The transactions of the anchors as the database has them."""
    return [row.tx_hash for row in rows(world)]


def raw_txs(row: Any) -> list[bytes]:
    """The transactions of an anchor, the oldest first."""
    return [*map(bytes.fromhex, json.loads(row.replaced_json)), row.raw_tx]


def require_told(world: World) -> None:
    """The chain's anchors are the log's, strictly growing, and the database tells the same."""
    found = anchored(world)
    tree = world.engine._log.tree
    assert [event.args["root"] for event in found] == [
        tree.root(event.args["size"]) for event in found
    ]
    assert sizes(world) == sorted(set(sizes(world)))
    assert [(row.size, row.root, row.tx_hash) for row in rows(world)] == [
        (event.args["size"], event.args["root"], event.log.tx_hash) for event in found
    ]


def grow(world: World) -> int:
    """Add records to the log; returns its size."""
    view = world.create(mint_pkp=False)
    world.pay(view, 1)
    return int(world.engine.ready()["records"])


def anchor(world: World) -> AnchorView:
    """Anchor all there is."""
    view = world.engine.anchor()
    assert view is not None
    return view


def anchored_now(world: World) -> int:
    """Let the log grow and anchor it; returns its size once that is final."""
    size = grow(world)
    anchor(world)
    tick_until(world, lambda: (size, "final") in stored(world))
    return size
