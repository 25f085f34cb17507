"""A world without faults gives no discrepancy, and every planted fault gives exactly its own."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.audit.canonical import encode
from engine.ledger.discrepancies import (
    ENDPOINTS_DISAGREE,
    PARAMETERS_DIFFER,
    SESSION_DAMAGED,
    SETTLEMENT_CONTRADICTED,
)
from engine.reconcile.compare import INDEX_LAG_MAX, OVERDUE_MS, Finding, compare
from engine.reconcile.kinds import KINDS
from engine.reconcile.settlements import FOUND_HERE
from engine.reconcile.sides import Ending
from tests.reconcile.worlds import (
    CONFIRMATIONS,
    LIMITS,
    NOW_MS,
    TIP,
    Facts,
    Making,
    root_of,
)

Plant = Callable[[Making], str]
"""Makes one thing wrong, and says what it is about."""

seeds = st.integers(0, 2**32)


def found(facts: Facts) -> list[Finding]:
    return compare(facts.ledger(), facts.chain(), confirmations=CONFIRMATIONS)


@given(seeds)
def test_where_nothing_is_wrong_nothing_is_found(seed: int) -> None:
    assert found(Making(seed).make()) == []


def registration_gone(making: Making) -> str:
    session = making.random.choice(making.facts.of("active"))
    del making.facts.registrations[session.token_id]
    return session.id


def session_gone(making: Making) -> str:
    session = making.random.choice(making.facts.of("active", "revoked"))
    del making.facts.sessions[session.id]
    return "token 0x" + session.token_id.hex()


def other_parameters_on_the_chain(making: Making) -> str:
    session = making.random.choice(making.facts.of("active", "expired"))
    registration = making.facts.registrations[session.token_id]
    making.facts.registrations[session.token_id] = replace(registration, grant_hash=b"\x66" * 32)
    return session.id


def other_parameters_enforced(making: Making) -> str:
    session = making.random.choice(making.facts.of("active"))
    making.facts.change(session, parameters_hash=making.random.choice((None, b"\x66" * 32)))
    return session.id


def consistently_other_parameters_here(making: Making) -> str:
    session = making.random.choice(making.facts.of("active"))
    making.facts.change(session, parameters_hash=b"\x66" * 32, grant_hash=b"\x66" * 32)
    return session.id


def revoked_there(making: Making) -> str:
    session = making.random.choice(making.facts.of("active"))
    making.revoked(session)
    return session.id


def workspace_closed_there(making: Making) -> str:
    session = making.session("sess_closed", "active")
    registration = making.registered(session, workspace=b"\xc0" * 32, place=making.place(10))
    closing = Ending("WorkspaceClosed", "0x" + "0c" * 20, making.place(11))
    making.facts.closings[registration.workspace] = [closing]
    return session.id


def over_there(making: Making) -> str:
    session = making.random.choice(making.facts.of("active"))
    registration = making.facts.registrations[session.token_id]
    making.facts.registrations[session.token_id] = replace(
        registration, valid_until_s=NOW_MS // 1000
    )
    return session.id


def lowered_there(making: Making) -> str:
    session = making.random.choice(making.facts.of("active"))
    change = making.random.choice(({"per_day": 199}, {"per_week": 10**15 - 1}))
    making.lowered(session, replace(LIMITS, **change))
    return session.id


def registered_and_not_heard_of(making: Making) -> str:
    session = making.session("sess_deaf", "registering", waiting_since_ms=NOW_MS)
    making.registered(session, place=making.place(TIP - CONFIRMATIONS))
    return session.id


def registered_without_being_asked(making: Making) -> str:
    session = making.session("sess_unasked", "active", on_chain=False)
    making.registered(session)
    return session.id


def registered_before_its_owner_agreed(making: Making) -> str:
    session = making.session("sess_early", "awaiting_consent")
    making.registered(session)
    return session.id


def registration_overdue(making: Making) -> str:
    [session, *_] = [s for s in making.facts.of("registering") if s.waiting_since_ms != 1]
    making.facts.change(session, waiting_since_ms=NOW_MS - OVERDUE_MS - 1)
    return session.id


def revocation_overdue(making: Making) -> str:
    session = making.session("sess_late", "revoked", waiting_since_ms=NOW_MS - OVERDUE_MS - 1)
    making.registered(session)
    return session.id


def workspace_shared(making: Making) -> str:
    for number in range(making.random.randint(1, 3)):
        stranger = making.session(f"sess_stranger{number}", "active")
        del making.facts.sessions[stranger.id]
        making.registered(stranger, audit_log=b"\x77" * 32)
    return "workspace default"


def other_root_on_the_chain(making: Making) -> str:
    size = making.random.choice(list(making.facts.theirs))
    making.facts.theirs[size] = replace(making.facts.theirs[size], root=b"\x66" * 32)
    return f"anchor {size}"


def other_root_here(making: Making) -> str:
    size = making.random.choice(list(making.facts.ours))
    making.facts.ours[size] = replace(making.facts.ours[size], root=b"\x66" * 32)
    return f"anchor {size}"


def more_anchored_than_there_is(making: Making) -> str:
    size = making.facts.log_size + 1
    making.anchor(size, "mined", TIP)
    if making.random.random() < 0.5:
        del making.facts.ours[size]
    return f"anchor {size}"


def anchor_gone(making: Making) -> str:
    size = making.random.choice(list(making.facts.theirs))
    del making.facts.theirs[size]
    return f"anchor {size}"


def anchor_row_gone(making: Making) -> str:
    size = making.random.choice(list(making.facts.theirs))
    del making.facts.ours[size]
    return f"anchor {size}"


def anchored_by_another(making: Making) -> str:
    size = making.random.choice(list(making.facts.theirs))
    making.facts.ours[size] = replace(making.facts.ours[size], tx_hashes=(b"\x66" * 32,))
    return f"anchor {size}"


def anchor_in_another_block(making: Making) -> str:
    size = making.random.choice(list(making.facts.theirs))
    change = making.random.choice(({"block_hash": b"\x66" * 32}, {"block_number": 7}))
    making.facts.ours[size] = replace(making.facts.ours[size], **change)
    return f"anchor {size}"


def anchor_waits(making: Making) -> str:
    making.facts.ours[200] = replace(making.facts.ours[200], sent_ms=NOW_MS - OVERDUE_MS - 1)
    return "anchor 200"


def index_lacks_one(making: Making) -> str:
    place = making.random.choice(list(making.facts.index))
    del making.facts.index[place]
    return "event {}/{}".format(*place)


def index_has_one_more(making: Making) -> str:
    place = making.random.choice(list(making.facts.events))
    making.facts.index[TIP, 9_999] = making.facts.index[place]
    return f"event {TIP}/9999"


def index_has_another(making: Making) -> str:
    place = making.random.choice(list(making.facts.index))
    making.facts.index[place] = replace(making.facts.index[place], digest=b"\x66" * 32)
    return "event {}/{}".format(*place)


def index_behind(making: Making) -> str:
    making.facts.head_number = TIP + INDEX_LAG_MAX + 1
    return "index"


PLANTS: dict[str, list[Plant]] = {
    "session_missing_on_chain": [registration_gone],
    "session_unknown_here": [session_gone],
    "parameters_differ": [
        other_parameters_on_the_chain,
        other_parameters_enforced,
        consistently_other_parameters_here,
    ],
    "revoked_on_chain_only": [revoked_there, workspace_closed_there],
    "expired_on_chain_only": [over_there],
    "lowered_on_chain_only": [lowered_there],
    "registered_on_chain_only": [
        registered_and_not_heard_of,
        registered_without_being_asked,
        registered_before_its_owner_agreed,
    ],
    "registration_overdue": [registration_overdue],
    "revocation_overdue": [revocation_overdue],
    "workspace_shared": [workspace_shared],
    "anchor_differs": [other_root_on_the_chain, other_root_here, more_anchored_than_there_is],
    "anchor_missing": [anchor_gone],
    "anchor_unknown_here": [anchor_row_gone],
    "anchor_replaced": [anchored_by_another],
    "anchor_reorged": [anchor_in_another_block],
    "anchor_stuck": [anchor_waits],
    "index_differs": [index_lacks_one, index_has_one_more, index_has_another],
    "index_behind": [index_behind],
}
FOUND_BY_THE_LEDGER = {SESSION_DAMAGED}
FOUND_WHILE_READING = {ENDPOINTS_DISAGREE, SETTLEMENT_CONTRADICTED, *FOUND_HERE}

cases = pytest.mark.parametrize(
    ("kind", "plant"),
    [
        pytest.param(kind, plant, id=f"{kind}: {plant.__name__}")
        for kind, plants in PLANTS.items()
        for plant in plants
    ],
)


def test_every_kind_is_planted() -> None:
    assert PLANTS.keys() == KINDS.keys() - FOUND_BY_THE_LEDGER - FOUND_WHILE_READING - set(
        FOUND_HERE
    )
    assert PARAMETERS_DIFFER in KINDS, "the ledger finds it, too"


@cases
@given(seed=seeds)
def test_a_planted_fault_gives_exactly_its_own(kind: str, plant: Plant, seed: int) -> None:
    making = Making(seed)
    facts = making.make()
    subject = plant(making)
    [finding] = found(facts)
    assert finding.key == (kind, subject)
    assert finding.severity == KINDS[kind].severity
    assert encode(finding.evidence), "it can be kept"


ABOUT = {
    "sessions": [kind for kind in PLANTS if not kind.startswith(("anchor", "index"))],
    "anchors": [kind for kind in PLANTS if kind.startswith("anchor")],
    "index": [kind for kind in PLANTS if kind.startswith("index")],
}


@given(seeds, st.tuples(*map(st.sampled_from, ABOUT.values())))
def test_of_several_faults_none_hides_another(seed: int, kinds: tuple[str, ...]) -> None:
    making = Making(seed)
    facts = making.make()
    planted = {(kind, making.random.choice(PLANTS[kind])(making)) for kind in kinds}
    assert {finding.key for finding in found(facts)} == planted


def test_a_part_of_the_chain_says_nothing_about_the_rest() -> None:
    facts = Making(1).make()
    chain = facts.chain()
    chain.from_block = TIP - 10
    chain.registrations.clear()
    chain.revocations.clear()
    chain.closings.clear()
    chain.lowerings.clear()
    for side in (facts.events, facts.index):
        for place in [place for place in side if place[0] < chain.from_block]:
            del side[place]
    for size in [size for size, anchor in facts.theirs.items() if anchor.place.block_number < TIP]:
        del facts.theirs[size]
    assert compare(facts.ledger(), chain, confirmations=CONFIRMATIONS) == []


def test_the_worst_of_an_anchor_is_told() -> None:
    making = Making(2)
    facts = making.make()
    facts.theirs[100] = replace(facts.theirs[100], root=root_of(101))
    facts.ours[100] = replace(facts.ours[100], tx_hashes=(), block_number=5)
    assert [finding.key for finding in found(facts)] == [("anchor_differs", "anchor 100")]


def test_a_block_further_on_decides_nothing() -> None:
    """An anchor that is mined above the block of the comparison is not missing below it."""
    making = Making(3)
    facts = making.make()
    del facts.theirs[100]
    facts.ours[100] = replace(facts.ours[100], block_number=TIP + 1)
    assert found(facts) == []
    assert facts.chain().block.number == TIP
