"""What a command asks a person for who left it out. Nobody is asked who is not at a terminal."""

import sys

import typer

from engine.errors import InvalidInput


def given_or_asked(value: str | None, option: str, question: str, *, hidden: bool = False) -> str:
    """What was given, or what is typed in; the question goes to standard error.

    Raises:
        InvalidInput: nothing was given and no terminal is attached.
    """
    if value is not None:
        return value
    if not sys.stdin.isatty():
        raise InvalidInput(option, "is needed")
    answer: str = typer.prompt(question, hide_input=hidden, err=True)
    return answer


def confirmed(question: str, *, yes: bool, as_json: bool) -> None:
    """Go on only if that is wanted: `yes`, or whoever is asked says so.

    Raises:
        typer.Abort: it is not.
        InvalidInput: there is nobody to say so.
    """
    if yes:
        return
    try:
        agreed = typer.confirm(question, err=as_json)
    except typer.Abort as unanswered:
        if sys.stdin.isatty():
            raise
        raise InvalidInput("--yes", "is needed where nobody can be asked") from unanswered
    if not agreed:
        raise typer.Abort
