"""Store content in the session of whoever pays."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from engine.storage.session import get_session

DESCRIPTION = "Store a key-value pair in the current user's session"
PRICE = "$0.01"


class Entry(BaseModel):
    """What to store; `null` deletes it."""

    model_config = ConfigDict(extra="forbid")

    key: str
    value: str | None


async def put_content(entry: Entry) -> dict[str, Any]:
    """Nobody hands the payer on: the session is there because this call was paid for."""
    session = get_session()
    if session is None:
        return {"success": False, "error": "No authenticated signer in context"}
    if entry.value is None:
        deleted = await session.delete(entry.key)
        return {"success": True, "key": entry.key, "deleted": deleted}
    await session.set(entry.key, entry.value)
    return {"success": True, "key": entry.key}
