"""The webhooks of a workspace, as its records make them, and what hangs on each."""

from typing import Any

import sqlalchemy as sa

from engine.audit.canonical import encode
from engine.audit.record import Record
from engine.db.tables import OutboxEvent, table
from engine.fsck.finding import UNSAID, Findings, Row, stored
from engine.webhooks.endpoint import attempts, deliveries, disabled_event, endpoint_rest, endpoints

_outbox = table(OutboxEvent)


class WebhookRows:
    """Follows the records `webhook.…` of one workspace."""

    def __init__(self, connection: sa.Connection, findings: Findings, workspace_id: str) -> None:
        self._connection = connection
        self._findings = findings
        self._workspace_id = workspace_id
        self._rows: dict[str, dict[str, Any]] = {}
        self._rest: dict[str, str] = {}

    def follow(self, record: Record, happened: str) -> tuple[str, dict[str, Any]] | None:
        """Follow one; returns the event that stands beside it, if there is one."""
        body = record.body
        endpoint_id = body["webhook"]
        if happened == "deleted":
            del self._rows[endpoint_id], self._rest[endpoint_id]
            return None
        if happened == "replayed":
            if endpoint_id not in self._rows:
                raise ValueError("there is no such endpoint")
            return None
        if happened not in ("created", "changed", "disabled"):
            raise ValueError("no such kind of record")
        before = self._rows.get(endpoint_id)
        if (before is None) != (happened == "created"):
            raise ValueError("it is there already, or not yet")
        self._rest[endpoint_id] = body["rest_hash"]
        self._rows[endpoint_id] = {
            "workspace_id": self._workspace_id,
            "id": endpoint_id,
            "events_json": encode(body["events"]).decode(),
            "active": body["active"],
            "disabled_reason": body["disabled_reason"],
            "previous_until_ms": body["previous_until_ms"],
            "created_ms": record.time_ms if before is None else before["created_ms"],
            **dict.fromkeys(("url", "description", "sealed", "previous"), UNSAID),
        }
        if happened == "disabled":
            return "webhook.disabled", disabled_event(endpoint_id, body["disabled_reason"])
        return None

    def finish(self) -> None:
        """Compare the rows, and look whether what hangs on them has something to hang on."""
        query = sa.select(*stored(endpoints)).where(endpoints.c.workspace_id == self._workspace_id)
        found = {row["id"]: row for row in self._connection.execute(query).mappings()}
        by = f"the records of {self._workspace_id}"
        for endpoint_id, wanted in self._rows.items():
            row = found.pop(endpoint_id, None)
            where = f"{self._workspace_id}/{endpoint_id}"
            self._findings.compare("webhook_endpoints", where, wanted, row, by=by)
            if row is not None:
                self._compare_rest(where, row, self._rest[endpoint_id])
        for endpoint_id in found:
            where = f"{self._workspace_id}/{endpoint_id}"
            self._findings.unexpected("webhook_endpoints", where, f"{by} tell of none")

    def _compare_rest(self, where: str, row: Row, expected: str) -> None:
        try:
            found = endpoint_rest(row["url"], row["description"], row["sealed"], row["previous"])
        except (TypeError, ValueError):
            found = ""
        if found != expected:
            self._findings.add(
                "webhook_endpoints",
                where,
                "url, description, sealed, previous",
                found=found,
                expected=expected,
                says="one of them was changed: their hash is not the one in the endpoint's record",
            )


def check_webhooks(connection: sa.Connection, findings: Findings) -> None:
    """What waits to be sent again, and what was tried, is of an endpoint and of an event."""
    for rows in (deliveries, attempts):
        owned = sa.exists().where(
            endpoints.c.workspace_id == rows.c.workspace_id, endpoints.c.id == rows.c.endpoint_id
        )
        for row in connection.execute(sa.select(*rows.primary_key.columns).where(~owned)).all():
            findings.unexpected(rows.name, "/".join(map(str, row)), "there is no such endpoint")
    known = sa.exists().where(
        _outbox.c.id == deliveries.c.record_id, _outbox.c.workspace_id == deliveries.c.workspace_id
    )
    strange = sa.select(*deliveries.primary_key.columns).where(~known)
    for row in connection.execute(strange).all():
        name = "/".join(map(str, row))
        findings.unexpected("webhook_deliveries", name, "its workspace has no such event")
