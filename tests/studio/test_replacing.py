"""Sessions are rotated in the Studio by the contract's own `rotate`, where one owner has both."""

import re
from html import unescape

from api.studio import passkeys
from engine.audit.verify import Verdict, verify
from engine.evidence.chain_view import GatewayView
from engine.policy.limits import Limits
from tests.evidence.story import pass_time
from tests.sessions.hands import lower
from tests.studio.conftest import Opened
from tests.studio.test_opening import ASKED, NEW, session_of, to_sign, wizard
from tests.studio.visitor import Visitor
from tests.world import USD, WORKSPACE


def opened(studio: Opened, visitor: Visitor, role: str, **fields: str) -> str:
    """Somebody opens a session with an identity; its id."""
    form = to_sign(wizard(visitor, **fields))
    assert visitor.answer(form, studio.passkeys[role]).status_code == 200
    return session_of(form)


def rotating(visitor: Visitor, session_id: str, **changes: str) -> object:
    """Fill the form in that puts another session in the place of one, by the chain."""
    form = visitor.form(f"{NEW}?replaces={session_id}", NEW)
    return visitor.send(form, **{**ASKED, "mint_pkp": "on", "rotates": "on", **changes})


def test_the_chain_ends_the_old_session_as_it_registers_the_new_one_and_links_them(
    studio: Opened,
) -> None:
    pass_time(studio.world, studio.clock, 3_600_000)
    engine, visitor = studio.world.engine, studio.visitor("operator")
    old_id = opened(studio, visitor, "operator", label="leaked")
    page = unescape(visitor.get(f"{NEW}?replaces={old_id}").text)
    assert re.search(r'name="rotates">', page)
    sent = rotating(visitor, old_id, label="fresh")
    form = to_sign(sent)
    new_id = session_of(form)
    shown = unescape(sent.text)  # type: ignore[attr-defined]
    assert "ends another session for good" in shown
    assert "leaked" in shown
    assert engine.sessions.get(WORKSPACE, old_id).state == "active"
    done = visitor.answer(form, studio.passkeys["operator"])
    assert "leaked</a> has ended" in done.text
    states = [engine.sessions.get(WORKSPACE, each).state for each in (old_id, new_id)]
    assert states == ["revoked", "active"]
    old, new = (visitor.get(f"/studio/sessions/{each}.json").json() for each in (old_id, new_id))
    assert old["rotation"] == {"from": None, "to": {"id": new_id, "label": "fresh"}}
    assert new["rotation"] == {"from": {"id": old_id, "label": "leaked"}, "to": None}
    assert {each["tx_hash"] for each in new["on_chain"]} <= {e["tx_hash"] for e in old["on_chain"]}
    assert f"/studio/sessions/{new_id}" in visitor.get(f"/studio/sessions/{old_id}").text
    engine.anchor()
    for each in (old_id, new_id):
        file, chain = engine.evidence(WORKSPACE, each), GatewayView(engine.gateway)
        report = verify(file, chain, registry=engine.deployment.registry)
        assert report.verdict is Verdict.VERIFIED, report.reason


def test_the_page_says_whose_signature_is_missing_for_a_rotation_on_the_chain(
    studio: Opened,
) -> None:
    world, visitor = studio.world, studio.visitor("operator")
    by_wallet = world.session(mint_pkp=True, label="a wallet's")
    mine = studio.people.passkeys(studio.persons["admin"].key_id)[0]
    owner = passkeys.owner(mine)
    how = {"owner": owner, "user_wallet": owner, "await_consent": False}
    by_admin = world.session(mint_pkp=True, label="the admin's", **how)
    for session_id in (by_wallet.id, by_admin.id):
        owner = world.engine.sessions.get(WORKSPACE, session_id).grant.owner
        page = unescape(visitor.get(f"{NEW}?replaces={session_id}").text)
        assert 'name="rotates" disabled' in page
        assert f"the signature of {owner} would be missing" in page
        refused = rotating(visitor, session_id)
        assert refused.status_code == 422  # type: ignore[attr-defined]
        assert "would be missing" in refused.text  # type: ignore[attr-defined]
        assert world.engine.sessions.get(WORKSPACE, session_id).state == "active"


def test_what_takes_the_place_of_a_session_is_offered_no_more_than_that_may(
    studio: Opened,
) -> None:
    world, visitor = studio.world, studio.visitor("operator")
    limits = Limits(90 * USD, 200 * USD, None, None, 50 * USD)
    old = world.session(limits, mint_pkp=True, conditions=("at most 10 payments per hour",))
    world.engine.sessions.restrict(WORKSPACE, old.id, ("at most 2 payments per hour",), by="key_x")
    lower(world, old, Limits(9 * USD, 20 * USD, None, None, 5 * USD))
    page = unescape(visitor.get(f"{NEW}?replaces={old.id}").text)
    filled = dict(re.findall(r'<input name="([a-z_]+)"[^>]* value="([^"]*)"', page))
    assert (filled["max_per_transaction"], filled["max_per_day"]) == ("9", "20")
    assert filled["require_approval_above"] == "5"
    assert filled["payments_per_hour"] == "10"
    assert ">at most 2 payments per hour</textarea>" in page
