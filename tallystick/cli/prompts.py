"""What a command asks a person for who left it out. Nobody is asked who is not at a terminal."""

import select
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
    if not _at_a_terminal():
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
    if _at_a_terminal():
        agreed = typer.confirm(question, err=as_json)
    else:
        agreed = _handed_in(question, as_json=as_json)
    if not agreed:
        raise typer.Abort


def _handed_in(question: str, *, as_json: bool) -> bool:
    """What another program answers. The question has a line of its own; JSON goes without."""
    # A program may wait for the question; where nobody will answer, nobody is to read it.
    early = _line() if _has_come() else None
    if early != "" and not as_json:
        print_line(question)
    answer = _line() if early is None else early
    if not answer:
        raise InvalidInput("--yes", "is needed where nobody can be asked")
    return answer.strip().lower() in ("y", "yes")


def _at_a_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()  # None is one that was closed


def _line() -> str:
    try:
        return "" if sys.stdin is None else sys.stdin.readline()
    except OSError:  # it is open only for writing, which is what nohup makes of a terminal
        return ""


def _has_come() -> bool:
    """Whether reading standard input would not wait: for an answer, or for its end."""
    if sys.stdin is None:
        return True
    try:
        return bool(select.select([sys.stdin], [], [], 0)[0])
    except (OSError, ValueError):  # it is no file, or of a kind that cannot be asked
        return False
