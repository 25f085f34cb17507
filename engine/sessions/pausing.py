"""Pausing: an operator stops a session, and lets it go on.

active ──pause──> paused ──resume──> active, or registering where the chain has to say so again

What is beneath a session is paused with it, and goes on with it unless it was paused by itself.
"""

from collections.abc import Mapping
from typing import Any

from engine.errors import Conflict
from engine.ledger.account_loading import load_account
from engine.ledger.batch import Batch
from engine.sessions.chain_facts import is_registered
from engine.sessions.delegation import ancestors, descendants
from engine.sessions.life import Life
from engine.sessions.session import SessionView

ANCESTOR = "ancestor"
"""By whom a session is paused, or goes on, that is so because of one above it."""


class Pausing(Life):
    """On the writer's thread."""

    _confirmations: int

    def registered(self, batch: Batch, view: SessionView, evidence: Mapping[str, Any]) -> None:
        """See `Life`; beneath a session that is paused it is paused at once."""
        paused = paused_above(batch, view)
        super().registered(batch, view, evidence)
        self.pause_beneath(batch, view, paused)

    def pause_beneath(self, batch: Batch, view: SessionView, paused: SessionView | None) -> None:
        """A session has just become active; one above it, `paused`, is not."""
        if paused is not None:
            self._pause(batch, view, {"by": ANCESTOR, "ancestor_id": paused.id})

    def paused(self, batch: Batch, view: SessionView, by: str) -> SessionView:
        """Pause it, and what is active beneath it. Again by an operator changes nothing.

        Raises:
            Conflict: it is not active.
        """
        state = "expired" if batch.now_ms >= view.expires_ms else view.state
        if state == "paused" and view.paused_by != ANCESTOR:
            return view
        if state not in ("active", "paused"):
            raise Conflict(f"the session is {state}", code="session_not_active")
        beneath = [each for each in descendants(batch.read, view.id) if each.state == "active"]
        batch.hold(each.id for each in (view, *beneath))
        self._pause(batch, view, {"by": by})
        for child in beneath:
            self._pause(batch, child, {"by": ANCESTOR, "ancestor_id": view.id})
        return self.read(batch, view.id)

    def resumed(self, batch: Batch, view: SessionView, by: str) -> SessionView:
        """Let it go on, and what is paused beneath it only because of it; or not to be told as
        paused by a limit any more. Again changes nothing.

        Raises:
            Conflict: it is not paused, or one above it is.
        """
        state = "expired" if batch.now_ms >= view.expires_ms else view.state
        if state == "active" and load_account(batch, view.id).at_limit(batch.now_ms):
            # No record pauses what is told as paused by a limit, so both are written now.
            self._pause(batch, view, {"by": by})
            self._resume(batch, view, {"by": by})
            return self.read(batch, view.id)
        if state in ("active", "registering"):
            return view
        if state != "paused":
            raise Conflict(f"the session is {state}", code="session_not_paused")
        if (above := paused_above(batch, view)) is not None:
            raise Conflict(f"session {above.id} above it is paused", code="parent_not_active")
        going, still = [], set[str]()
        for child in descendants(batch.read, view.id):  # each after its parent
            if child.parent_id in still:
                still.add(child.id)
            elif child.state == "paused":
                if child.paused_by == ANCESTOR:
                    going.append(child)
                else:
                    still.add(child.id)
        batch.hold(each.id for each in (view, *going))
        self._resume(batch, view, {"by": by})
        for child in going:
            self._resume(batch, child, {"by": ANCESTOR, "ancestor_id": view.id})
        return self.read(batch, view.id)

    def _pause(self, batch: Batch, view: SessionView, evidence: Mapping[str, Any]) -> None:
        by = evidence["by"]
        self._move(batch, view, "paused", "session.paused", evidence, paused_by=by)

    def _resume(self, batch: Batch, view: SessionView, evidence: Mapping[str, Any]) -> None:
        """What lives on the chain is active if it is registered there, with enough blocks above."""
        there = not view.mint_pkp or is_registered(
            batch.read, view.token_id, view.grant_hash, self._confirmations
        )
        state = "active" if there else "registering"
        self._move(batch, view, state, "session.resumed", evidence)


def paused_above(batch: Batch, view: SessionView) -> SessionView | None:
    """The nearest session above one that is paused. Whoever pauses one waits for this batch.

    Raises:
        Unavailable: the rows above it do not hold sessions that it descends from.
    """
    if view.parent_id is None:
        return None
    line = ancestors(batch.read, view)
    batch.hold(above.id for above in line)
    return next((above for above in line if above.state == "paused"), None)
