"""What a command asks a person for who left it out. Nobody is asked who is not at a terminal."""

import sys

import typer

from engine.errors import InvalidInput
from tallystick.cli.output import print_line


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
    if sys.stdin.isatty():
        agreed = typer.confirm(question, err=as_json)
    else:
        agreed = _handed_in(question, as_json=as_json)
    if not agreed:
        raise typer.Abort


def _handed_in(question: str, *, as_json: bool) -> bool:
    """What another program answers. The question has a line of its own; JSON goes without."""
    if not as_json:
        print_line(question)
    answer = sys.stdin.readline()
    if not answer:
        raise InvalidInput("--yes", "is needed where nobody can be asked")
    return answer.strip().lower() in ("y", "yes")
