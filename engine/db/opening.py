"""Chooses the database that the ledger is in."""

from engine.db.database import Database
from engine.db.postgres import PostgresDatabase
from engine.db.sqlite import SqliteDatabase
from engine.settings import Settings


def open_database(settings: Settings) -> Database:
    """The PostgreSQL that `settings` name, or else the file of SQLite in the data directory.

    Raises:
        CannotStart: it cannot be used.
    """
    if settings.database is not None:
        return PostgresDatabase(settings.database.get_secret_value())
    return SqliteDatabase(settings.data_dir / "ledger.sqlite3")
