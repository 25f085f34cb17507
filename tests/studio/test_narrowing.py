"""Restrictions of a session and budgets above it, as they are set and shown in pages."""

import json
import re
from html import unescape

from engine.policy.budgets import BudgetLimits
from engine.policy.limits import Limits
from tests.studio.conftest import Opened
from tests.world import USD, WORKSPACE


def test_a_session_is_restricted_by_passkey_to_what_was_shown(studio: Opened) -> None:
    engine, visitor = studio.world.engine, studio.visitor("operator")
    mine = studio.passkeys["operator"]
    session = studio.world.session(label="narrow", conditions=("at most 100 payments per hour",))
    path = f"/studio/sessions/{session.id}/restrict"
    assert "at most 100 payments per hour" in visitor.get(path).text
    asked = f"{path}?given=1&payments_per_hour=2&from=09:00&until=17:00&day:Mon=on&never=casino"
    form = visitor.form(asked, path)
    said = ("at most 2 payments per hour", "never merchant casino", "only 09:00-17:00 UTC on Mon")
    assert form.fields["restrictions"] == "\n".join(said)
    more = {"restrictions": "at most 3 payments per hour"}
    signed = json.dumps(mine.get(form.options["challenge"]))
    assert visitor.send(form, answer=signed, **more).status_code == 401
    assert visitor.answer(form, mine).status_code == 303
    view = engine.sessions.get(WORKSPACE, session.id)
    assert (view.restrictions, view.policy_version) == (said, 2)
    page = visitor.get(f"/studio/sessions/{session.id}").text
    for each in said:
        assert each in page
    assert "restricted" in page
    filled = visitor.get(path).text
    for field in ('name="payments_per_hour" inputmode="numeric" value="2"', 'value="09:00"'):
        assert field in filled
    assert re.search('name="day:Mon" checked', filled)
    told = visitor.get(f"{path}.json?given=1&payments_per_hour=2").json()["wanted"]
    assert (told["kept"], told["lifted"]) == (["at most 2 payments per hour"], list(said[1:]))
    assert visitor.answer(visitor.form(f"{path}?given=1", path), mine).status_code == 303
    assert engine.sessions.get(WORKSPACE, session.id).restrictions == ()
    wrong = visitor.get(f"{path}?given=1&others=when+it+rains")
    assert "is none of the sentences" in unescape(wrong.text)
    engine.revoke_session(WORKSPACE, session.id, by="key_x")
    assert visitor.get(path).status_code == 409


def test_a_budget_is_set_and_lifted_by_passkey_and_seen_where_it_binds(studio: Opened) -> None:
    engine, visitor = studio.world.engine, studio.visitor("operator")
    mine, place = studio.passkeys["operator"], "/studio/budgets/set"
    session = studio.world.session(Limits(None, None, None, None, None), agent_id="thrifty")
    studio.world.pay(session, 90)
    form = visitor.form(f"{place}?given=1&agent=thrifty&max_per_day=100.50", place)
    assert form.fields["max_per_day"] == "100.50"
    signed = json.dumps(mine.get(form.options["challenge"]))
    assert visitor.send(form, answer=signed, max_per_day="1000").status_code == 401
    assert visitor.answer(form, mine).status_code == 303
    assert engine.budgets.get(WORKSPACE, "thrifty").limits == BudgetLimits(per_day=100_500_000)
    everything = visitor.get("/studio/budgets.json").json()["budgets"]
    told = next(each for each in everything if each["agent_id"] == "thrifty")
    gauge = {"name": "24 hours", "unit": "USD", "limit": 100.5, "used": 90}
    assert told["limits"] == [{**gauge, "share": 0.8955, "near": True}]
    row = visitor.get("/studio/index.json?agent=thrifty").json()["sessions"][0]
    assert row["budgets"][0]["limits"] == told["limits"]
    assert row["health"] == ["90% of the agent's budget used: 24 hours"]
    for page in ("/studio/budgets", f"/studio/sessions/{session.id}"):
        shown = re.sub("<[^>]*>", "", visitor.get(page).text)
        assert "$90.00 of $100.50" in shown, page
    again = visitor.form(f"{place}?given=1&agent=thrifty&max_payments_per_hour=1", place)
    visitor.answer(again, mine)
    counted = visitor.get(f"/studio/sessions/{session.id}.json").json()["session"]["budgets"]
    assert counted[0]["limits"][0]["name"] == "payments in 1 hour"
    assert (counted[0]["limits"][0]["used"], counted[0]["limits"][0]["limit"]) == (1, 1)
    lift = visitor.form(f"{place}?agent=thrifty", "/studio/budgets/lift")
    assert visitor.send(lift).status_code == 401
    assert visitor.answer(lift, mine).status_code == 303
    assert not any(each.agent_id == "thrifty" for each in engine.budgets.list(WORKSPACE))
    for query, said in (
        ("agent=thrifty&given=1", "another limit is needed"),
        ("given=1&max_per_week=1e3", "plain decimal"),
        ("given=1&max_payments_per_day=x", "takes a whole number"),
    ):
        assert said in unescape(visitor.get(f"{place}?{query}").text), query
    assert visitor.get(f"{place}?agent=nobody").status_code == 404


def test_a_session_at_a_limit_goes_on_by_itself(studio: Opened) -> None:
    visitor, limits = studio.visitor("operator"), Limits(None, 100 * USD, None, None, None)
    session = studio.world.session(limits, label="at its limit")
    studio.world.pay(session, 95)
    studio.world.pay(session, 10)
    path = f"/studio/sessions/{session.id}"
    told = visitor.get(f"{path}.json").json()["session"]
    assert (told["status"], told["resumes_at"] is None) == ("paused", False)
    page = visitor.get(path).text
    assert "fits again from" in page
    assert (f"{path}/resume" in page, f"{path}/pause" in page) == (False, True)
    assert "at a limit until" in visitor.get("/studio/?label=at+its+limit").text
    assert visitor.send(visitor.form(path, f"{path}/pause")).status_code == 303
    page = visitor.get(path).text
    assert (f"{path}/resume" in page, f"{path}/pause" in page) == (True, False)


def test_a_page_of_a_session_counts_all_of_it(studio: Opened) -> None:
    world, visitor = studio.world, studio.visitor("viewer")
    session = world.session(Limits(None, 1000 * USD, None, None, None), label="busy")
    for _ in range(201):
        world.pay(session, 2)
    world.pay(session, 2000)
    studio.clock.now_ms += 3_600_000
    visitor = studio.visitor("viewer")
    path = f"/studio/sessions/{session.id}"
    first = visitor.get(f"{path}.json").json()
    assert (first["payments_total"], first["records_total"]) == (202, 404)
    assert first["payment_pages"] == {"page": 1, "of": 9}
    assert first["record_pages"] == {"page": 1, "of": 17}
    assert first["charts"][0]["used_usd"] == 402
    assert [each["what"] for each in first["life"]] == ["created", "first payment", "first refusal"]
    last = visitor.get(f"{path}.json?payments=9&records=99").json()
    assert (len(last["payments"]), last["record_pages"]["page"]) == (2, 17)
    assert last["records"][-1]["kind"] == "session.created"
    assert "Page 17 of 17" in visitor.get(f"{path}?records=17").text
    studio.clock.now_ms += 25 * 3_600_000
    world.session(label="later")
    over = studio.visitor("viewer").get(f"{path}.json").json()
    assert over["charts"][0]["used_usd"] == 0
