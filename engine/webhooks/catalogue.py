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


def wanted(events: Collection[str]) -> tuple[str, ...]:
    """The events of an endpoint, each once, in the order of `EVENTS`.

    Raises:
        InvalidInput: there is none, or one is not known.
    """
    if not events:
        raise InvalidInput("events", f"names no event; {EVERY!r} stands for all")
    for name in events:
        if name not in (*EVENTS, EVERY):
            raise InvalidInput("events", f"{name!r} is no event; there are {', '.join(EVENTS)}")
    return (EVERY,) if EVERY in events else tuple(name for name in EVENTS if name in events)
