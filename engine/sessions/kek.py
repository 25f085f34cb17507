"""Which key-encryption key an installation has: of a passphrase, or in a file of its own.

What it is made from is made at the first start. Past that it sealed what the ledger holds, and what
is missing then is asked for: another would open nothing, and hide which one is lost.
"""

from pathlib import Path

from engine.db.database import Database
from engine.db.meta import KEK_SALT, read_meta, write_meta
from engine.errors import CannotStart
from engine.identifiers import RandomBytes
from engine.sessions.vault import KEK_BYTES, Vault, kept_salt
from engine.settings import Settings


def open_vault(settings: Settings, database: Database, random_bytes: RandomBytes) -> Vault:
    """The vault of the private keys, by the passphrase or the key file that `settings` name.

    Raises:
        CannotStart: a shared database needs a passphrase, what the first start made is missing, or
            what the file holds is no key.
    """
    meta = read_meta(database)
    begun = bool(meta.keys() - {KEK_SALT})
    if settings.kek is None:
        if database.shared:
            raise CannotStart(
                "TALLYSTICK_KEK is not set: every server of one TALLYSTICK_DATABASE needs the same"
            )
        file, otherwise = "kek", "set TALLYSTICK_KEK to the passphrase if one"
        return Vault.from_file(_kept(settings.data_dir / file, begun, otherwise))
    if database.shared:
        salt = _shared_salt(database, meta, begun, random_bytes)
    else:
        file, otherwise = "kek.salt", "unset TALLYSTICK_KEK if the file kek"
        salt = kept_salt(_kept(settings.data_dir / file, begun, otherwise))
    return Vault.from_passphrase(settings.kek.get_secret_value(), salt)


def _kept(path: Path, begun: bool, otherwise: str) -> Path:
    if begun and not path.exists():
        raise CannotStart(f"{path} is missing: put it back, or {otherwise} sealed the keys here")
    return path


def _shared_salt(
    database: Database, meta: dict[str, str], begun: bool, random_bytes: RandomBytes
) -> bytes:
    """The salt of the KEK, for an installation that is more than one directory; made once.

    Raises:
        CannotStart: it is lost or damaged.
    """
    if KEK_SALT not in meta:
        if begun:
            raise CannotStart(f"the ledger's meta table has lost {KEK_SALT}")
        write_meta(database, {KEK_SALT: random_bytes(KEK_BYTES).hex()})
        meta = read_meta(database)
    try:
        return bytes.fromhex(meta[KEK_SALT])
    except ValueError as error:
        raise CannotStart(f"the ledger's meta table is damaged: {KEK_SALT}") from error
