"""An endpoint as it is stored, and what is recorded of each change of it.

Every change is a record of the workspace that tells the whole endpoint as it is from then on. Its
URL, its description and its sealed secrets stand there as one hash: URLs often hold secrets.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from engine.audit.rest import rest_hash
from engine.db.database import Read
from engine.db.tables import table
from engine.db.webhooks import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from engine.errors import CannotStart, NotFound, Unavailable
from engine.ledger.stream import workspace_stream
from engine.ledger.writer import Batch
from engine.sessions.vault import Vault

FAILING = "failing"
"""All attempts of one event failed, and no other succeeded meanwhile."""
GONE = "gone"
"""The receiver answered 410."""

endpoints = table(WebhookEndpoint)
deliveries = table(WebhookDelivery)
attempts = table(WebhookAttempt)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where events of a workspace are sent. Times are milliseconds; see the table for the rest.

    `disabled_reason` is `FAILING` or `GONE`, or None if an operator disabled it.
    """

    workspace_id: str
    id: str
    url: str = field(repr=False)
    events: tuple[str, ...]
    description: str | None
    active: bool
    disabled_reason: str | None
    created_ms: int
    next_place: int
    failures: int
    hold_until_ms: int
    succeeded_ms: int | None
    sealed: bytes = field(repr=False)
    previous: bytes | None = field(repr=False)
    previous_until_ms: int | None

    def secrets(self, vault: Vault, now_ms: int) -> list[bytes]:
        """What deliveries are signed with: the secret in force and, in its time, the one before.

        Raises:
            Unavailable: the key-encryption key is not the one that sealed them.
        """
        sealed = [self.sealed]
        if self.previous is not None and now_ms < (self.previous_until_ms or 0):
            sealed.append(self.previous)
        try:
            return [vault.open(each, secret_context(self.id)) for each in sealed]
        except CannotStart as error:
            raise Unavailable(error.message) from error


def secret_context(endpoint_id: str) -> str:
    """What a sealed secret is tied to."""
    return f"webhook {endpoint_id}"


def endpoint_from_row(row: Mapping[Any, Any]) -> Endpoint:
    """Read a row of the table."""
    told = {name: row[name] for name in Endpoint.__slots__ if name != "events"}
    return Endpoint(**told, events=tuple(json.loads(row["events_json"])))


def one(workspace_id: str, endpoint_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Which row is an endpoint's."""
    return endpoints.c.workspace_id == workspace_id, endpoints.c.id == endpoint_id


def of(child: sa.Table, endpoint: Endpoint) -> tuple[sa.ColumnElement[bool], ...]:
    """Which deliveries or attempts are an endpoint's."""
    return child.c.workspace_id == endpoint.workspace_id, child.c.endpoint_id == endpoint.id


def find(read: Read, workspace_id: str, endpoint_id: str) -> Endpoint:
    """An endpoint of a workspace.

    Raises:
        NotFound: absent, or of another workspace.
    """
    row = read(sa.select(endpoints).where(*one(workspace_id, endpoint_id))).mappings().first()
    if row is None:
        raise NotFound("no such webhook", code="webhook_not_found")
    return endpoint_from_row(row)


def record_endpoint(batch: Batch, endpoint: Endpoint, happened: str, *, by: str | None) -> None:
    """Record `webhook.…` with all of it; `by` is an operator's key, None where nobody asked."""
    batch.record(workspace_stream(endpoint.workspace_id), f"webhook.{happened}", told(endpoint, by))


def told(endpoint: Endpoint, by: str | None) -> dict[str, Any]:
    """What the record of a change tells."""
    return {
        "webhook": endpoint.id,
        "events": list(endpoint.events),
        "active": endpoint.active,
        "disabled_reason": endpoint.disabled_reason,
        "previous_until_ms": endpoint.previous_until_ms,
        "rest_hash": endpoint_rest(
            endpoint.url, endpoint.description, endpoint.sealed, endpoint.previous
        ),
        "by": by,
    }


def endpoint_rest(url: str, description: str | None, sealed: bytes, previous: bytes | None) -> str:
    """The hash of what no record tells in clear."""
    return rest_hash(url=url, description=description, sealed=sealed, previous=previous)


def disabled_event(endpoint_id: str, reason: str | None) -> dict[str, Any]:
    """What the event `webhook.disabled` tells."""
    return {"webhook_id": endpoint_id, "reason": reason}
