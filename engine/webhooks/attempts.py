"""What is kept of each attempt, on the writer's thread."""

import sqlalchemy as sa

from engine.ledger.batch import Batch
from engine.webhooks.egress import Outcome
from engine.webhooks.endpoint import Endpoint, attempts, of

ATTEMPTS_KEPT = 1_000
"""So many attempts of each endpoint are kept, the newest."""


def keep_attempt(
    batch: Batch,
    endpoint: Endpoint,
    event_id: str,
    event: str,
    at_ms: int,
    outcome: Outcome,
    *,
    attempt: int = 0,
    next_ms: int | None = None,
) -> None:
    """Keep one, and drop what is too old."""
    ours = of(attempts, endpoint)
    newest = batch.read(sa.select(sa.func.max(attempts.c.number)).where(*ours)).scalar_one()
    number = 1 if newest is None else newest + 1
    batch.insert(
        attempts,
        {
            "workspace_id": endpoint.workspace_id,
            "endpoint_id": endpoint.id,
            "number": number,
            "event_id": event_id,
            "event": event,
            "url": endpoint.url,
            "status_code": outcome.status_code,
            "error": outcome.error,
            "took_ms": outcome.took_ms,
            "attempted_ms": at_ms,
            "attempt": attempt,
            "next_ms": next_ms,
        },
    )
    old = attempts.c.number <= number - ATTEMPTS_KEPT
    batch.update(sa.delete(attempts).where(*ours, old))
