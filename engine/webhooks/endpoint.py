"""An endpoint as it is stored, and what is recorded of each change of it.

Every change is a record of the workspace that tells the whole endpoint as it is from then on. Its
URL, its description and its sealed secrets stand there as one hash: URLs often hold secrets.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
import structlog

from engine.audit.rest import rest_hash
from engine.db.database import Read
from engine.db.tables import table
from engine.db.webhooks import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from engine.errors import CannotStart, NotFound, Unavailable
from engine.ledger.batch import Batch
from engine.ledger.stream import workspace_stream
from engine.sessions.vault import Vault
from engine.webhooks.damage import is_damage

FAILING = "failing"
"""All attempts of one event failed, and no other succeeded meanwhile."""
GONE = "gone"
"""The receiver answered 410."""

_log = structlog.get_logger(__name__)

endpoints = table(WebhookEndpoint)
deliveries = table(WebhookDelivery)
attempts = table(WebhookAttempt)

_KINDS = {each.name: (each.type.python_type, each.nullable) for each in endpoints.columns}
_NUMBERS = range(2**62)
"""What numbers of an endpoint may be: one more fits into 64 bits, too."""


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
    """Read a row of the table.

    Raises:
        Unavailable: it is damaged.
    """
    for name, (kind, nullable) in _KINDS.items():
        value = row[name]
        if value is None and nullable:
            continue
        if type(value) is not kind or (kind is int and value not in _NUMBERS):
            raise _damaged(row["id"], name)
    try:
        events = json.loads(row["events_json"])
    except (ValueError, RecursionError):
        events = None
    if not isinstance(events, list) or not all(isinstance(each, str) for each in events):
        raise _damaged(row["id"], "events_json")
    told = {name: row[name] for name in Endpoint.__slots__ if name != "events"}
    return Endpoint(**told, events=tuple(events))


def active_endpoints(
    read: Read, without: Collection[str], damaged: Callable[[Any, Exception], None]
) -> list[Endpoint]:
    """Those that events are sent to, in the order of their ids, except `without`.

    Of each that cannot be read `damaged` is told the id, None if that cannot be read either.
    """
    query = (
        sa.select(endpoints)
        .where(endpoints.c.active, endpoints.c.id.not_in(without))
        .order_by(endpoints.c.id, endpoints.c.workspace_id)
    )
    found = []
    for row in _readable(read, query, damaged):
        try:
            found.append(endpoint_from_row(row))
        except Unavailable as error:
            damaged(row["id"], error)
    return found


def _readable(
    read: Read,
    query: sa.Select[Any],
    damaged: Callable[[Any, Exception], None],
    first: int = 0,
    count: int | None = None,
) -> list[Mapping[Any, Any]]:
    """The rows of a query, but those that make its whole answer unreadable: each is looked for in
    halves of what is left."""
    part = query if count is None else query.offset(first).limit(count)
    try:
        return [*read(part).mappings()]
    except Exception as error:
        if not is_damage(error):
            raise
        if count == 1:
            damaged(_id_of(read, part), error)
            return []
    if count is None:
        count = read(sa.select(sa.func.count()).select_from(query.subquery())).scalar_one()
    half = count // 2
    return [
        *_readable(read, query, damaged, first, half),
        *_readable(read, query, damaged, first + half, count - half),
    ]


def _id_of(read: Read, query: sa.Select[Any]) -> Any:
    try:
        return read(query.with_only_columns(endpoints.c.id)).scalar_one()
    except Exception as error:
        if not is_damage(error):
            raise
        return None


def _damaged(endpoint_id: Any, what: str) -> Unavailable:
    return Unavailable(
        f"webhook {endpoint_id} is damaged in the database: {what}", code="webhook_damaged"
    )


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
        Unavailable: it is damaged.
    """
    endpoint = stored(read, workspace_id, endpoint_id)
    if endpoint is None:
        raise NotFound("no such webhook", code="webhook_not_found")
    return endpoint


def stored(read: Read, workspace_id: str, endpoint_id: str) -> Endpoint | None:
    """An endpoint of a workspace, if there is one.

    Raises:
        Unavailable: it is damaged.
    """
    query = sa.select(endpoints).where(*one(workspace_id, endpoint_id))
    try:
        row = read(query).mappings().first()
    except Exception as error:
        if not is_damage(error):
            raise
        # Not as it came: the writer would take it for a failure of the database and decide nothing
        # any more, and it may tell the URL.
        raise _damaged(endpoint_id, "it cannot be read") from None
    return None if row is None else endpoint_from_row(row)


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


def disable(batch: Batch, endpoint: Endpoint, reason: str) -> None:
    """Send nothing there any more until an operator says so, and tell everybody else."""
    if not endpoint.active:
        return
    after = replace(endpoint, active=False, disabled_reason=reason)
    batch.update(
        sa.update(endpoints)
        .where(*one(endpoint.workspace_id, endpoint.id))
        .values(active=False, disabled_reason=reason)
    )
    record_endpoint(batch, after, "disabled", by=None)
    stream = workspace_stream(endpoint.workspace_id)
    batch.event(stream, "webhook.disabled", disabled_event(endpoint.id, reason))
    _log.warning("webhook_disabled", webhook=endpoint.id, reason=reason)


def endpoint_rest(url: str, description: str | None, sealed: bytes, previous: bytes | None) -> str:
    """The hash of what no record tells in clear."""
    return rest_hash(url=url, description=description, sealed=sealed, previous=previous)


def disabled_event(endpoint_id: str, reason: str | None) -> dict[str, Any]:
    """What the event `webhook.disabled` tells."""
    return {"webhook_id": endpoint_id, "reason": reason}
