"""A real session's evidence, told once, and what an operator that holds every key can make of it.

`story()` runs a whole installation in a temporary directory, exports, writes down what the chain
answers, and removes it again. What is left are bytes and keys: every forgery starts from them.
"""

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.audit import canonical
from engine.audit.chain import Anchoring, Lowering, Registration, Revocation, Spend
from engine.audit.checkpoint import Checkpoint, sign
from engine.audit.disclosure import WITHHOLDABLE
from engine.audit.evidence import render_evidence, seal_message
from engine.audit.merkle import Tree, leaf_hash
from engine.audit.record import committed_form, record_hash
from engine.audit.verify import Report, verify
from engine.clock import ManualClock, system_clock
from engine.db.tables import Record, table
from engine.evidence.chain_view import GatewayView
from engine.grant import Grant
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from tests.ledger.approving import asked_for, first_key, grant
from tests.world import USD, WORKSPACE, World

Document = dict[str, Any]
HOUR_MS = 3_600_000


@dataclass(frozen=True, repr=False)
class Snapshot:
    """A `ChainView` of what one chain answered; of anything else it knows nothing."""

    chain_id: int
    anchor_registries: Mapping[str, str]
    registrations: Mapping[tuple[str, bytes], Registration | None]
    revocations: Mapping[tuple[str, bytes], Revocation | None]
    salts: Mapping[tuple[str, bytes], bytes | None]
    anchored: Mapping[tuple[str, bytes], Sequence[Anchoring]]
    times_s: Mapping[int, int]
    moved: Mapping[str, Sequence[Spend]] = field(default_factory=dict)
    lowered: Mapping[tuple[str, bytes], Sequence[Lowering]] = field(default_factory=dict)
    closings: Mapping[tuple[str, str], Revocation] = field(default_factory=dict)
    decimals_of: Mapping[str, int] = field(default_factory=dict)
    """Of the tokens that have another number of decimals than 6."""
    wallets: Mapping[tuple[str, bytes], bool] = field(default_factory=dict)
    """What wallets that are contracts say to a signature."""

    @property
    def block_number(self) -> int:
        return max(self.times_s)

    def anchors_of(self, registry: str) -> str | None:
        return self.anchor_registries.get(registry)

    def registration(self, registry: str, token_id: bytes) -> Registration | None:
        return self.registrations.get((registry, token_id))

    def revocation(self, registry: str, token_id: bytes) -> Revocation | None:
        return self.revocations.get((registry, token_id))

    def lowerings(self, registry: str, token_id: bytes, grant: Grant) -> Sequence[Lowering]:
        return self.lowered.get((registry, token_id), ())

    def workspace_closing(
        self, registry: str, token_id: bytes, workspace: str
    ) -> Revocation | None:
        return self.closings.get((registry, workspace))

    def accepts_signature(
        self, wallet: str, digest: bytes, signature: bytes, block_number: int
    ) -> bool | None:
        return self.wallets.get((wallet, signature))

    def log_opened(self, anchors: str, log_id: bytes) -> bytes | None:
        return self.salts.get((anchors, log_id))

    def anchorings(self, anchors: str, log_id: bytes) -> Sequence[Anchoring]:
        return self.anchored.get((anchors, log_id), ())

    def block_time_s(self, block_number: int) -> int:
        return self.times_s[block_number]

    def spends(self, address: str) -> Sequence[Spend]:
        return self.moved.get(address, ())

    def decimals(self, token: str) -> int:
        return self.decimals_of.get(token, 6)


@dataclass(frozen=True, repr=False)
class Story:
    """One log: a session with everything in it, a small one, and one that nobody consented to."""

    registry: str
    anchors: str
    log_id: bytes
    chain: Snapshot
    log_key: Ed25519PrivateKey
    log: tuple[bytes, ...]
    full: bytes
    small: bytes
    unsigned: bytes
    blind: bytes
    """The full session's, with everything withheld that can be."""
    small_blind: bytes
    """The small session's without its label and merchants, and with all else opened."""

    def verify(self, file: bytes, chain: Any = None) -> Report:
        """As the auditor of this log's registry."""
        return verify(file, chain or self.chain, registry=self.registry)

    def seal(self, document: Document, key: Ed25519PrivateKey | None = None) -> bytes:
        """The file of a document, signed by the log's own key."""
        content = {name: value for name, value in document.items() if name != "signature"}
        return render_evidence(content, (key or self.log_key).sign(seal_message(content)))

    def checkpoint(self, size: int, root: bytes, origin: str | None = None) -> str:
        """A note signed by the log's own key."""
        own = self.document["log"]["origin"]
        return sign(Checkpoint(origin or own, size, root), own, self.log_key)

    @property
    def document(self) -> Document:
        """The full session's document, to be changed."""
        return read(self.full)

    def relogged(
        self,
        change: Callable[[list[Document]], list[Document] | None],
        file: bytes | None = None,
        *,
        rechain: bool = True,
        withhold: Collection[str] = (),
    ) -> tuple[bytes, Snapshot]:
        """What an operator shows that had logged and anchored something else from the start.

        `change` gets the session's records and may return others; `rechain` makes them count up
        and name each other's hashes. The result is sealed, and its root is on the chain. With
        `withhold` it shows what it logged in committed form.
        """
        document = read(file or self.full)
        bodies = [canonical.decode_object(e["record"].encode()) for e in document["records"]]
        changed = change(bodies) or bodies
        raws = chained(changed) if rechain else [canonical.encode(body) for body in changed]
        others = [raw for raw in self.log if raw.decode() not in _records_of(document)]
        tree = Tree([leaf_of(raw) for raw in (*others, *raws)])
        anchoring = Anchoring(tree.size, tree.root(), self.last_block)
        document["checkpoint"] = self.checkpoint(tree.size, tree.root())
        document["consistency"] = []
        document["anchors"] = told_anchors(anchoring)
        document["withheld"] = sorted(withhold)
        if "label" in withhold:
            document["session"]["label"] = None
        document["records"] = [
            {
                "index": index,
                **shown(raw, withhold),
                "proof": [node.hex() for node in tree.inclusion_proof(index)],
            }
            for index, raw in enumerate(raws, start=len(others))
        ]
        return self.seal(document), self.anchored(anchoring)

    @property
    def anchorings(self) -> tuple[Anchoring, ...]:
        """The anchors of this log."""
        return tuple(self.chain.anchored[self.anchors, self.log_id])

    def anchored(self, *anchorings: Anchoring) -> Snapshot:
        """A chain that holds these anchors of this log, and no others."""
        return replaced(self.chain, anchored={(self.anchors, self.log_id): anchorings})

    @property
    def last_block(self) -> int:
        """The block of the newest anchor."""
        return self.anchorings[-1].block_number


def read(file: bytes) -> Document:
    """The document of a file."""
    return canonical.decode_object(file[:-1])


def replaced(chain: Snapshot, **changes: Any) -> Snapshot:
    """Another chain: answers that are mappings are added to those that were there."""
    fields = {name: getattr(chain, name) for name in Snapshot.__dataclass_fields__}
    for name, value in changes.items():
        fields[name] = {**fields[name], **value} if isinstance(value, dict) else value
    return Snapshot(**fields)


def leaf_of(raw: bytes) -> bytes:
    """The leaf that somebody makes of any bytes: of a record its own."""
    try:
        return record_hash(raw)
    except canonical.CanonicalError:
        return leaf_hash(raw)


def shown(raw: bytes, withhold: Collection[str]) -> Document:
    """A record as an entry of a file shows it."""
    if not withhold:
        return {"record": raw.decode()}
    committed, openings = committed_form(raw, withhold)
    told = {name: {"salt": o.salt.hex(), "value": o.value} for name, o in (openings or {}).items()}
    return {"record": committed.decode(), **({} if openings is None else {"openings": told})}


def told_anchors(*anchorings: Anchoring) -> list[Document]:
    """Anchors as a file tells them."""
    return [
        {
            "size": anchoring.size,
            "root": anchoring.root.hex(),
            "block_number": anchoring.block_number,
            "tx_hash": (anchoring.tx_hash or bytes(32)).hex(),
        }
        for anchoring in anchorings
    ]


def chained(bodies: Sequence[Document]) -> list[bytes]:
    """Records that count up and name each other's hashes.

    A payment that was called by its record's number is so again, wherever it is named later.
    """
    raws: list[bytes] = []
    called: dict[str, str] = {}
    for seq, given in enumerate(bodies):
        prev = leaf_of(raws[-1]).hex() if raws else None
        record = {**deepcopy(given), "seq": seq, "prev": prev}
        body = record["body"] if isinstance(record["body"], dict) else {}
        decides = record["kind"] == "payment.decided" and isinstance(body.get("payment"), str)
        if decides and body["payment"].endswith(f"_{given['seq']}"):
            for what in ("pay", "apr"):
                name = f"{what}_{body['payment'].split('_')[1]}"
                called[f"{name}_{given['seq']}"] = f"{name}_{seq}"
        for name in ("payment", "approval"):
            if isinstance(body.get(name), str):
                body[name] = called.get(body[name], body[name])
        raws.append(canonical.encode(record))
    return raws


def failed(report: Report) -> str:
    """The name of the check that decided the verdict; empty for a verified file."""
    return "" if report.verdict.value == 0 else report.reason.partition(":")[0]


def _records_of(document: Document) -> set[str]:
    return {entry["record"] for entry in (*document["records"], *document["tail"])}


def pass_time(world: World, clock: ManualClock, by_ms: int) -> None:
    """The server's clock and the chain's go on together."""
    clock.advance(by_ms)
    world.engine.gateway.mine(timestamp_s=clock() // 1000)  # type: ignore[attr-defined]
    world.engine.tick()


def live(world: World, clock: ManualClock) -> SessionView:
    """A session in which nearly everything happens that can happen to a payment."""
    view = world.session(
        Limits(50 * USD, 100 * USD, 500 * USD, None, 44 * USD),
        mint_pkp=True,
        label="shopping ≤ 100 $",
        merchants=("books", "data"),
    )

    def later(minutes: int) -> None:
        pass_time(world, clock, minutes * 60_000)

    assert world.pay(view, 25).state == "captured"
    later(1)
    assert world.pay(view, 60).state == "denied"
    assert world.pay(view, 1, merchant="casino").state == "denied"
    assert world.pay(view, 48).decision["code"] == "APPROVAL_REQUIRED"
    held = [world.pay(view, dollars, hold=True) for dollars in (20, 15, 10)]
    later(1)
    world.engine.ledger.capture(WORKSPACE, held[0].id, 19_999_999).result()
    world.engine.ledger.void(WORKSPACE, held[1].id).result()
    later(20)
    assert world.engine.payments.get(WORKSPACE, held[2].id).state == "expired"
    waiting = asked_for(world, view, 45, merchant="data")
    assert grant(world, waiting, first_key(world)).state == "granted"
    assert world.pay(view, 11, merchant="data").decision["code"] == "LIMIT_EXCEEDED"
    world.engine.anchor()
    world.engine.revoke_session(WORKSPACE, view.id, by="operator")
    later(1)
    assert world.pay(view, 1).decision["code"] == "SESSION_REVOKED"
    return view


def _tell(directory: Path) -> Story:
    clock = ManualClock(system_clock())
    world = World(directory, clock)
    try:
        pass_time(world, clock, HOUR_MS)  # the chain's first blocks are ahead of any clock
        small = world.session(mint_pkp=True, merchants=("books",))
        world.pay(small, 1)
        world.engine.anchor()
        unsigned = world.session(mint_pkp=True, await_consent=False)
        world.pay(unsigned, 2)
        full = live(world, clock)
        world.engine.anchor()
        return _keep(world, full, small, unsigned)
    finally:
        world.engine.close()


def _keep(world: World, full: SessionView, small: SessionView, unsigned: SessionView) -> Story:
    deployment, gateway = world.engine.deployment, world.engine.gateway
    registry, anchors, log_id = deployment.registry, deployment.anchors, deployment.log_id
    view = GatewayView(gateway)
    tokens = [session.token_id for session in (full, small, unsigned)]
    records = table(Record)
    with world.engine.database.reading() as connection:
        log = connection.execute(sa.select(records.c.body).order_by(records.c.id)).scalars()
        raws = tuple(bytes(raw) for raw in log)
    chain = Snapshot(
        chain_id=view.chain_id,
        anchor_registries={registry: str(view.anchors_of(registry))},
        registrations={(registry, token): view.registration(registry, token) for token in tokens},
        revocations={(registry, token): view.revocation(registry, token) for token in tokens},
        salts={(anchors, log_id): view.log_opened(anchors, log_id)},
        anchored={(anchors, log_id): view.anchorings(anchors, log_id)},
        times_s={n: view.block_time_s(n) for n in range(gateway.head().number + 1)},
    )
    files = [world.engine.evidence(WORKSPACE, session.id) for session in (full, small, unsigned)]
    files += [
        world.engine.evidence(WORKSPACE, full.id, withhold=WITHHOLDABLE),
        world.engine.evidence(WORKSPACE, small.id, withhold=("label", "merchant")),
    ]
    return Story(registry, anchors, log_id, chain, deployment.log_key, raws, *files)


@cache
def story() -> Story:
    """The one story that all tests read."""
    with tempfile.TemporaryDirectory() as directory:
        return _tell(Path(directory) / "data")


@cache
def another_story() -> Story:
    """The same life in another installation: another chain's contracts, another log."""
    with tempfile.TemporaryDirectory() as directory:
        return _tell(Path(directory) / "data")
