"""The audit log by itself: writing it, proving from it, verifying what it proves."""

import time
from collections.abc import Mapping
from contextlib import ExitStack

import sqlalchemy as sa

from bench.contender import Contender, Rate
from bench.ours import LIMITS, Installation
from engine.audit.merkle import Tree, leaf_hash
from engine.audit.proofs import verify_inclusion
from engine.audit.record import Head, decode_record, encode_record
from engine.audit.report import Verdict
from engine.audit.verify import verify
from engine.clock import system_clock
from engine.db.tables import Record, table
from engine.evidence.chain_view import GatewayView
from engine.identifiers import Identifiers
from engine.ledger.scribe import Scribe
from tests.world import WORKSPACE

LEAVES = 1_000_000
PAYMENTS_VERIFIED = 10_000
_AT_ONCE = 256
_records = table(Record)


class LogAppend(Contender):
    """Records made and hashed."""

    name = "log-append"
    says = (
        "Ours: the record of a decision encoded, salted, chained in its session, hashed and "
        "appended to the Merkle tree, in memory: what the log costs before anything is stored."
    )
    unit = "records/s"

    def prepare(self) -> Mapping[str, str]:
        self.opened = ExitStack()
        installation = Installation(self.workload)
        self.opened.callback(installation.close)
        asks = installation.asks(installation.create_sessions(1), "sample")
        installation.pay(asks, lambda count: count > 0)
        newest = sa.select(_records.c.body).order_by(_records.c.id.desc()).limit(1)
        with installation.world.engine.database.reading() as connection:
            self.sample = decode_record(connection.execute(newest).scalar_one())
        assert self.sample.kind == "payment.decided"
        self.streams = [f"stream-{number}" for number in range(self.workload.sessions)]
        size = str(len(self.sample.raw))
        return {"bytes a record": size, "sessions": str(len(self.streams))}

    def run(self, seconds: float) -> Rate:
        self.runs += 1
        scribe, tree = Scribe(self.sample.log, Identifiers(system_clock), bytes(32)), Tree()
        heads = dict.fromkeys(self.streams, Head())
        draw = self.workload.draw(self.runs)
        count = 0
        started = time.perf_counter()
        while (taken := time.perf_counter() - started) < seconds:
            for stream in draw.choices(self.streams, k=_AT_ONCE):
                _, leaf = self._encoded(scribe, stream, heads[stream])
                heads[stream] = Head(heads[stream].seq + 1, leaf)
                tree.append(leaf)
            count += _AT_ONCE
        assert tree.size == count
        return Rate(count, taken)

    def close(self) -> None:
        if hasattr(self, "opened"):
            self.opened.close()

    def _encoded(self, scribe: Scribe, stream: str, head: Head) -> tuple[bytes, bytes]:
        return encode_record(
            log=scribe.origin,
            workspace=WORKSPACE,
            stream=stream,
            head=head,
            time_ms=self.sample.time_ms,
            kind=self.sample.kind,
            body=self.sample.body,
            salt=scribe.salt(),
        )


class InclusionProof(Contender):
    """Proofs that a record is in the log."""

    name = "inclusion-proof"
    says = (
        f"Ours: proofs of random records in a log of {LEAVES:,} (at size 1), each made and then "
        "checked."
    )
    unit = "proofs/s"

    def prepare(self) -> Mapping[str, str]:
        leaves = self.workload.scaled(LEAVES)
        self.tree = Tree(leaf_hash(str(number).encode()) for number in range(leaves))
        return {"records": str(leaves)}

    def run(self, seconds: float) -> Rate:
        self.runs += 1
        draw = self.workload.draw(self.runs)
        size, root = self.tree.size, self.tree.root()
        count = 0
        started = time.perf_counter()
        while (taken := time.perf_counter() - started) < seconds:
            for index in draw.choices(range(size), k=_AT_ONCE):
                leaf = leaf_hash(str(index).encode())
                verify_inclusion(leaf, index, size, self.tree.inclusion_proof(index), root)
            count += _AT_ONCE
        return Rate(count, taken)

    def close(self) -> None:
        """Only memory was used."""


class Verify(Contender):
    """An evidence file verified."""

    name = "verify"
    says = (
        f"Ours: the evidence file of a registered session with {PAYMENTS_VERIFIED:,} captured "
        "payments (at size 1) verified against the embedded chain: signatures, proofs, sequence, "
        "and every decision replayed. Two records a payment."
    )
    unit = "records/s"

    def prepare(self) -> Mapping[str, str]:
        self.installation = Installation(self.workload)
        world = self.installation.world
        session = world.session(LIMITS, mint_pkp=True)
        payments = self.workload.scaled(PAYMENTS_VERIFIED)
        asks = self.installation.asks([session.id], "verified", capture=True)
        self.records = 2 * self.installation.pay(asks, lambda count: count >= payments)
        world.engine.anchor()
        self.file = world.engine.evidence(WORKSPACE, session.id)
        self.chain = GatewayView(world.engine.gateway)
        self.registry = world.engine.deployment.registry
        return {"records": str(self.records), "bytes": str(len(self.file))}

    def run(self, seconds: float) -> Rate:
        count = 0
        started = time.perf_counter()
        while (taken := time.perf_counter() - started) < seconds:
            report = verify(self.file, self.chain, registry=self.registry)
            assert report.verdict is Verdict.VERIFIED, report
            count += self.records
        return Rate(count, taken)

    def close(self) -> None:
        if hasattr(self, "installation"):
            self.installation.close()
