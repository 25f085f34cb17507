"""Signed = anchored = enforced: parameters that are not the chain's decide nothing."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from engine.audit.canonical import encode
from engine.db.tables import ChainEvent, Record, Session, table
from engine.grant import Grant
from engine.ledger.batch import Batch
from engine.policy.limits import Limits
from engine.sessions.session import SessionView
from tests.sessions.hands import code, discrepancies, replayed
from tests.world import USD, World, records_of

GRANTED = Limits(None, 10 * USD, None, None, None)

_events = table(ChainEvent)
_records = table(Record)
_sessions = table(Session)

Tampering = Callable[[Batch, SessionView, Grant], None]


def change(world: World, tampering: Tampering, view: SessionView, grant: Grant) -> None:
    """Somebody writes to the database, and the engine is not told."""
    world.engine.writer.call(lambda batch: tampering(batch, view, grant))


def grant_alone(batch: Batch, view: SessionView, grant: Grant) -> None:
    """The parameters in the session's row."""
    _set_row(batch, view, grant_json=encode(grant.to_json()).decode())


def grant_and_hash(batch: Batch, view: SessionView, grant: Grant) -> None:
    """And their hash."""
    grant_alone(batch, view, grant)
    _set_row(batch, view, grant_hash=grant.hash())


def record_but_not_its_hash(batch: Batch, view: SessionView, grant: Grant) -> None:
    """The parameters in row and record; the hash is the genuine one, as the chain has it."""
    grant_alone(batch, view, grant)
    _set_record(batch, view, grant=grant.to_json())


def everything_but_the_chain(batch: Batch, view: SessionView, grant: Grant) -> None:
    """Row and record, and all hashes in them."""
    grant_and_hash(batch, view, grant)
    _set_record(batch, view, grant=grant.to_json(), grant_hash=grant.hash().hex())


def record_alone(batch: Batch, view: SessionView, grant: Grant) -> None:
    """The record, with its hash."""
    _set_record(batch, view, grant=grant.to_json(), grant_hash=grant.hash().hex())


def index_of_the_chain(batch: Batch, view: SessionView, grant: Grant) -> None:
    """What the index has of the registration."""
    ours = _events.c.subject == view.token_id, _events.c.name == "SessionRegistered"
    args = json.loads(batch.read(sa.select(_events.c.args_json).where(*ours)).scalar_one())
    args["grantHash"] = "0x" + grant.hash().hex()
    batch.update(sa.update(_events).where(*ours).values(args_json=json.dumps(args)))


def index_without_it(batch: Batch, view: SessionView, grant: Grant) -> None:
    """The registration is not in the index."""
    del grant
    batch.update(sa.delete(_events).where(_events.c.subject == view.token_id))


def token_of_another(batch: Batch, view: SessionView, grant: Grant) -> None:
    """The row names a token id that nobody registered."""
    del grant
    _set_row(batch, view, token_id=bytes(31) + view.token_id[-1:])


def _set_row(batch: Batch, view: SessionView, **values: Any) -> None:
    batch.update(sa.update(_sessions).where(_sessions.c.id == view.id).values(**values))


def _set_record(batch: Batch, view: SessionView, **values: Any) -> None:
    first = _records.c.stream == view.id, _records.c.seq == 0
    record = json.loads(batch.read(sa.select(_records.c.body).where(*first)).scalar_one())
    record["body"].update(values)
    batch.update(sa.update(_records).where(*first).values(body=encode(record)))


ON_ROWS = (grant_alone, grant_and_hash, record_but_not_its_hash, everything_but_the_chain)
ON_RECORD = (record_alone,)
ON_INDEX = (index_of_the_chain, index_without_it, token_of_another)


def richer(view: SessionView) -> Grant:
    """What a thief would like."""
    return replace(view.grant, limits=replace(GRANTED, per_day=1_000 * USD))


@pytest.mark.parametrize("tampering", [*ON_ROWS, *ON_RECORD, *ON_INDEX])
def test_a_session_with_other_parameters_than_the_chains_pays_nothing(
    own: World, tampering: Tampering
) -> None:
    view, other = (own.session(GRANTED, mint_pkp=True) for _ in range(2))
    change(own, tampering, view, richer(view))
    for dollars in (1, 11, 1):
        assert code(own, view, dollars) == "PARAMETERS_MISMATCH"
    own.engine.tick()
    assert code(own, other) == "ALLOWED"
    [found] = discrepancies(own, view)
    assert (found.kind, found.severity) == ("parameters_differ", "critical")
    assert (found.session_type, found.workspace_id) == (view.type, view.workspace_id)
    assert found.last_seen_ms >= found.first_seen_ms
    assert discrepancies(own, other) == []


@pytest.mark.parametrize("tampering", [*ON_ROWS, *ON_RECORD])
def test_an_engine_that_has_the_session_in_memory_notices_at_its_next_look(
    own: World, tampering: Tampering
) -> None:
    view = own.session(GRANTED, mint_pkp=True)
    assert code(own, view) == "ALLOWED"
    change(own, tampering, view, richer(view))
    assert code(own, view, 11) == "LIMIT_EXCEEDED", "the genuine limits are in memory"
    own.engine.tick()
    [found] = discrepancies(own, view)
    assert found.kind == "parameters_differ"
    assert code(own, view) == "PARAMETERS_MISMATCH"
    assert len(discrepancies(own, view)) == 1


def test_parameters_that_are_put_back_are_enforced_again(own: World) -> None:
    view = own.session(GRANTED, mint_pkp=True)
    assert code(own, view) == "ALLOWED"
    change(own, grant_and_hash, view, richer(view))
    own.engine.tick()
    assert code(own, view) == "PARAMETERS_MISMATCH"
    change(own, grant_and_hash, view, view.grant)
    own.engine.tick()
    assert code(own, view) == "ALLOWED"
    assert discrepancies(own, view) == []
    change(own, grant_alone, view, richer(view))
    own.reopen()
    assert code(own, view) == "PARAMETERS_MISMATCH"
    change(own, grant_alone, view, view.grant)
    own.reopen()
    own.engine.tick()
    assert discrepancies(own, view) == []
    assert code(own, view) == "ALLOWED"
    denied = [r.body for r in records_of(own, view.id) if r.kind == "payment.decided"]
    assert [each["standing"] for each in denied] == ["active", "mismatch"] * 2 + ["active"]
    replayed(own, view)


@pytest.mark.parametrize("tampering", [grant_alone, grant_and_hash])
def test_without_an_identity_on_the_chain_the_first_record_is_what_counts(
    own: World, tampering: Tampering
) -> None:
    view = own.session(GRANTED)
    change(own, tampering, view, richer(view))
    for dollars in (1, 11):
        assert code(own, view, dollars) == "PARAMETERS_MISMATCH"
    [found] = discrepancies(own, view)
    assert found.kind == "parameters_differ"
    replayed(own, view)


def test_a_registration_with_other_parameters_is_one_discrepancy_until_it_is_gone(
    own: World,
) -> None:
    view = own.create(GRANTED, await_consent=False, wait_s=0)
    change(own, grant_and_hash, view, richer(view))
    own.engine.tick()
    assert code(own, view) == "PARAMETERS_MISMATCH"
    change(own, grant_and_hash, view, view.grant)
    own.engine.tick()
    own.engine.tick()
    assert code(own, view) == "PARAMETERS_MISMATCH", "the thief's were registered meanwhile"
    assert [found.kind for found in discrepancies(own, view)] == ["parameters_differ"]
