"""What the chain itself says of a session, read past the engine."""

from typing import Any

from engine.chain import contracts
from engine.chain.contracts import Event
from engine.engine import Engine
from engine.sessions.session import SessionView

REGISTRY = contracts.SESSION_REGISTRY


def events(engine: Engine, name: str, view: SessionView) -> list[Event]:
    """The registry's events of a name about a session, in chain order."""
    logs = engine.gateway.logs(
        from_block=0,
        to_block=engine.gateway.head().number,
        addresses=[engine.deployment.registry],
        topics=[contracts.event_topic(REGISTRY, name), view.token_id],
    )
    found = [contracts.decode_log(REGISTRY, log) for log in logs]
    assert None not in found
    return [event for event in found if event is not None]


def read(engine: Engine, function: str, *arguments: Any) -> Any:
    """Ask the registry."""
    return contracts.read(
        engine.gateway, REGISTRY, engine.deployment.registry, function, *arguments
    )


def grant_of(event: Event) -> tuple[Any, ...]:
    """The grant that a registration published, in the form of `Grant.abi_tuple`."""
    grant = event.args["grant"]
    return tuple({**grant, "limits": tuple(grant["limits"].values())}.values())
