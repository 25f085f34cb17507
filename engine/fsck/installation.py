"""What a data directory belongs to: the rows of `meta` against each other and the first record."""

import re
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from engine.audit.canonical import CanonicalError
from engine.audit.evidence import log_salt
from engine.audit.record import decode_record
from engine.audit.rest import rest_hash
from engine.chain import contracts
from engine.db.tables import Meta, Record, table
from engine.fsck.finding import Findings, stored
from engine.grant import ZERO_ADDRESS, Domain
from engine.workspaces.access import DEFAULT_WORKSPACE

_meta = table(Meta)
_records = table(Record)
_ADDRESS = re.compile("0x[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Installation:
    """What `meta` says of itself in public; what is missing or malformed is empty."""

    chain_id: int
    genesis_hash: bytes
    registry: str
    anchors: str
    start_block: int
    origin: str
    log_id: bytes
    verifier_key: str
    operator: str

    @property
    def domain(self) -> Domain:
        """Where the grants are valid; nowhere if the registry's address is malformed."""
        return Domain(self.chain_id, self.registry or ZERO_ADDRESS)


def check_installation(connection: sa.Connection, findings: Findings) -> Installation:
    """Read `meta`; the log's id must be of the operator and of the log's key that stand beside it.

    The hash of each row is in the first record of the default workspace.
    """
    rows = connection.execute(sa.select(*stored(_meta))).mappings()
    values = {row["key"]: row["value"] for row in rows}
    installation = _read(values)
    told = _told(connection)
    if told is None:
        if values:
            findings.missing(
                "records", f"{DEFAULT_WORKSPACE}/0", "it holds the hash of the rows of meta"
            )
    else:
        _compare(findings, values, told)
    try:
        expected = contracts.log_id_of(installation.operator, log_salt(installation.verifier_key))
    except ValueError:
        expected = b""
    if expected != installation.log_id:
        findings.add(
            "meta",
            "log_id",
            "value",
            found=installation.log_id,
            expected=expected,
            says="the log's id is not that of operator_address and log_verifier_key",
        )
    return installation


def _compare(findings: Findings, values: dict[str, Any], told: dict[str, Any]) -> None:
    by = f"record 0 of workspace {DEFAULT_WORKSPACE}"
    for key, expected in told.items():
        row = {"value": rest_hash(**{key: _plain(values[key])})} if key in values else None
        findings.compare("meta", key, {"value": expected}, row, by=f"its hash in {by}")
    for key in values.keys() - told.keys():
        findings.unexpected("meta", key, f"it has no hash in {by}")


def _told(connection: sa.Connection) -> dict[str, Any] | None:
    first = sa.select(_records.c.body).where(
        _records.c.stream == DEFAULT_WORKSPACE, _records.c.seq == 0
    )
    try:
        body = decode_record(connection.execute(first).scalar_one_or_none() or b"").body
    except (CanonicalError, TypeError):
        return None
    told = body.get("installation")
    return told if isinstance(told, dict) else None


def _plain(value: Any) -> str | bytes | None:
    return value if value is None or isinstance(value, (str, bytes)) else str(value)


def _read(values: dict[str, Any]) -> Installation:
    def text(key: str) -> str:
        value = values.get(key)
        return value if isinstance(value, str) else ""

    def number(key: str) -> int:
        return int(text(key)) if re.fullmatch("[0-9]{1,18}", text(key)) else 0

    def address(key: str) -> str:
        return text(key) if _ADDRESS.fullmatch(text(key)) else ""

    def digest(key: str) -> bytes:
        return bytes.fromhex(text(key)) if re.fullmatch("[0-9a-f]{64}", text(key)) else b""

    return Installation(
        chain_id=number("chain_id"),
        genesis_hash=digest("genesis_hash"),
        registry=address("registry"),
        anchors=address("anchors"),
        start_block=number("start_block"),
        origin=text("origin"),
        log_id=digest("log_id"),
        verifier_key=text("log_verifier_key"),
        operator=address("operator_address"),
    )
