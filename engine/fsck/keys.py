"""Whether the sealed keys open, and are the keys of what they stand beside; whether the batches of
the log are sealed. Only if asked for.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from engine.audit.checkpoint import NoteError, verifier_key
from engine.db.tables import BATCH_RECORDS_MAX, LogBatch, Meta, Record, SessionKey, table
from engine.errors import CannotStart
from engine.fsck.finding import Findings, stored
from engine.fsck.installation import Installation
from engine.fsck.snapshot import CannotRead
from engine.ledger.seal import SEAL_KEY, batch_seal
from engine.sessions.vault import Vault, kept_salt
from engine.webhooks.endpoint import endpoints, secret_context

if TYPE_CHECKING:
    from pydantic import SecretStr

_batches = table(LogBatch)
_body: sa.ColumnElement[Any] = sa.type_coerce(table(Record).c.body, sa.types.NullType())
_keys = table(SessionKey)
_meta = table(Meta)
_records = table(Record)

OpenVault = Callable[[sa.Connection], Vault]
"""Makes the vault, for which a shared database holds the salt."""


def given_vault(data_dir: Path, passphrase: "SecretStr | None") -> OpenVault:
    """The vault that the server would open, from files that there must be."""

    def opened(connection: sa.Connection) -> Vault:
        salt = connection.execute(sa.select(_meta.c.value).where(_meta.c.key == "kek_salt"))
        shared = salt.scalar_one_or_none()
        try:
            if passphrase is None:
                return Vault.from_file(_there(data_dir / "kek"))
            stored = bytes.fromhex(shared) if shared else kept_salt(_there(data_dir / "kek.salt"))
            return Vault.from_passphrase(passphrase.get_secret_value(), stored)
        except (CannotStart, ValueError) as error:
            raise CannotRead(f"the key-encryption key cannot be read: {error}") from error

    return opened


def check_keys(
    connection: sa.Connection, findings: Findings, installation: Installation, vault: Vault
) -> None:
    """Open every key; none of them leaves this function."""
    for row in connection.execute(sa.select(_keys).order_by(_keys.c.session_id)):
        found = _address_in(vault, row.sealed, row.session_id)
        if found != row.address:
            findings.add(
                "session_keys",
                row.session_id,
                "sealed",
                says="it does not open, or holds the key of another address",
            )
    for row in connection.execute(sa.select(endpoints).order_by(endpoints.c.id)):
        for column in ("sealed", "previous"):
            sealed = getattr(row, column)
            if sealed is not None and not _opens(vault, sealed, secret_context(row.id)):
                where = f"{row.workspace_id}/{row.id}"
                findings.add("webhook_endpoints", where, column, says="it does not open")
    rows = connection.execute(sa.select(_meta.c.key, _meta.c.value)).all()
    sealed = {row.key: row.value for row in rows}
    verifier = _verifier_key(vault, sealed, installation)
    if verifier == installation.verifier_key:  # with another vault every seal would be another
        _check_seals(connection, findings, vault)
    for key, found, expected in (
        ("operator", _operator(vault, sealed), installation.operator),
        ("log_key", verifier, installation.verifier_key),
    ):
        if found != expected:
            says = "it does not open, or is the key of something else"
            findings.add("meta", key, "value", found=found, expected=expected, says=says)


def _check_seals(connection: sa.Connection, findings: Findings, vault: Vault) -> None:
    """Every batch of the log is sealed with its records."""
    key = vault.derive(SEAL_KEY)
    for batch in connection.execute(
        sa.select(*stored(_batches)).execution_options(yield_per=1_000)
    ):
        within = _records.c.id.between(batch.id, batch.id + BATCH_RECORDS_MAX - 1)
        bodies = connection.execute(sa.select(_body).where(within).order_by(_records.c.id))
        try:
            seal = batch_seal(key, batch.id, batch.leaf_hashes, bodies.scalars().all())
        except TypeError:
            seal = None
        if seal != batch.seal:
            says = "it does not seal the batch's hashes and records"
            findings.add(
                "log_batches", batch.id, "seal", found=batch.seal, expected=seal, says=says
            )


def _there(path: Path) -> Path:
    if not path.is_file():
        raise CannotRead(f"there is no key-encryption key at {path}")
    return path


def _address_in(vault: Vault, sealed: bytes, context: str) -> str | None:
    from eth_keys.datatypes import PrivateKey

    try:
        return PrivateKey(vault.open(sealed, context)).public_key.to_address()
    except (CannotStart, TypeError, ValueError):
        return None


def _opens(vault: Vault, sealed: bytes, context: str) -> bool:
    try:
        vault.open(sealed, context)
    except (CannotStart, TypeError):
        return False
    return True


def _operator(vault: Vault, meta: dict[str, str]) -> str | None:
    try:
        return _address_in(vault, bytes.fromhex(meta["operator"]), "operator key")
    except (KeyError, ValueError):
        return None


def _verifier_key(vault: Vault, meta: dict[str, str], installation: Installation) -> str | None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        raw = vault.open(bytes.fromhex(meta["log_key"]), "log key")
        key = Ed25519PrivateKey.from_private_bytes(raw)
        return verifier_key(installation.origin, key.public_key())
    except (CannotStart, KeyError, NoteError, ValueError):
        return None
