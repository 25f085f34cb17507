"""A session as a configuration: what another like it is opened with, and how it is handed on."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Required, TypedDict, cast

from tallystick.fields import SessionFields

if TYPE_CHECKING:
    from tallystick.answers import SessionAnswer

VERSION = 1
_HOURS_MIN = 0.01
_KEPT = (
    *("agent_id", "agent_name", "user_wallet", "label", "type", "limits", "allowed_merchants"),
    *("allowed_tokens", "allowed_chains", "conditions", "approvals_required", "mint_pkp"),
    "metadata",
)


class Configuration(TypedDict, total=False):
    """A session to hand on, as JSON. **Whoever has `session_token` pays**: keep it as a secret."""

    version: Required[int]
    url: Required[str]
    session_id: Required[str]
    session_token: Required[str]
    session: Required[SessionFields]
    restrictions: Required[list[str]]


class ConfigurationError(ValueError):
    """It is not the configuration of a session."""


def fields_of(session: "SessionAnswer") -> SessionFields:
    """What another session with the same parameters is created with.

    Its duration is the same, to a hundredth of an hour. The owner's consent and the limits that
    were lowered on the chain are the old session's own.
    """
    fields: dict[str, Any] = {name: session.get(name) for name in _KEPT}
    if session["permissions"]:
        fields["permissions"] = session["permissions"]
    created, expires = (datetime.fromisoformat(session[at]) for at in ("created_at", "expires_at"))
    hours = (expires - created).total_seconds() / 3600
    fields["duration_hours"] = f"{max(hours, _HOURS_MIN):.2f}"
    return cast("SessionFields", fields)


def exported(session: "SessionAnswer", session_token: str, url: str) -> Configuration:
    """A session to hand on."""
    return {
        "version": VERSION,
        "url": url,
        "session_id": session["id"],
        "session_token": session_token,
        "session": fields_of(session),
        "restrictions": session["restrictions"],
    }


def checked_configuration(configuration: Mapping[str, Any]) -> Configuration:
    """What was exported.

    Raises:
        ConfigurationError: it was not exported by this version, or lacks a field.
    """
    if configuration.get("version") != VERSION:
        raise ConfigurationError(f"version: must be {VERSION}")
    for name, kind in (("url", str), ("session_id", str), ("session_token", str)):
        if not isinstance(configuration.get(name), kind):
            raise ConfigurationError(f"{name}: must be text")
    if not isinstance(configuration.get("session"), Mapping):
        raise ConfigurationError("session: must be an object")
    return cast("Configuration", configuration)
