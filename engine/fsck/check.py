"""Everything in a data directory, recomputed from its raw records, in one consistent state of it.

What the server is about to catch up with (the chain it reads, the anchors on their way) may differ
for a moment while it runs: whatever of that kind is found is looked at once more, and told only if
it is still so.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlmodel import SQLModel

from engine.audit.chain import Anchoring, ChainSilent
from engine.chain import contracts
from engine.chain.gateway import ChainError, ChainGateway
from engine.db import keys, tables
from engine.db.intents import PaymentIntent
from engine.db.settlements import Settlement
from engine.db.webhooks import WebhookEndpoint
from engine.evidence.chain_view import GatewayView
from engine.fsck.budgets import Foundings, check_budgets
from engine.fsck.chain import check_blocks, check_index
from engine.fsck.discrepancies import check_discrepancies
from engine.fsck.finding import Finding, Findings
from engine.fsck.installation import Installation, check_installation
from engine.fsck.keys import OpenVault, check_keys
from engine.fsck.log import (
    Roots,
    check_batches,
    check_checkpoints,
    check_places,
    signed_sizes,
)
from engine.fsck.sessions import SessionFold
from engine.fsck.snapshot import CannotRead, snapshot
from engine.fsck.streams import Entry, Fold, check_streams
from engine.fsck.transactions import check_anchors, check_mined, check_transactions
from engine.fsck.webhooks import check_webhooks
from engine.fsck.workspaces import WorkspaceFold, check_uses
from engine.sessions.vault import Vault

PATIENCE_S = 3.0
"""After so long what could have been on its way is looked at again."""

_records = tables.table(tables.Record)
_shared = tables.table(tables.Shared)

_OWNED = (
    (tables.Workspace, "id"),
    (keys.ApiKey, "workspace_id"),
    (keys.Agent, "workspace_id"),
    (keys.AgentKey, "workspace_id"),
    (tables.BudgetRow, "workspace_id"),
    (tables.Session, "id"),
    (tables.SessionKey, "session_id"),
    (tables.Approval, "session_id"),
    (Settlement, "session_id"),
    (WebhookEndpoint, "workspace_id"),
    (PaymentIntent, "workspace_id"),
)
"""Tables whose rows belong to a stream, and the column that names it."""

_READ = ("chain_blocks", "chain_events")
_AT_FIRST = ("meta", "shared", *_READ)
"""Tables that the first start has rows in before the first record."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain to compare with, and the session registry that the caller knows to be ours."""

    gateway: ChainGateway
    registry: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, in order; `more` counts what is not listed.

    `records` are those that there are, `size` of them have their place in the log; `anchors` is how
    many anchors the chain holds, None where it was not asked.
    """

    findings: tuple[Finding, ...]
    more: int
    records: int
    size: int
    anchors: int | None

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def check(
    store: Path | str,
    *,
    chain: Chain | None = None,
    open_vault: OpenVault | None = None,
    patience_s: float = PATIENCE_S,
) -> Report:
    """Check a file of SQLite, or the PostgreSQL database of a URL. Nothing is written.

    Raises:
        CannotRead: the database, or the chain or the key-encryption key that was given, cannot be
            read, or the first start was not finished, so nothing is there to check.
    """
    try:
        anchored = None if chain is None else _anchored(store, chain)
        with snapshot(store) as connection:
            vault = None if open_vault is None else open_vault(connection)
            report, settling = examine(connection, chain=chain, anchored=anchored, vault=vault)
            told = anchored or any(each.table in _READ for each in (*report.findings, *settling))
            if not told and _unfinished(connection):
                raise CannotRead(
                    "there is no record in the ledger: its first start was not finished, and "
                    "`tallystick serve` takes it up; if it was, all of it is gone"
                )
        if settling:
            time.sleep(patience_s)
            still = _settling(store, chain)
            settling = [finding for finding in settling if finding in still]
    except (ChainError, ChainSilent) as error:
        raise CannotRead(f"the chain cannot be read: {error}") from error
    return Report(
        tuple(sorted({*report.findings, *settling})),
        report.more,
        report.records,
        report.size,
        report.anchors,
    )


def _unfinished(connection: sa.Connection) -> bool:
    """Whether there is nothing but what is there before the first record."""
    rest = (rows for rows in SQLModel.metadata.sorted_tables if rows.name not in _AT_FIRST)
    return not any(connection.execute(sa.select(sa.exists().select_from(t))).scalar() for t in rest)


def _anchored(store: Path | str, chain: Chain) -> Sequence[Anchoring]:
    """What the chain holds of this log, asked before the log is read, which can only be ahead."""
    with snapshot(store) as connection:
        installation = check_installation(connection, Findings())
    view = GatewayView(chain.gateway)
    anchors = view.anchors_of(chain.registry)
    if anchors is None:
        raise CannotRead(f"there is no SessionRegistry at {chain.registry} on this chain")
    return view.anchorings(anchors, installation.log_id) if installation.log_id else ()


def examine(
    connection: sa.Connection,
    *,
    chain: Chain | None = None,
    anchored: Sequence[Anchoring] | None = None,
    vault: Vault | None = None,
) -> tuple[Report, list[Finding]]:
    """Check what a connection sees; returns apart what a running server may be about to mend.

    `anchored` is what `chain` holds of the log, asked before the connection's state was taken.
    """
    findings, settling = Findings(), Findings()
    _check_schema(connection, findings)
    installation = check_installation(connection, findings)
    records = check_batches(connection, findings)
    sizes = signed_sizes(connection) | {each.size for each in anchored or ()}
    size, roots = check_places(connection, findings, sizes)
    check_checkpoints(connection, findings, installation, roots)
    _check_owned(connection, findings, installation)
    check_transactions(connection, findings, installation)
    check_anchors(connection, findings, installation, roots)
    check_blocks(connection, findings)
    check_discrepancies(connection, findings)
    check_webhooks(connection, findings)
    if vault is not None:
        check_keys(connection, findings, installation, vault)
    if chain is not None and anchored is not None:
        _check_named(findings, installation, chain)
        _check_anchored(findings, anchored, size, roots)
    _look(connection, settling, installation, roots, chain)
    report = Report(
        tuple(findings), findings.more, records, size, None if anchored is None else len(anchored)
    )
    return report, list(settling)


def _settling(store: Path | str, chain: Chain | None) -> set[Finding]:
    again = Findings()
    with snapshot(store) as connection:
        installation = check_installation(connection, Findings())
        _, roots = check_places(connection, Findings(), signed_sizes(connection))
        _look(connection, again, installation, roots, chain)
    return set(again)


def _look(
    connection: sa.Connection,
    findings: Findings,
    installation: Installation,
    roots: Roots,
    chain: Chain | None,
) -> None:
    check_mined(connection, findings, installation, roots)
    if chain is not None:
        check_index(connection, findings, chain.gateway, sources(chain), installation.start_block)


def sources(chain: Chain) -> dict[str, str]:
    """Which contract is where, by the registry that the caller knows."""
    anchors = GatewayView(chain.gateway).anchors_of(chain.registry)
    found = {chain.registry: contracts.SESSION_REGISTRY}
    return found if anchors is None else {**found, anchors: contracts.ANCHOR_REGISTRY}


def _check_schema(connection: sa.Connection, findings: Findings) -> None:
    """The tables of this release and nothing beside them that could act on its own."""
    inspector = sa.inspect(connection)
    wanted, there = {*SQLModel.metadata.tables, "alembic_version"}, set(inspector.get_table_names())
    if missing := sorted(wanted - there):
        raise CannotRead(f"the ledger has lost the table {missing[0]}")
    for extra in sorted(there - wanted):
        findings.unexpected(extra, "(table)", "the ledger has no such table")
    for view in inspector.get_view_names():
        findings.unexpected(view, "(view)", "the ledger has no views")
    if connection.dialect.name == "sqlite":
        triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        fault = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one()
        if fault != "ok":
            findings.add("(file)", "integrity_check", found=fault, expected="ok", says="damaged")
    else:
        triggers = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
    shared = set(connection.execute(sa.select(_shared.c.id)).scalars())
    for row in shared - {1}:
        findings.unexpected("shared", row, "the table has one row, 1")
    if 1 not in shared:
        findings.missing("shared", 1, "the table has one row, 1")
    for trigger in connection.exec_driver_sql(triggers).scalars().all():
        findings.unexpected(trigger, "(trigger)", "the ledger has no triggers")


def _check_owned(connection: sa.Connection, findings: Findings, installation: Installation) -> None:
    """All streams, and the rows of none of them."""
    foundings = Foundings()

    def open_fold(entry: Entry) -> Fold | None:
        first = entry.record
        if first.kind == "workspace.created":
            return WorkspaceFold(connection, findings, foundings, first)
        if first.kind != "session.created":
            raise ValueError("no stream begins like this")
        fold = SessionFold(connection, findings, installation, first)
        if fold.parent_id is not None:
            foundings.delegated(
                first.workspace, fold.parent_id, first.stream, entry.id, first.time_ms
            )
        return fold

    check_streams(connection, findings, installation, open_fold)
    for model, column in _OWNED:
        rows = tables.table(model)
        owner = rows.c[column]
        followed = sa.exists().where(_records.c.stream == owner)
        for row in connection.execute(sa.select(*rows.primary_key.columns).where(~followed)).all():
            name = "/".join(map(str, row))
            findings.unexpected(rows.name, name, "there are no records of whom it belongs to")
    check_budgets(connection, findings, foundings)
    check_uses(connection, findings)


def _check_named(findings: Findings, installation: Installation, chain: Chain) -> None:
    """The directory belongs to the chain and the contracts that the caller names."""
    genesis = chain.gateway.block(0)
    anchors = GatewayView(chain.gateway).anchors_of(chain.registry)
    for key, found, expected in (
        ("chain_id", installation.chain_id, chain.gateway.chain_id),
        ("registry", installation.registry, chain.registry),
        ("anchors", installation.anchors, anchors),
        ("genesis_hash", installation.genesis_hash, None if genesis is None else genesis.hash),
    ):
        if found != expected:
            says = "the chain that was asked has another"
            findings.add("meta", key, "value", found=found, expected=expected, says=says)


def _check_anchored(
    findings: Findings, anchored: Sequence[Anchoring], size: int, roots: Roots
) -> None:
    """The log is the one that the chain holds; the first size at which it is not is named."""
    agreed = 0
    for anchoring in anchored:
        root = roots.get(anchoring.size)
        if root == anchoring.root:
            agreed = anchoring.size
            continue
        if root is None:
            says = f"the chain holds an anchor of this size, but the log ends at {size}"
        else:
            says = (
                "the chain holds another root at this size: something was changed, added or left "
                f"out among the records from {agreed} to {anchoring.size - 1}"
            )
        findings.add(
            "records",
            f"the first {anchoring.size}",
            found=root,
            expected=anchoring.root,
            says=says,
        )
        return
