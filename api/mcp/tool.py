"""What a tool is: its name, what it takes and answers, and the one way in which it is called.

A tool has no authority of its own. All that it is given is `Rest`, which asks the product's own API
with the caller's credentials: what the caller may not do there, no tool does either.

Amounts are decimal text, in and out, since a JSON number goes through a float in most clients. Text
that others wrote (merchants, labels, reasons) is only ever the value of a JSON string in a result.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mcp_types as types
import structlog
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from api.mcp.rest import Refused, Rest
from api.unknown_fields import not_known

_FIELD_CHARACTERS_MAX = 100

_log = structlog.get_logger(__name__)


class Arguments(BaseModel):
    """What all tools' arguments share: nothing unknown, and no text where a number is meant."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


@dataclass(frozen=True)
class Tool:
    """One tool. `answer` is the `TypedDict` of its result, `run` does it.

    `description` is a constant: nothing that anybody stored gets into it. `reads` says that a call
    changes nothing, `open_world` that it speaks to others than the server.
    """

    name: str
    title: str
    description: str
    arguments: type[BaseModel]
    answer: Any
    run: Callable[[Rest, Any], Awaitable[Any]]
    reads: bool = True
    open_world: bool = False

    @cached_property
    def declared(self) -> types.Tool:
        """The tool as `tools/list` has it."""
        return types.Tool(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=self.arguments.model_json_schema(),
            output_schema=TypeAdapter(self.answer).json_schema(mode="serialization"),
            annotations=types.ToolAnnotations(
                read_only_hint=self.reads,
                destructive_hint=not self.reads,
                idempotent_hint=self.reads,
                open_world_hint=self.open_world,
            ),
        )

    async def call(
        self,
        rest: Rest,
        arguments: Mapping[str, Any],
        meta: Mapping[str, Any] | None = None,
    ) -> types.CallToolResult:
        """The result of a call: the answer, or what was refused, as an object and as its text.

        `meta` is what came with the call in `_meta`.
        """
        try:
            return await self._called(rest, self._read(arguments), meta or {})
        except Refused as refusal:
            return result(refusal.to_json(), is_error=True)
        except Exception:  # noqa: BLE001 (the SDK would tell the caller what it says)
            _log.exception("tool_failed", tool=self.name)
            said = Refused("internal_error", "something went wrong")
            return result(said.to_json(), is_error=True)

    async def _called(
        self, rest: Rest, asked: BaseModel, _meta: Mapping[str, Any]
    ) -> types.CallToolResult:
        return result(await self.run(rest, asked))

    def _read(self, arguments: Mapping[str, Any]) -> BaseModel:
        try:
            return self.arguments.model_validate(arguments)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            # What follows is pydantic's; nothing is there if a name is no text.
            field = str(next(iter(first["loc"]), "arguments"))[:_FIELD_CHARACTERS_MAX]
            says = first["msg"].removeprefix("Value error, ")
            if first["type"] == "extra_forbidden":
                says = not_known(self.arguments, first["loc"])
            code = "missing_required_field" if first["type"] == "missing" else "invalid_parameter"
            raise Refused(code, f"{field}: {says}", field=field) from None


def result(
    answer: Mapping[str, Any], *, is_error: bool = False, meta: dict[str, Any] | None = None
) -> types.CallToolResult:
    """An object as a result: structured, and the same as JSON text for clients that read that."""
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=json.dumps(answer, ensure_ascii=False))],
        structured_content=dict(answer),
        is_error=is_error,
        _meta=meta,
    )
