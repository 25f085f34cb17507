"""Writes docs/commands.md and docs/python-reference.md from the code: `python -m
tests.docs.make_references`. A test makes them again and compares."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import typer.main

import tallystick
from tallystick.cli import app
from tallystick.configurations import Configuration, ConfigurationError, fields_of
from tallystick.fields import (
    BudgetFields,
    FilterFields,
    LimitFields,
    PaymentFilterFields,
    RevocationFields,
    SessionFields,
    WebhookFields,
)
from tallystick.intents import Intents
from tallystick.keys import AgentKeys, OperatorKeys
from tallystick.webhooks import Webhooks

DOCS = Path(__file__).parents[2] / "docs"
CLASSES = (
    tallystick.Client,
    tallystick.SessionManager,
    tallystick.Wallet,
    Webhooks,
    OperatorKeys,
    AgentKeys,
    Intents,
)
CREDENTIALS = {"api_key": "an operator's key", "session_token": "a session's token"}
COMMON = {"help", "url", "as_json", *CREDENTIALS}
"""Options that docs/cli.md describes."""
ASYNC = sorted(name for name in vars(tallystick.AsyncClient) if not name.startswith("_"))
SHAPES = (
    *(SessionFields, LimitFields, FilterFields, PaymentFilterFields, RevocationFields),
    *(BudgetFields, WebhookFields, Configuration),
)
FUNCTIONS = (tallystick.verify_webhook, tallystick.paid, fields_of)
ERRORS = (
    *(tallystick.ApiError, tallystick.PaymentDenied, tallystick.SessionNotActive),
    *(tallystick.PaymentError, tallystick.NotPayable, tallystick.PaymentNotAccepted),
    *(tallystick.PaymentOutcomeUnknown, tallystick.AnswerNotReadable),
    *(tallystick.WebhookNotVerified, ConfigurationError),
)


def commands_text() -> str:
    """Every command with what it does and its options."""
    lines = [
        "# Commands",
        "",
        "Made from the code; [cli.md](cli.md) says what they have in common.",
    ]
    for words, command in leaves(typer.main.get_command(app)):
        usage = " ".join(["tallystick", *words, *map(_argument, _arguments(command))])
        lines += ["", f"## `{usage}`", "", inspect.cleandoc(command.help or "")]
        options = {each.name: each for each in command.params if each.param_type_name == "option"}
        shown = [_option(each) for name, each in options.items() if name not in COMMON]
        if shown:
            lines += ["", *shown]
        credentials = [text for name, text in CREDENTIALS.items() if name in options]
        if credentials:
            lines += ["", f"By {' or '.join(credentials)}."]
    return "\n".join(lines) + "\n"


def leaves(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that is no group, by the words that call it."""
    for name, command in sorted(group.commands.items()):
        if path == ("agent",) and name == "sessions":
            continue  # another name of `sessions`
        if getattr(command, "commands", None):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


def reference_text() -> str:
    """What people import, with signatures and docstrings."""
    lines = ["# Python reference", "", "Made from the code; [python.md](python.md) explains it."]
    for kind in CLASSES:
        lines += ["", f"## {kind.__name__}", "", _doc(kind)]
        for name, member in sorted(inspect.getmembers(kind)):
            if name.startswith("_") or not (callable(member) or isinstance(member, property)):
                continue
            shown = name if isinstance(member, property) else f"{name}{_signature(member)}"
            lines += ["", f"### `{shown}`", "", _doc(member)]
    lines += ["", "## AsyncClient", "", _doc(tallystick.AsyncClient), ""]
    lines.append(", ".join(f"`{name}`" for name in ASYNC))
    lines += ["", "## Functions"]
    for function in FUNCTIONS:
        lines += ["", f"### `{function.__name__}{_signature(function)}`", "", _doc(function)]
    lines += ["", "## Fields"]
    for shape in SHAPES:
        needed: frozenset[str] = getattr(shape, "__required_keys__", frozenset())
        names = [
            f"**`{each}`**" if each in needed else f"`{each}`" for each in get_type_hints(shape)
        ]
        lines += ["", f"### {shape.__name__}", "", _doc(shape), "", ", ".join(names)]
    lines += ["", "## Errors"]
    for error in ERRORS:
        lines += ["", f"### {error.__name__}", "", _doc(error)]
    return "\n".join(lines) + "\n"


def _doc(thing: Any) -> str:
    found = inspect.getdoc(thing)
    assert found, f"{thing} has no docstring"
    return found


def _signature(function: Any) -> str:
    found = inspect.signature(function)
    parameters = [each for name, each in found.parameters.items() if name != "self"]
    text = str(found.replace(parameters=parameters))
    text = re.sub(r"\b[a-z_]+(\.[a-z_]+)*\.(?=[A-Z])", "", text)  # where a type is from
    text = re.sub(r"\*<class '?(\w+)'?>|Unpack\[(\w+)\]", r"\1\2", text)  # by the Python it is
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", text).replace("~", "")


def _arguments(command: Any) -> list[Any]:
    return [each for each in command.params if each.param_type_name == "argument"]


def _argument(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required else f"[{name}]"


def _option(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    return f"- {names}: {option.help}"


if __name__ == "__main__":
    (DOCS / "commands.md").write_text(commands_text())
    (DOCS / "python-reference.md").write_text(reference_text())
