"""The life of a session: created, consented to, registered, active, ended.

    awaiting_consent ──consent──> registering ──on chain──> active ──> revoked | expired
                     (no on-chain identity asked for: straight to active)

An operator stops an active session, which is `paused` then (`engine.sessions.pausing`); `mismatch`
is where a session goes whose registration on the chain is not of its own grant. A revoked session
stays revoked. Everything here is decided on the writer's thread.
"""

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from engine.audit.approvals import REQUIRED_MAX
from engine.audit.canonical import encode
from engine.audit.replay import LIVE_STATES
from engine.audit.restricting import POLICY_VERSION_MAX, RESTRICTED
from engine.chain.gateway import ChainGateway
from engine.db.database import BUDGETS, Database
from engine.db.tables import Session, table
from engine.errors import Conflict, InvalidInput, Unavailable
from engine.grant import NO_PARENT, Domain
from engine.identifiers import Identifiers
from engine.ledger.batch import Batch
from engine.ledger.budgets import delegated
from engine.ledger.once import Once, made_once
from engine.ledger.sweep import SWEPT_MAX
from engine.ledger.writer import Writer
from engine.sessions.chain_facts import workspace_is_closed
from engine.sessions.consent import check_consent
from engine.sessions.creation import Identity, draw_identity, make_grant, write_session
from engine.sessions.delegation import (
    ancestors,
    as_child,
    check_narrower,
    family,
    has_children,
)
from engine.sessions.merchants import check_merchants, merchants_of
from engine.sessions.pausing import Pausing, paused_above
from engine.sessions.rotation import check_rotation
from engine.sessions.sentences import in_order
from engine.sessions.session import NewSession, SessionView, readable, session_from_row
from engine.sessions.vault import Vault
from engine.workspaces.agents import check_agent_id, ensure_agent

DURATION_MAX_MS = 168 * 3_600_000
DAMAGED_ROWS_MAX = 100
"""So many rows that cannot be believed are passed over in search of one that can."""

_sessions = table(Session)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which sessions of a workspace to list. `state` is as it is at `now_ms`: what is over by the
    clock is `expired`, whether or not that is recorded yet. An agent that asks sees its own
    (`of_agent`), whichever `agent_id` is wanted; `top` is for a session and all beneath it."""

    now_ms: int
    state: str | None = None
    type: str | None = None
    agent_id: str | None = None
    label: str | None = None
    of_agent: str | None = None
    top: str | None = None

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """For the rows of sessions."""
        agents = ("agent_id", self.agent_id), ("agent_id", self.of_agent)
        named = (("type", self.type), ("label", self.label), *agents)
        found = [_sessions.c[name] == value for name, value in named if value is not None]
        if self.top is not None:
            found.append(_sessions.c.id.in_(family(self.top)))
        live = _sessions.c.state.in_(LIVE_STATES)
        over = sa.and_(live, _sessions.c.expires_ms <= self.now_ms)
        if self.state == "expired":
            found.append(sa.or_(_sessions.c.state == "expired", over))
        elif self.state is not None:
            found += [_sessions.c.state == self.state, sa.not_(over)]
        return found


_ANY = Wanted(0)


class Sessions(Pausing):
    """Creates and changes sessions."""

    def __init__(
        self,
        database: Database,
        writer: Writer,
        vault: Vault,
        identifiers: Identifiers,
        *,
        domain: Domain,
        audit_log: bytes,
        confirmations: int,
    ) -> None:
        self._database = database
        self._writer = writer
        self._vault = vault
        self._identifiers = identifiers
        self.domain = domain
        self._audit_log = audit_log
        self._confirmations = confirmations

    def create(
        self, workspace_id: str, new: NewSession, *, once: Once | None = None
    ) -> tuple[SessionView, str]:
        """Create a session; returns it and its token, which is not shown again but to `once`.

        Raises:
            InvalidInput: naming the field.
            NotFound: there is no such parent, or session to rotate, in the workspace.
            Conflict: the parent cannot delegate, the workspace is closed on the chain, or the
                idempotency key was used for another request.
        """
        check_agent_id(new.agent_id)
        if new.duration_ms is not None and not 0 < new.duration_ms <= DURATION_MAX_MS:
            raise InvalidInput("duration_hours", "must be above 0 and at most 168")
        required = new.approvals_required
        if required is not None and not 0 < required <= REQUIRED_MAX:
            raise InvalidInput("approvals_required", f"must be 1 to {REQUIRED_MAX}")
        if new.await_consent and new.owner is None:
            raise InvalidInput("user_wallet", "must be an EVM address to consent")
        identity = draw_identity(self._identifiers, self._vault)

        def make(batch: Batch) -> tuple[SessionView, str]:
            return self._create(batch, workspace_id, new, identity), identity.token

        return self._writer.call(
            made_once(once, make, lambda batch, made: self.read(batch, made, workspace_id)),
            identity.session_id,
            workspace_id,
            *(() if new.parent_id is None else (new.parent_id, BUDGETS)),
        )

    def get(self, workspace_id: str, session_id: str) -> SessionView:
        """One session of a workspace.

        Raises:
            NotFound: absent, or of another workspace.
        """
        query = sa.select(_sessions).where(
            _sessions.c.id == session_id, _sessions.c.workspace_id == workspace_id
        )
        with self._database.reading() as connection:
            return session_from_row(connection.execute(query).mappings().first())

    def page(
        self, workspace_id: str, *, wanted: Wanted = _ANY, offset: int, limit: int
    ) -> tuple[list[SessionView], int]:
        """A workspace's sessions from `offset` on, the newest first, and how many there are.

        One whose row is damaged is only counted.
        """
        ours = [_sessions.c.workspace_id == workspace_id, *wanted.conditions()]
        query = (
            sa.select(_sessions)
            .where(*ours)
            .order_by(_sessions.c.created_ms.desc(), _sessions.c.id.desc())
            .offset(offset)
            .limit(limit)
        )
        count = sa.select(sa.func.count()).select_from(_sessions).where(*ours)
        with self._database.reading() as connection:
            rows = connection.execute(query).mappings().all()
            return readable(rows, session_from_row), connection.execute(count).scalar_one()

    def consent(
        self,
        workspace_id: str,
        session_id: str,
        signature: bytes,
        kind: str,
        gateway: ChainGateway,
        *,
        by: str | None = None,
    ) -> SessionView:
        """Accept the owner's signature over the session's grant (`engine.audit.consent.KINDS`).

        Raises:
            InvalidInput: it is not the owner's signature over exactly this grant.
            Conflict: the session does not wait for consent.
            ChainUnavailable: a wallet that is a contract cannot be asked.
        """
        view = self.get(workspace_id, session_id)
        if view.state == "awaiting_consent":  # the grant never changes, so this may be outside
            check_consent(view, kind, signature, self.domain, gateway)
        return self._writer.call(
            lambda batch: self._consent(batch, workspace_id, session_id, signature, kind, by),
            session_id,
        )

    def restrict(
        self, workspace_id: str, session_id: str, sentences: Sequence[str], *, by: str
    ) -> SessionView:
        """Replace the restrictions of a live session: conditions that narrow its grant for a while.

        Each change is a new version of its policy. The same ones again change nothing.

        Raises:
            InvalidInput: naming the restriction, as `restrictions[2]`.
            Conflict: the session is over, or they were changed too often.
        """
        ordered = in_order(sentences, "restrictions")
        return self._writer.call(
            lambda batch: self._restrict(batch, workspace_id, session_id, ordered, by),
            session_id,
            BUDGETS,
        )

    def pause(self, workspace_id: str, session_id: str, *, by: str) -> SessionView:
        """Stop a session that is active, and what is beneath it; again changes nothing.

        Raises:
            NotFound: absent, or of another workspace.
            Conflict: it is not active.
        """
        return self._writer.call(
            lambda batch: self.paused(batch, self.read(batch, session_id, workspace_id), by),
            session_id,
        )

    def resume(self, workspace_id: str, session_id: str, *, by: str) -> SessionView:
        """Let a session go on that is paused, and what was paused with it.

        Raises:
            NotFound: absent, or of another workspace.
            Conflict: it is not paused, or one above it is.
        """
        return self._writer.call(
            lambda batch: self.resumed(batch, self.read(batch, session_id, workspace_id), by),
            session_id,
        )

    def revoke(self, workspace_id: str, session_id: str, *, by: str) -> SessionView:
        """End a session and all beneath it for good; ending it again changes nothing."""

        def command(batch: Batch) -> SessionView:
            view = self.read(batch, session_id, workspace_id)
            return self.revoked(batch, view, {"by": by})

        return self._writer.call(command, session_id)

    def latest_expiry_ms(self) -> int:
        """When the last of the sessions that are over was over; 0 if none is.

        All would be over by then, so a row that tells another time than its grant is not believed.
        """
        query = sa.select(_sessions).where(_sessions.c.state == "expired")
        newest = query.order_by(_sessions.c.expires_ms.desc()).limit(DAMAGED_ROWS_MAX)
        with self._database.reading() as connection:
            for row in connection.execute(newest).mappings():
                with contextlib.suppress(Unavailable):
                    view = session_from_row(row)
                    if view.expires_ms == view.grant.valid_until_s * 1000:
                        return view.expires_ms
        return 0

    # What follows runs on the writer's thread.

    def _create(
        self, batch: Batch, workspace_id: str, new: NewSession, identity: Identity
    ) -> SessionView:
        if workspace_is_closed(batch.read, workspace_id, self._confirmations):
            raise Conflict(
                f"workspace {workspace_id} is closed on the chain", code="workspace_closed"
            )
        line: list[SessionView] = []
        inherited: frozenset[str] = frozenset()
        if new.parent_id is not None:
            parent = self.read(batch, new.parent_id, workspace_id)
            line = [parent, *ancestors(batch.read, parent)]
            batch.hold(above.id for above in line)
            new = as_child(batch.read, new, line, batch.now_ms)
            inherited = merchants_of(parent.policy)
        check_merchants(new.merchants, "allowed_merchants", inherited)
        new = replace(new, conditions=in_order(new.conditions, "conditions", inherited))
        grant = make_grant(
            new,
            identity,
            workspace_id=workspace_id,
            audit_log=self._audit_log,
            parent=line[0].grant_hash if line else NO_PARENT,
            now_ms=batch.now_ms,
        )
        check_narrower(grant, line)
        if new.rotates_id is not None:
            old = self.read(batch, new.rotates_id, workspace_id)
            check_rotation(old, new, grant.owner)
        ensure_agent(batch, workspace_id, new.agent_id, new.agent_name, by=new.by)
        state = "awaiting_consent" if new.await_consent else _after_consent(new.mint_pkp)
        if line and not has_children(batch.read, line[0].id):
            delegated(batch, workspace_id, line[0].id)
        write_session(batch, new, identity, grant, state=state)
        view = self.read(batch, identity.session_id)
        self._tell(batch, view, "agent.session.created")
        return view

    def _restrict(
        self, batch: Batch, workspace_id: str, session_id: str, sentences: tuple[str, ...], by: str
    ) -> SessionView:
        view = self.read(batch, session_id, workspace_id)
        if view.state not in LIVE_STATES:
            raise Conflict(f"the session is {view.state}", code="session_not_live")
        if view.restrictions == sentences:
            return view
        version = view.policy_version + 1
        if version > POLICY_VERSION_MAX:
            raise Conflict(
                f"the restrictions were changed {POLICY_VERSION_MAX - 1} times already",
                code="too_many_restrictions",
            )
        values = {
            "restrictions_json": encode(list(sentences)).decode(),
            "policy_version": version,
        }
        told = {"by": by, "restrictions": list(sentences), "policy_version": version}
        return self.with_beneath(
            batch, view, lambda: self.bound(batch, view, values, [(RESTRICTED, told)])
        )

    def _consent(
        self,
        batch: Batch,
        workspace_id: str,
        session_id: str,
        signature: bytes,
        kind: str,
        by: str | None,
    ) -> SessionView:
        view = self.read(batch, session_id, workspace_id)
        if (view.consent, view.owner_signature) == (kind, signature):
            return view
        if view.state != "awaiting_consent":
            raise Conflict(f"the session is {view.state}", code="consent_not_awaited")
        state = _after_consent(view.mint_pkp)
        paused = paused_above(batch, view) if state == "active" else None
        batch.update(
            sa.update(_sessions)
            .where(_sessions.c.id == session_id)
            .values(consent=kind, owner_signature=signature)
        )
        self._move(
            batch,
            view,
            state,
            "session.consented",
            {
                "owner": view.grant.owner,
                "consent": kind,
                "owner_signature": "0x" + signature.hex(),
                "by": by,
            },
        )
        self.pause_beneath(batch, view, paused)
        return self.read(batch, session_id)

    def over(self, batch: Batch, but: Collection[str], chain_time_ms: int) -> Mapping[str, None]:
        """The sessions that are over, but not these.

        A session that lives on the chain is over by whichever clock gets there first.
        """
        by_chain = sa.and_(_sessions.c.mint_pkp, _sessions.c.expires_ms <= chain_time_ms)
        query = (
            sa.select(_sessions.c.id)
            .where(
                sa.or_(_sessions.c.expires_ms <= batch.now_ms, by_chain),
                _sessions.c.state.in_(LIVE_STATES),
                _sessions.c.id.not_in(but),
            )
            .limit(SWEPT_MAX)
        )
        due = dict.fromkeys(batch.read(query).scalars())
        batch.hold(due)
        return due

    def end(self, batch: Batch, session_id: str, chain_time_ms: int) -> int:
        """Mark a session that is over; returns that it was one."""
        view = self.read(batch, session_id)
        self.expired(batch, view, {"chain_time_ms": chain_time_ms} if view.mint_pkp else {})
        return 1


def _after_consent(mint_pkp: bool) -> str:
    return "registering" if mint_pkp else "active"
