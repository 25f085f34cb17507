"""What forms say, read by the same models as request bodies."""

from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, ValidationError

from engine.errors import InvalidInput
from engine.policy.money import plain_usd

EDIT = "edit"
"""With this in its query a form that is filled in is shown, and not what it asks for."""
Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], data: Mapping[str, Any]) -> Model:
    """The model of it.

    Raises:
        InvalidInput: naming the field, the innermost if it is one within another.
    """
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        first = error.errors()[0]
        names = [part for part in first["loc"] if isinstance(part, str)]
        field = next((name for name in reversed(names) if not name.startswith("function-")), "form")
        raise InvalidInput(field, first["msg"].removeprefix("Value error, ")) from error


def lines(text: str) -> list[str]:
    """What stands on each line that is not empty."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def plain_dollars(micro: int | None) -> str:
    """An amount of micro-USD as a field shows it; empty where there is none."""
    return "" if micro is None else plain_usd(micro)


def shown(error: InvalidInput) -> dict[str, str]:
    """What is wrong with a field, to be said beside it."""
    return {"field": error.field, "message": error.message.removeprefix(f"{error.field}: ")}


def again(query: Mapping[str, str]) -> str:
    """The query of the same form, filled in as it was, to be changed."""
    return urlencode({**query, EDIT: "1"})


def ticked(form: Mapping[str, str], name: str) -> list[str]:
    """What was ticked of several boxes, which are called `name:value` each."""
    return [key.removeprefix(f"{name}:") for key in form if key.startswith(f"{name}:")]


def whole(form: Mapping[str, str], name: str) -> int | None:
    """A whole number, None if the field is empty.

    Raises:
        InvalidInput: it is none.
    """
    text = form.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise InvalidInput(name, "takes a whole number")
    return int(text)
