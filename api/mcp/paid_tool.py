"""Tools that are paid for by x402 inside MCP (x402, transports-v2/mcp).

A payment comes in `_meta["x402/payment"]` and goes on to a paid route of the application, which
takes it; what was settled is told in `_meta["x402/payment-response"]`. Without a payment the result
is x402's PaymentRequired, for the resource `mcp://tool/<name>`.
"""

import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import mcp_types as types
from pydantic import BaseModel

from api.mcp.rest import Heard, Refused, Rest
from api.mcp.tool import Tool, result

PAYMENT = "x402/payment"
PAYMENT_RESPONSE = "x402/payment-response"
HOW = (
    " Paid by x402: without a payment it answers what is to be paid; call it again with the payment"
    ' in _meta["x402/payment"].'
)
"""The end of the description of every tool that is paid for."""


class Sold(NamedTuple):
    """An answer, and the API's answer that it was made of."""

    answer: Mapping[str, Any]
    heard: Heard


@dataclass(frozen=True, kw_only=True)
class PaidTool(Tool):
    """A tool that is paid for by what came with the call; `run` answers `Sold`."""

    run: Callable[[Rest, Any], Awaitable[Sold]]

    async def _called(
        self, rest: Rest, asked: BaseModel, meta: Mapping[str, Any]
    ) -> types.CallToolResult:
        if PAYMENT in meta:
            rest = rest.with_headers(**{"PAYMENT-SIGNATURE": _encoded(meta[PAYMENT])})
        try:
            answer, heard = await self.run(rest, asked)
        except Refused as refusal:
            return self._refused(refusal)
        return result(answer, meta=receipt(heard.headers))

    def _refused(self, refusal: Refused) -> types.CallToolResult:
        if "PAYMENT-REQUIRED" in refusal.headers:
            required = _decoded(refusal.headers["PAYMENT-REQUIRED"])
            required.pop("extensions", None)  # a tool cannot be signed in to
            resource = {"url": f"mcp://tool/{self.name}", "mimeType": "application/json"}
            return result({**required, "resource": resource}, is_error=True)
        return result(refusal.to_json(), is_error=True, meta=receipt(refusal.headers))


def sold_tool(
    path: str, *, name: str, description: str, arguments: type[BaseModel], title: str | None = None
) -> PaidTool:
    """A tool that is the paid route `POST path` of the application whose endpoint has it.

    The route takes the `arguments` as a JSON object, and answers one; other JSON is its `answer`.

        @app.post("/tools/report")
        @gate.sells("$0.05")
        async def report(asked: Asked) -> dict[str, Any]: ...

        tool = sold_tool("/tools/report", name="report", …, arguments=Asked)
    """

    async def run(rest: Rest, asked: BaseModel) -> Sold:
        heard = await rest.ask("POST", path, asked.model_dump(mode="json", exclude_unset=True))
        answer: Any = json.loads(json.dumps(heard.body, default=float))  # no `Decimal`
        return Sold(answer if isinstance(answer, dict) else {"answer": answer}, heard)

    return PaidTool(
        name=name,
        title=title or name,
        description=f"{description.removesuffix('.')}.{HOW}",
        arguments=arguments,
        answer=dict[str, Any],
        run=run,
        reads=False,
    )


def receipt(headers: Mapping[str, str]) -> dict[str, Any] | None:
    """What was settled, as `_meta` has it; None if nothing was."""
    told = headers.get("PAYMENT-RESPONSE")
    return None if told is None else {PAYMENT_RESPONSE: _decoded(told)}


def _encoded(payment: Any) -> str:
    text = payment if isinstance(payment, str) else json.dumps(payment)  # as x402's SDK reads it
    return base64.b64encode(text.encode("utf-8", "replace")).decode()


def _decoded(header: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(header))
    return found
