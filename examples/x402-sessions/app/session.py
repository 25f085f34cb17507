"""The session store (optional: without this file one would write `Storage(MemoryStore())`).

Replace it by SQLite, PostgreSQL, Valkey or your own: docs/storage.md.
"""

from engine.storage.memory import MemoryStore
from engine.storage.session import Storage

storage = Storage(MemoryStore())
