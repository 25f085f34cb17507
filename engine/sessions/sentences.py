"""Conditions and restrictions as people hand them in: sentences, in any order."""

from collections.abc import Container, Sequence
from dataclasses import replace

from engine.errors import InvalidInput
from engine.policy.conditions import (
    ActiveHours,
    Cap,
    Condition,
    ConditionError,
    parse_condition,
    parse_conditions,
)
from engine.sessions.merchants import name_as_paid


def in_order(
    sentences: Sequence[str], field: str, inherited: Container[str] = ()
) -> tuple[str, ...]:
    """The sentences in the one order of their list (`engine.policy.conditions`).

    A merchant that is a host is named as payments name it (`engine.sessions.merchants`), but for
    those that are `inherited`.

    Raises:
        InvalidInput: naming the first, by its place among `sentences`, that is no condition or says
            what another one says, or `field` for what is wrong with all of them together.
    """
    said = set()
    for index, sentence in enumerate(sentences):
        here = f"{field}[{index}]"
        try:
            condition = parse_condition(sentence)
            _check_merchant(condition, inherited)
        except ValueError as error:
            raise InvalidInput(here, str(error)) from error
        about = condition.of_what if isinstance(condition, Cap) else sentence
        if about in said:
            raise InvalidInput(here, "is about the same as another one")
        said.add(about)
    ordered = tuple(sorted(sentences))
    try:
        parse_conditions(ordered, field)
    except ConditionError as error:
        raise InvalidInput(error.field, error.reason) from error
    return ordered


def _check_merchant(condition: Condition, inherited: Container[str]) -> None:
    if isinstance(condition, ActiveHours) or condition.name is None or condition.name in inherited:
        return
    if (condition.of if isinstance(condition, Cap) else condition.what) != "merchant":
        return
    if (paid := name_as_paid(condition.name)) != condition.name:
        right = str(replace(condition, name=paid))
        raise ValueError(f"write {right!r}, as payments name that host")
