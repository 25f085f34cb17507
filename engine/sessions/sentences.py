"""Conditions and restrictions as people hand them in: sentences, in any order."""

from collections.abc import Sequence

from engine.errors import InvalidInput
from engine.policy.conditions import Cap, ConditionError, parse_condition, parse_conditions


def in_order(sentences: Sequence[str], field: str) -> tuple[str, ...]:
    """The sentences in the one order of their list (`engine.policy.conditions`).

    Raises:
        InvalidInput: naming the first, by its place among `sentences`, that is no condition or says
            what another one says, or `field` for what is wrong with all of them together.
    """
    said = set()
    for index, sentence in enumerate(sentences):
        here = f"{field}[{index}]"
        try:
            condition = parse_condition(sentence)
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
