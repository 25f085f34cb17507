"""The events that there are, and which of them an endpoint wants."""

from collections.abc import Collection

from engine.errors import InvalidInput

EVERY = "*"
"""Stands for all events, those of later releases too."""

EVENTS = (
    "agent.key.created",
    "agent.key.revoked",
    "agent.session.created",
    "agent.session.revoked",
    "agent.session.expired",
    "agent.session.limit_reached",
    "approval.requested",
    "approval.granted",
    "approval.denied",
    "approval.expired",
    "approval.refused",
    "intent.created",
    "intent.confirmed",
    "intent.succeeded",
    "intent.failed",
    "intent.canceled",
    "payment.created",
    "payment.confirmed",
    "payment.voided",
    "payment.expired",
    "webhook.disabled",
)
OTHER_NAMES = {
    "payment.pending": "payment.created",
    "payment.completed": "payment.confirmed",
    "payment.failed": "payment.voided",
}
"""What clients of the agent-session API call some of them."""


def wanted(events: Collection[str]) -> tuple[str, ...]:
    """The events of an endpoint, each once, in the order of `EVENTS` and `OTHER_NAMES`.

    Raises:
        InvalidInput: there is none, or one is not known.
    """
    if not events:
        raise InvalidInput("events", f"names no event; {EVERY!r} stands for all")
    for name in events:
        if name not in (*EVENTS, *OTHER_NAMES, EVERY):
            raise InvalidInput("events", f"{name!r} is no event; there are {', '.join(EVENTS)}")
    if EVERY in events:
        return (EVERY,)
    return tuple(name for name in (*EVENTS, *OTHER_NAMES) if name in events)


def own_names(events: Collection[str]) -> set[str]:
    """Of which events these are names."""
    return {OTHER_NAMES.get(name, name) for name in events}


def told_as(event: str, events: Collection[str]) -> str:
    """What an event is called for whoever asked for `events`: by its own name, unless they know it
    by another one alone."""
    if event in events:
        return event
    return next((name for name in events if OTHER_NAMES.get(name) == event), event)
