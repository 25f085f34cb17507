"""`put-content` and `get-content`: what payers store, sold by x402 inside MCP.

A payment comes in `_meta["x402/payment"]` and goes on to the paid routes below `/v1/store`, which
take it; what they settled is told in `_meta["x402/payment-response"]`. Without a payment the result
is x402's PaymentRequired, for the resource `mcp://tool/<name>` (x402, transports-v2/mcp). Whoever
paid owns the entries, whoever calls.
"""

import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, NotRequired

import mcp_types as types
from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from api.mcp.rest import Heard, Refused, Rest
from api.mcp.tool import Arguments, Tool, result

PAYMENT = "x402/payment"
PAYMENT_RESPONSE = "x402/payment-response"
STORE = "/v1/store"
UNAUTHENTICATED = 401
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


class Sold(NamedTuple):
    """An answer, and the API's answer that it was made of."""

    answer: Mapping[str, Any]
    heard: Heard


@dataclass(frozen=True, kw_only=True)
class PaidTool(Tool):
    """A tool that is paid for by what came with the call; `run` answers `Sold`."""

    run: Callable[[Rest, Any], Awaitable[Sold]]

    async def _called(
        self, rest: Rest, asked: Arguments, meta: Mapping[str, Any]
    ) -> types.CallToolResult:
        if PAYMENT in meta:
            rest = rest.with_headers(**{"PAYMENT-SIGNATURE": _encoded(meta[PAYMENT])})
        try:
            answer, heard = await self.run(rest, asked)
        except Refused as refusal:
            return self._refused(refusal)
        return result(answer, meta=_receipt(heard.headers))

    def _refused(self, refusal: Refused) -> types.CallToolResult:
        if "PAYMENT-REQUIRED" in refusal.headers:
            required = _decoded(refusal.headers["PAYMENT-REQUIRED"])
            required.pop("extensions", None)  # a tool cannot be signed in to
            resource = {"url": f"mcp://tool/{self.name}", "mimeType": "application/json"}
            return result({**required, "resource": resource}, is_error=True)
        if refusal.facts.get("status") == UNAUTHENTICATED:  # it is free, and knows nobody
            return result({"success": False, "error": NO_SIGNER})
        return result(refusal.to_json(), is_error=True, meta=_receipt(refusal.headers))


async def _put(rest: Rest, asked: Entry) -> Sold:
    # By its batch of one, since a key may be any text and a path may not.
    answer: dict[str, Any] = {"success": True, "key": asked.key}
    if asked.value is None:
        heard = await rest.ask("POST", f"{STORE}/batch/delete", {"keys": [asked.key]})
        answer["deleted"] = heard.body["deleted"] > 0
    else:
        entries = {asked.key: asked.value}
        heard = await rest.ask("POST", f"{STORE}/batch/set", {"entries": entries})
    receipt = _receipt(heard.headers)
    if receipt is not None:
        answer["signer"] = receipt[PAYMENT_RESPONSE]["payer"][:_SIGNER_CHARACTERS] + "..."
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


def _receipt(headers: Mapping[str, str]) -> dict[str, Any] | None:
    """What was settled, as `_meta` has it."""
    told = headers.get("PAYMENT-RESPONSE")
    return None if told is None else {PAYMENT_RESPONSE: _decoded(told)}


def _encoded(payment: Any) -> str:
    text = payment if isinstance(payment, str) else json.dumps(payment)
    return base64.b64encode(text.encode("utf-8", "replace")).decode()


def _decoded(header: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(header))
    return found


_HOW = (
    " Paid by x402: without a payment it answers what is to be paid; call it again with the payment"
    ' in _meta["x402/payment"].'
)

STORE_TOOLS = (
    PaidTool(
        name="put-content",
        title="Store a value",
        description="Store a value under a key of whoever pays, or delete it (null)." + _HOW,
        arguments=Entry,
        answer=Put,
        run=_put,
        reads=False,
    ),
    PaidTool(
        name="get-content",
        title="Get what was stored",
        description="Get a value that whoever pays stored, or all of them without a key." + _HOW,
        arguments=Key,
        answer=Got,
        run=_get,
        reads=False,
    ),
)
