"""`put-content` and `get-content`: what payers store, sold by x402 inside MCP.

They are the paid routes below `/v1/store`. Whoever paid owns the entries, whoever calls.
"""

from typing import Annotated, Any, NotRequired

import mcp_types as types
from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from api.mcp.paid_tool import HOW, PAYMENT_RESPONSE, PaidTool, Sold, receipt
from api.mcp.rest import Refused, Rest
from api.mcp.tool import Arguments, result

STORE = "/v1/store"
NO_SIGNER = "No authenticated signer in context"
_SIGNER_CHARACTERS = 10


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair") from None
    return text


Text = Annotated[str, AfterValidator(_whole)]
"""What the API would refuse in a field that no tool has."""


class Entry(Arguments):
    """An entry."""

    key: Annotated[Text, Field(description="Its name among those of whoever pays")]
    value: Annotated[Text | None, Field(description="Text; null deletes the entry")]


class Key(Arguments):
    """Which entry."""

    key: Annotated[Text | None, Field(description="Without one, the first page of all entries")] = (
        None
    )


class Put(TypedDict):
    """What was stored; `deleted` says whether there was an entry to delete."""

    success: bool
    key: NotRequired[str]
    deleted: NotRequired[bool]
    signer: NotRequired[str]
    error: NotRequired[str]


class Got(TypedDict):
    """The value of a key; without a key, `content` has the entries and `count` is how many."""

    success: bool
    key: NotRequired[str]
    value: NotRequired[str]
    content: NotRequired[dict[str, str]]
    count: NotRequired[int]
    error: NotRequired[str]


class StoreTool(PaidTool):
    """One that says, as a result, that nobody has a store without paying."""

    def _refused(self, refusal: Refused) -> types.CallToolResult:
        if refusal.code == "no_payer":
            return result({"success": False, "error": NO_SIGNER})
        return super()._refused(refusal)


async def _put(rest: Rest, asked: Entry) -> Sold:
    # By its batch of one, since a key may be any text and a path may not.
    answer: dict[str, Any] = {"success": True, "key": asked.key}
    if asked.value is None:
        heard = await rest.ask("POST", f"{STORE}/batch/delete", {"keys": [asked.key]})
        answer["deleted"] = heard.body["deleted"] > 0
    else:
        entries = {asked.key: asked.value}
        heard = await rest.ask("POST", f"{STORE}/batch/set", {"entries": entries})
    settled = receipt(heard.headers)
    if settled is not None:
        answer["signer"] = settled[PAYMENT_RESPONSE]["payer"][:_SIGNER_CHARACTERS] + "..."
    return Sold(answer, heard)


async def _get(rest: Rest, asked: Key) -> Sold:
    if asked.key is None:
        heard = await rest.ask("GET", STORE)
        content = heard.body["entries"]
        return Sold({"success": True, "content": content, "count": len(content)}, heard)
    heard = await rest.ask("POST", f"{STORE}/batch/get", {"keys": [asked.key]})
    value = heard.body["entries"][asked.key]
    if value is None:
        error = f'No content found for key "{asked.key}"'
        return Sold({"success": False, "error": error}, heard)
    return Sold({"success": True, "key": asked.key, "value": value}, heard)


STORE_TOOLS = (
    StoreTool(
        name="put-content",
        title="Store a value",
        description="Store a value under a key of whoever pays, or delete it (null)." + HOW,
        arguments=Entry,
        answer=Put,
        run=_put,
        reads=False,
    ),
    StoreTool(
        name="get-content",
        title="Get what was stored",
        description="Get a value that whoever pays stored, or all of them without a key." + HOW,
        arguments=Key,
        answer=Got,
        run=_get,
        reads=False,
    ),
)
