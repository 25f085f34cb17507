"""What operators do with the endpoints of their workspace."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from engine.audit.canonical import encode
from engine.clock import Clock
from engine.db.database import Database
from engine.errors import Conflict
from engine.identifiers import Identifiers
from engine.ledger.batch import Batch
from engine.ledger.once import Find, Once, made_once
from engine.ledger.stream import workspace_stream
from engine.ledger.writer import Writer
from engine.sessions.vault import Vault
from engine.webhooks.addresses import parse_url
from engine.webhooks.attempts import keep_attempt
from engine.webhooks.catalogue import wanted
from engine.webhooks.egress import DEADLINE_S, Egress, Outcome
from engine.webhooks.endpoint import (
    Endpoint,
    attempts,
    deliveries,
    endpoint_from_row,
    endpoints,
    find,
    of,
    one,
    record_endpoint,
    secret_context,
)
from engine.webhooks.outbox import event_body, place_at, size
from engine.webhooks.seats import Seats
from engine.webhooks.signing import SECRET_BYTES, headers, secret_text

ENDPOINTS_MAX = 50
"""So many endpoints has a workspace at most."""
OVERLAP_MS = 24 * 3_600_000
"""So long after a rotation deliveries are signed with the secret before, too."""
TESTS_MAX = 16
TESTS_OF_WORKSPACE_MAX = 2
"""So many tests at a time are under way, in all and of one workspace: whoever tries a webhook waits
for its receiver, on a thread on which others would like to be answered."""
UNCHANGED: Any = object()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt as it is listed. `next_ms` is when it was to be tried again then."""

    number: int
    event_id: str
    event: str
    url: str
    status_code: int | None
    error: str | None
    took_ms: int
    attempted_ms: int
    attempt: int
    next_ms: int | None

    @property
    def success(self) -> bool:
        """Whether the receiver has it."""
        return self.status_code is not None and 200 <= self.status_code < 300


@dataclass(frozen=True, slots=True)
class Webhooks:
    """Makes, changes and lists endpoints. Each change is a record of the workspace."""

    database: Database
    writer: Writer
    vault: Vault
    identifiers: Identifiers
    clock: Clock
    egress: Egress
    _tests: Seats = field(
        default_factory=lambda: Seats("tests", TESTS_MAX, retry_after_s=int(DEADLINE_S))
    )

    def create(
        self,
        workspace_id: str,
        url: str,
        events: Collection[str],
        *,
        description: str | None = None,
        by: str,
        once: Once | None = None,
    ) -> tuple[Endpoint, str]:
        """An endpoint that is told of all that happens from now on, and its secret, which is not
        shown again but to `once`.

        Raises:
            InvalidInput: the URL or an event is not acceptable.
            Conflict: the workspace has `ENDPOINTS_MAX`, or the idempotency key was used for another
                request.
        """
        parse_url(url, self.egress.allowed)
        endpoint_id = self.identifiers.new("wh")
        sealed, secret = self._new_secret(endpoint_id)
        names = wanted(events)

        def make(batch: Batch) -> tuple[Endpoint, str]:
            count = sa.select(sa.func.count()).where(endpoints.c.workspace_id == workspace_id)
            if batch.read(count).scalar_one() >= ENDPOINTS_MAX:
                raise Conflict(
                    f"a workspace has at most {ENDPOINTS_MAX} webhooks", code="too_many_webhooks"
                )
            endpoint = Endpoint(
                workspace_id=workspace_id,
                id=endpoint_id,
                url=url,
                events=names,
                description=description,
                active=True,
                disabled_reason=None,
                created_ms=batch.now_ms,
                next_place=size(batch.read),
                failures=0,
                hold_until_ms=0,
                succeeded_ms=None,
                sealed=sealed,
                previous=None,
                previous_until_ms=None,
            )
            batch.insert(endpoints, _row(endpoint))
            record_endpoint(batch, endpoint, "created", by=by)
            return endpoint, secret

        return self.writer.call(made_once(once, make, self._finding(workspace_id)), workspace_id)

    def list(self, workspace_id: str) -> list[Endpoint]:
        """All endpoints of a workspace, the oldest first."""
        query = (
            sa.select(endpoints)
            .where(endpoints.c.workspace_id == workspace_id)
            .order_by(endpoints.c.id)
        )
        with self.database.reading() as connection:
            return [endpoint_from_row(row) for row in connection.execute(query).mappings()]

    def get(self, workspace_id: str, endpoint_id: str) -> Endpoint:
        """One endpoint.

        Raises:
            NotFound: absent, or of another workspace.
        """
        with self.database.reading() as connection:
            return find(connection.execute, workspace_id, endpoint_id)

    def waiting(self, workspace_id: str) -> dict[str, int]:
        """How many events wait to be sent again, by endpoint."""
        query = (
            sa.select(deliveries.c.endpoint_id, sa.func.count().label("waiting"))
            .where(deliveries.c.workspace_id == workspace_id)
            .group_by(deliveries.c.endpoint_id)
        )
        with self.database.reading() as connection:
            return {row.endpoint_id: row.waiting for row in connection.execute(query)}

    def change(
        self,
        workspace_id: str,
        endpoint_id: str,
        *,
        url: str = UNCHANGED,
        events: Collection[str] = UNCHANGED,
        description: str | None = UNCHANGED,
        active: bool = UNCHANGED,
        by: str,
    ) -> Endpoint:
        """Change what is given. One that is made active again goes on where it stopped, and what
        waits is tried at once, as if for the first time.

        Raises:
            NotFound: absent, or of another workspace.
            InvalidInput: the URL or an event is not acceptable.
        """
        changes: dict[str, Any] = {}
        if url is not UNCHANGED:
            parse_url(url, self.egress.allowed)
            changes["url"] = url
        if events is not UNCHANGED:
            changes["events"] = wanted(events)
        if description is not UNCHANGED:
            changes["description"] = description
        if active is not UNCHANGED:
            changes["active"] = active
            changes["disabled_reason"] = None

        def command(batch: Batch) -> Endpoint:
            before = find(batch.read, workspace_id, endpoint_id)
            told = changes
            if before.active == active:
                told = {**changes, "disabled_reason": before.disabled_reason}
            after = replace(before, **told)
            if after == before:
                return before
            if after.active and not before.active:
                after = replace(after, failures=0, hold_until_ms=0)
                again = {"attempts": 0, "first_ms": batch.now_ms, "next_ms": batch.now_ms}
                ours = of(deliveries, after)
                batch.update(sa.update(deliveries).where(*ours).values(**again))
            self._store(batch, after)
            record_endpoint(batch, after, "changed", by=by)
            return after

        return self.writer.call(command, workspace_id)

    def delete(self, workspace_id: str, endpoint_id: str, *, by: str) -> None:
        """Send nothing there any more, and forget what was.

        Raises:
            NotFound: absent, or of another workspace.
        """

        def command(batch: Batch) -> None:
            endpoint = find(batch.read, workspace_id, endpoint_id)
            for child in (deliveries, attempts):
                batch.update(sa.delete(child).where(*of(child, endpoint)))
            batch.update(sa.delete(endpoints).where(*one(workspace_id, endpoint_id)))
            batch.record(
                workspace_stream(workspace_id),
                "webhook.deleted",
                {"webhook": endpoint_id, "by": by},
            )

        self.writer.call(command, workspace_id)

    def rotate(
        self, workspace_id: str, endpoint_id: str, *, by: str, once: Once | None = None
    ) -> tuple[Endpoint, str]:
        """Give it another secret, which is not shown again but to `once`; for `OVERLAP_MS` both
        sign.

        Raises:
            NotFound: absent, or of another workspace.
            Conflict: the idempotency key was used for another request.
        """
        sealed, secret = self._new_secret(endpoint_id)

        def make(batch: Batch) -> tuple[Endpoint, str]:
            before = find(batch.read, workspace_id, endpoint_id)
            after = replace(
                before,
                sealed=sealed,
                previous=before.sealed,
                previous_until_ms=batch.now_ms + OVERLAP_MS,
            )
            self._store(batch, after)
            record_endpoint(batch, after, "changed", by=by)
            return after, secret

        return self.writer.call(made_once(once, make, self._finding(workspace_id)), workspace_id)

    def replay(self, workspace_id: str, endpoint_id: str, since_ms: int, *, by: str) -> Endpoint:
        """Deliver everything that happened since then once more, with the same ids; also what
        happened before there was the endpoint, which is why this is a record.

        Raises:
            NotFound: absent, or of another workspace.
        """

        def command(batch: Batch) -> Endpoint:
            before = find(batch.read, workspace_id, endpoint_id)
            place = min(before.next_place, place_at(batch.read, since_ms))
            batch.update(
                sa.update(endpoints)
                .where(*one(workspace_id, endpoint_id))
                .values(next_place=place, hold_until_ms=0)
            )
            told = {"webhook": endpoint_id, "since_ms": since_ms, "by": by}
            batch.record(workspace_stream(workspace_id), "webhook.replayed", told)
            return replace(before, next_place=place, hold_until_ms=0)

        return self.writer.call(command, workspace_id)

    def test(self, workspace_id: str, endpoint_id: str, event: str) -> tuple[str, Outcome]:
        """Send a made-up event now, wanted or not; returns its id and what came of it.

        Raises:
            NotFound: absent, or of another workspace.
            Unavailable: the key-encryption key is not the one that sealed the secret.
            RateLimited: too many are under way.
        """
        with self._tests.seat(("workspace", workspace_id, TESTS_OF_WORKSPACE_MAX)):
            return self._test(workspace_id, endpoint_id, event)

    def _test(self, workspace_id: str, endpoint_id: str, event: str) -> tuple[str, Outcome]:
        endpoint, now_ms = self.get(workspace_id, endpoint_id), self.clock()
        event_id = self.identifiers.new("evt_test")
        body = event_body(event_id, event, now_ms, workspace_id, {"test": True}, 0)
        secrets = endpoint.secrets(self.vault, now_ms)
        signed = headers(event_id, body, secrets, at_s=now_ms // 1000)
        outcome = self.egress.post(endpoint.url, body, signed)

        def command(batch: Batch) -> None:
            keep_attempt(
                batch, find(batch.read, workspace_id, endpoint_id), event_id, event, now_ms, outcome
            )

        self.writer.call(command, workspace_id)
        return event_id, outcome

    def attempts(
        self, workspace_id: str, endpoint_id: str, *, offset: int, limit: int
    ) -> tuple[Sequence[Attempt], int]:
        """What was tried, from `offset` on, the newest first, and how much of it is kept.

        Raises:
            NotFound: absent, or of another workspace.
        """
        with self.database.reading() as connection:
            endpoint = find(connection.execute, workspace_id, endpoint_id)
            ours = of(attempts, endpoint)
            count = sa.select(sa.func.count()).select_from(attempts).where(*ours)
            query = (
                sa.select(*(attempts.c[name] for name in Attempt.__slots__))
                .where(*ours)
                .order_by(attempts.c.number.desc())
                .offset(offset)
                .limit(limit)
            )
            found = [Attempt(*row) for row in connection.execute(query)]
            return found, connection.execute(count).scalar_one()

    def _finding(self, workspace_id: str) -> Find[Endpoint]:
        return lambda batch, made: find(batch.read, workspace_id, made)

    def _new_secret(self, endpoint_id: str) -> tuple[bytes, str]:
        secret = self.identifiers.random_bytes(SECRET_BYTES)
        return self.vault.seal(secret, secret_context(endpoint_id)), secret_text(secret)

    def _store(self, batch: Batch, endpoint: Endpoint) -> None:
        batch.update(
            sa.update(endpoints)
            .where(*one(endpoint.workspace_id, endpoint.id))
            .values(**_row(endpoint))
        )


def _row(endpoint: Endpoint) -> dict[str, Any]:
    row = {name: getattr(endpoint, name) for name in Endpoint.__slots__ if name != "events"}
    return {**row, "events_json": encode(list(endpoint.events)).decode()}
