"""Which option or argument a field of a request, or a setting, was given by.

The server names its fields and its settings; who typed `--wallet` is told of `--wallet`.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import CannotStart, InvalidInput, TallystickError
from tallystick.errors import ApiError

PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "Idempotency-Key": ("key",),
    "allowed_chains": ("chain",),
    "allowed_merchants": ("merchant",),
    "allowed_tokens": ("token",),
    "capture_method": ("capture", "hold"),
    "conditions": ("condition",),
    "customer_wallet": ("wallet",),
    "duration_hours": ("duration",),
    "events": ("event",),
    "expires_in_seconds": ("expires_in",),
    "from_date": ("since",),
    "headers": ("header",),
    "ip_allowlist": ("allow_ip",),
    "max_time_s": ("max_time",),
    "merchant_id": ("merchant",),
    "owner_signature": ("owner_key_file",),
    "rate_limit_per_hour": ("rate_limit",),
    "restrictions": ("restriction",),
    "session_id": ("session",),
    "to_date": ("until",),
    "url": ("to", "resource"),
    "user_wallet": ("wallet",),
    "workspace_id": ("workspace",),
}
"""The parameters of commands, the first that one has, where a field has another name."""

SETTINGS = ("PORT", "DATA_DIR", "CONFIRMATIONS")
"""What an option of the same name overrides."""

_PREFIX = "TALLYSTICK_"
_PATH = re.compile(r"(?:limits\.|filter\.)?([\w-]+)(?:\[(\d+)\]|\.(\d+))?")

_OTHERS = re.compile(r"(?<!['\"`])\b[a-z]+(?:_[a-z]+)+\b(?!['\"`])")
"""Fields that are named beside the one that is wrong; not what somebody is quoted with."""


def as_typed(error: TallystickError | ApiError, group: Any) -> str:
    """The message of an error, with the options of the command of `group` that was called."""
    command, typed = _called(group)
    if isinstance(error, CannotStart):
        return _settings_as_typed(error.message, command, typed)
    field = _field(error)
    if field is None or not error.message.startswith(f"{field}: "):
        return error.message
    said = _OTHERS.sub(
        lambda other: name_of(other[0], command, typed), error.message.removeprefix(field)
    )
    return name_of(field, command, typed) + said


def name_of(field: str, command: Any, typed: Sequence[str]) -> str:
    """What a command's user calls a field; its own name if no parameter is for it."""
    path = _PATH.fullmatch(field)
    if path is None:
        return field
    ours = {each.name: each for each in command.params if each.name != "url"}  # the server's
    name = next((n for n in PARAMETERS.get(path[1], (path[1],)) if n in ours), None)
    if name is None:
        return field
    parameter = ours[name]
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or name.upper())
    option = str(parameter.opts[0])
    place = path[2] or path[3]
    several = sum(_gives(each, parameter.opts) for each in typed) > 1
    return f"{option} (number {int(place) + 1})" if place is not None and several else option


def _called(group: Any) -> tuple[Any, Sequence[str]]:
    """The command that was called, and what it was called with."""
    command, typed = group, sys.argv[1:]
    while typed and typed[0] in getattr(command, "commands", {}):
        command, typed = command.commands[typed[0]], typed[1:]
    return command, typed


def _field(error: Exception) -> str | None:
    if isinstance(error, InvalidInput):
        return error.field
    details = error.body.get("details") if isinstance(error, ApiError) else None
    field = details.get("field") if isinstance(details, Mapping) else None
    return field if isinstance(field, str) else None


def _settings_as_typed(message: str, command: Any, typed: Sequence[str]) -> str:
    for parameter in command.params:
        name = str(parameter.name).upper()
        if name in SETTINGS and any(_gives(each, parameter.opts) for each in typed):
            # Not where one is guessed that another variable was meant to be.
            message = re.sub(rf"(?<!\(is ){_PREFIX}{name}\b", parameter.opts[0], message)
    return message


def _gives(word: str, names: Sequence[str]) -> bool:
    return word.partition("=")[0] in names
