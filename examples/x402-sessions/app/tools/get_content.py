"""Retrieve stored content from the session of whoever pays."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from engine.storage.session import get_session

DESCRIPTION = "Retrieve stored content from the current user's session"
PRICE = "$0.001"


class Key(BaseModel):
    """What to read; everything, if it is left out."""

    model_config = ConfigDict(extra="forbid")

    key: str | None = None


async def get_content(asked: Key) -> dict[str, Any]:
    """A value, or all of them."""
    session = get_session()
    if session is None:
        return {"success": False, "error": "No authenticated signer in context"}
    if asked.key is None:
        content = (await session.list()).entries
        return {"success": True, "content": content, "count": len(content)}
    value = await session.get(asked.key)
    if value is None:
        return {"success": False, "error": f'No content found for key "{asked.key}"'}
    return {"success": True, "key": asked.key, "value": value}
